"""Device memory where there is no GPU: processes that have the stand-in for libcuda.so (rules R9, R16, R17, R21, R25, R26)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def driver():
    return subprocess.run([ROOT / "bindings" / "stand-in-driver"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@pytest.mark.parametrize("scenario", ["passes", "layouts", "extras", "states", "devices", "values"])
def test_criterion(driver, scenario):
    program = Path(__file__).with_name("device_memory.py")
    result = subprocess.run(
        [sys.executable, "-W", "error", program, scenario], capture_output=True, text=True, env={**os.environ, "OLS_TEST_DRIVER": driver}, timeout=120
    )
    assert (result.returncode, result.stdout) == (0, "held\n"), result.stderr
