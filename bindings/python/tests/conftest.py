"""Shared by all tests: fixed seeds, paths of the sources, a C compiler."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
HEADER = ROOT / "include" / "ols.h"
VECTORS = ROOT / "tests" / "vectors"
# Seconds after which a process counts as hanging, even on a busy machine.
PATIENCE = 900


@pytest.fixture(autouse=True)
def seeds():
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def threads():
    """Restores the number of threads after the test."""
    import torch

    import ols

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    ols.set_num_threads(None)


def compile_c(source: str, output: Path, *flags: str) -> Path:
    """Compiles C source into a program or shared library."""
    path = output.with_suffix(".c")
    path.write_text(source)
    subprocess.run([os.environ.get("CC", "cc"), "-std=c99", f"-I{ROOT / 'include'}", str(path), *flags, "-o", str(output)], check=True)
    return output


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs code in a separate Python process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=PATIENCE, cwd="/")


def run_ranks(program: str, folder: Path, ranks: int, *arguments: str, **environment: str) -> list[str]:
    """Runs a program of this folder in one process per rank, as `program FOLDER RANK RANKS ARGUMENTS`; returns what each printed. All must succeed."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(program)), str(folder)]
    workers = [
        subprocess.Popen([*command, str(rank), str(ranks), *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    try:
        printed = [worker.communicate(timeout=PATIENCE) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * ranks, "\n".join(error[-3000:] for _, error in printed)
    return [output for output, _ in printed]
