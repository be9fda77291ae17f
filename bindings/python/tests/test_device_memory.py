"""Device memory without a GPU: in processes with the stand-in for libcuda.so (rules R9, R12, R16, R17, R21, R25, R26)."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE, ROOT

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def driver():
    return subprocess.run([ROOT / "bindings" / "stand-in-driver"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@pytest.fixture(scope="module")
def torch_cuda():
    """The extension for CUDA tensors on the stand-in, compiled next to the environment once for each version of PyTorch and of the sources."""
    source = HERE / "torch_device_memory.cpp"
    sources = [source, *(ROOT / "bindings" / "cpp" / "tests" / name for name in ("torch_cuda.hpp", "stand_in.hpp"))]
    version = hashlib.sha256(b"".join([torch.__version__.encode(), *(path.read_bytes() for path in sources)])).hexdigest()[:16]
    library = Path(sys.prefix).parent / "torch-cuda" / version / "torch_cuda.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        home, fresh = Path(torch.__file__).parent, library.with_suffix(f".{os.getpid()}")
        headers = ["-isystem", home / "include", "-isystem", home / "include" / "torch" / "csrc" / "api" / "include"]
        libraries = [f"-L{home / 'lib'}", "-Wl,--no-as-needed", "-lc10", "-ltorch_cpu"]
        subprocess.run([os.environ.get("CXX", "g++"), "-std=c++20", "-fPIC", "-shared", *headers, source, "-o", fresh, *libraries], check=True)
        fresh.rename(library)
    return library


def run(program, scenario, **environment):
    result = subprocess.run(
        [sys.executable, "-W", "error", HERE / program, scenario], capture_output=True, text=True, env={**os.environ, **environment}, timeout=PATIENCE
    )
    assert (result.returncode, result.stdout) == (0, "held\n"), result.stderr


@pytest.mark.parametrize("scenario", ["passes", "layouts", "extras", "states", "devices", "values"])
def test_criterion(driver, scenario):
    run("device_memory.py", scenario, OLS_TEST_DRIVER=driver)


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="the tensors are made for a newer PyTorch")
@pytest.mark.parametrize("scenario", ["training", "calls", "states", "wrong"])
def test_module(driver, torch_cuda, scenario):
    run("torch_device_memory.py", scenario, OLS_TEST_DRIVER=driver, OLS_TEST_TORCH_CUDA=str(torch_cuda))
