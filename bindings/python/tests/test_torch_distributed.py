"""Real processes: every rank has the soft labels of one process that saw all samples, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIOS = ["outside", "inside", "sharded", "checkpoints", "groups", "devices"]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_agree_with_one_process(tmp_path, ranks):
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    program = str(Path(__file__).with_name("ranks.py"))
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", program, str(tmp_path), str(rank), str(ranks)], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        printed = [worker.communicate(timeout=150) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * ranks, "\n".join(error[-3000:] for _, error in printed)
    for output, _ in printed:
        assert [line.split()[0] for line in output.splitlines() if line.endswith(" held")] == SCENARIOS
