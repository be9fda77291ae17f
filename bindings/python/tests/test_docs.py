"""The snippets of the documentation run, in their order."""

import re

import numpy as np
import pytest
import torch
from conftest import ROOT


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)


@pytest.mark.parametrize("name", ["README.md", "bindings/python/README.md"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_snippets_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = torch.randn(64, 20), torch.arange(64) % 10
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16)
    names = {
        "torch": torch, "np": np, "model": torch.nn.Linear(20, 10), "training_batches": batches, "validation_batches": batches, "folder": tmp_path,
        "dataset": list(zip(x, y)), "x": x, "y": y, "__name__": "snippet",
    }  # fmt: skip
    found = blocks(ROOT / name)
    assert found
    for number, block in enumerate(found):
        exec(compile(block, f"{name}, block {number + 1}", "exec"), names)
    if name != "README.md":
        assert names["criterion"].epoch == 0
        assert names["other"].state_dict().keys() == names["criterion"].state_dict().keys()
        assert names["trainer"].model.criterion.epoch == 2
        assert names["train_loss_fn"].epoch == 2
