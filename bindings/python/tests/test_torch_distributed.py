"""Real processes: every rank has bitwise the soft labels of a single process with all samples."""

import pytest
import torch
from conftest import run_ranks

SCENARIOS = ["outside", "inside", "sharded", "checkpoints", "any_copy", "distributed_checkpoints", "groups", "devices"]
# The older FSDP needs a GPU: see test_torch_cuda.py.
if torch.__version__.startswith("2.6."):  # where fully_shard needs a GPU
    SCENARIOS.remove("sharded")


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_agree_with_one_process(tmp_path, ranks):
    for output in run_ranks("ranks.py", tmp_path, ranks, *SCENARIOS):
        assert [line.split()[0] for line in output.splitlines() if line.endswith(" held")] == SCENARIOS
