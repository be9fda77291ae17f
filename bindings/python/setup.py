"""Builds libols with cargo, or takes the one that OLS_LIBRARY names, and puts it into the wheel: one for every Python 3 of the platform."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

CRATE = Path(__file__).resolve().parents[2]
# setuptools's own folders, out of the sources.
WORK = Path(os.environ.get("CARGO_TARGET_DIR") or CRATE / "target").resolve() / "python" / "setuptools"
NAME = {"darwin": "libols.dylib", "win32": "ols.dll"}.get(sys.platform, "libols.so")


def manifest() -> Path:
    path = CRATE / "Cargo.toml"
    if not path.is_file():
        raise SystemExit(f"libols: {path} is not there. The package is built inside of libols's source tree")
    return path


def version() -> str:
    found = re.search(r'^version = "(.+)"$', manifest().read_text(), re.M)
    assert found, "Cargo.toml has no version"
    return found[1]


def library() -> Path:
    if given := os.environ.get("OLS_LIBRARY"):
        return Path(given)
    # What cargo says it made is where it is, whatever the settings of its target directory are.
    command = [os.environ.get("CARGO", "cargo"), "build", "--release", "--locked", "--lib", "--message-format=json-render-diagnostics"]
    output = subprocess.run([*command, "--manifest-path", str(manifest())], stdout=subprocess.PIPE, check=True, text=True).stdout
    made = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    files = [Path(file) for message in made if "cdylib" in message.get("target", {}).get("kind", []) for file in message.get("filenames", [])]
    found = [file for file in files if file.name == NAME]
    if not found:
        raise SystemExit(f"libols: cargo has made no {NAME}")
    return found[-1]


class BuildWithLibrary(build_py):
    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)  # what an older source tree has left there
        super().run()
        if not self.editable_mode:
            destination = Path(self.build_lib) / "ols" / NAME
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(library(), destination)


class PlatformWheel(bdist_wheel):
    """ctypes needs no Python ABI: the wheel is of a platform alone."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class WithLibrary(Distribution):
    def has_ext_modules(self) -> bool:
        return True


WORK.mkdir(parents=True, exist_ok=True)
setup(
    version=version(),
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel},
    distclass=WithLibrary,
    options={"build": {"build_base": str(WORK)}, "egg_info": {"egg_base": str(WORK)}},
)
