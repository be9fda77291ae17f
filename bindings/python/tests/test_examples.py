"""examples/python/train.py runs on the digits and on IDX files, with its own loop and with Lightning."""

import gzip
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import PATIENCE, ROOT


def run(folder, *arguments):
    program = ROOT / "examples" / "python" / "train.py"
    done = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, cwd=folder, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (folder / "soft_labels.png").read_bytes()[:4] == b"\x89PNG"
    return float(re.findall(r"test accuracy ([\d.]+)%", done.stdout)[-1]), done.stdout


@pytest.mark.parametrize("arguments", [[], ["--lightning"]])
def test_it_learns_the_digits(tmp_path, arguments):
    accuracy, output = run(tmp_path, "--epochs", "4", *arguments)
    assert accuracy > 75
    assert "10 classes measured" in output


def test_it_reads_idx_files(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 100)):
        labels = np.arange(count) % 10
        images = random.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        images[np.arange(count), labels * 2 + 3] = 255  # a line at a height given by the class
        header = struct.pack(">HBBIII", 0, 8, 3, count, 28, 28)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, count) + labels.astype(np.uint8).tobytes())
    accuracy, _ = run(tmp_path, "--epochs", "6", "--batch", "20", "--data", str(tmp_path))
    assert accuracy > 50
