"""The wheel: its name and contents, and that it only needs NumPy."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import PATIENCE, ROOT

import ols


@pytest.fixture
def wheel():
    path = os.environ.get("OLS_WHEEL")
    assert path, "run by bindings/python/run-tests, which builds the wheel"
    return Path(path)


def test_one_wheel_for_every_python_of_a_platform(wheel):
    assert re.fullmatch(r"libols-\d+\.\d+\.\d+-py3-none-(linux|manylinux|macosx|win)_?\w+\.whl", wheel.name)
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert wheel.name.split("-")[1] == version == ols.__version__
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"libols-{version}.dist-info/METADATA").decode()
    sources = Path(__file__).parents[1] / "ols"
    ours = {f"ols/{path.relative_to(sources)}" for path in sources.rglob("*.py")}
    assert ours | {"ols/py.typed", "ols/libols.so"} == {name for name in names if name.startswith("ols/")}
    licenses = {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name}
    assert licenses == {"LICENSE-APACHE", "LICENSE-MIT", "LICENSE-THIRD-PARTY.md"}
    assert re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)[0].startswith("numpy")
    assert all("extra ==" in line for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)[1:])


def test_the_tests_run_on_the_installed_package():
    assert "site-packages" in ols.__file__
    assert ols._library.path == str(Path(ols.__file__).with_name("libols.so"))


def test_pip_installs_it_where_there_is_no_torch(tmp_path):
    """`pip install ./bindings/python` as users run it, with build isolation; then a step without PyTorch."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT / "bindings" / "python"], check=True, timeout=PATIENCE
    )
    code = (
        "import ols, numpy as np, sys; c = ols.Criterion(3); print(c(np.eye(3, dtype='f4'), np.arange(3))[0], c.next_epoch().rows_measured);"
        "print(sorted(m for m in ('torch', 'jax') if m in sys.modules)); ols.OnlineLabelSmoothing"
    )
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout.split("\n")[0].split()[1] == "3", run.stderr
    assert run.stdout.split("\n")[1] == "[]"
    assert "No module named 'torch'" in run.stderr
    assert "ols.OnlineLabelSmoothing needs PyTorch, which is not installed; the extra 'libols[torch]' installs it" in run.stderr
    listed = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout
    assert {line.split("=")[0] for line in listed.split()} - {"pip", "setuptools", "libols", "numpy"} == set()


def test_a_named_library_is_packed(tmp_path):
    """OLS_LIBRARY at build time: cargo is not called."""
    library = tmp_path / "libother.so"
    library.write_bytes(Path(ols._library.path).read_bytes() + b"\0other")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-w", tmp_path,
         ROOT / "bindings" / "python"],
        check=True, env={**os.environ, "OLS_LIBRARY": str(library), "CARGO": "/bin/false"}, timeout=PATIENCE,
    )  # fmt: skip
    (built,) = tmp_path.glob("libols-*.whl")
    with zipfile.ZipFile(built) as archive:
        assert archive.read("ols/libols.so") == library.read_bytes()
