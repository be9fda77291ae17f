"""What all tests share: fixed seeds, where the sources are, a compiler."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
HEADER = ROOT / "include" / "ols.h"
VECTORS = ROOT / "tests" / "vectors"


@pytest.fixture(autouse=True)
def seeds():
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def threads():
    """Puts the number of threads back."""
    import torch

    import ols

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    ols.set_num_threads(None)


def compile_c(source: str, output: Path, *flags: str) -> Path:
    """A C program or shared library from a text."""
    path = output.with_suffix(".c")
    path.write_text(source)
    subprocess.run([os.environ.get("CC", "cc"), "-std=c99", f"-I{ROOT / 'include'}", str(path), *flags, "-o", str(output)], check=True)
    return output


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs code in a Python of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120, cwd="/")
