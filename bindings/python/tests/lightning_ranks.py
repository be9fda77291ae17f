"""One rank of test_lightning.py: `lightning_ranks.py FOLDER RANK RANKS`. Lightning's DistributedDataParallel strategy, with a checkpoint within an epoch."""

import os
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from test_lightning import Resumable

import ols
from ols.lightning import OnlineLabelSmoothingCallback

FOLDER, RANK, RANKS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
K, BATCHES = 5, 4
os.environ["LOCAL_RANK"] = str(RANK)  # tells Lightning that the processes exist already


def new():
    return ols.OnlineLabelSmoothing(0.5, K, momentum=0.25)


class Model(pl.LightningModule):
    """The logits of a sample are bitwise the same in every batch and, as the learning rate is 0, in every epoch."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((K,), 1.5))
        self.criterion, self.history = new(), []

    def training_step(self, batch, _):
        x, target = batch
        return self.criterion(x * self.scale, target)

    def on_train_epoch_end(self):  # after the callback
        self.history.append(self.criterion.soft_labels.clone())

    def on_save_checkpoint(self, checkpoint):  # after the callback, on all ranks, as a strategy may save any rank's copy
        states = [None] * RANKS
        dist.all_gather_object(states, {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("criterion.")})
        assert len(states[0]) == 5
        for state in states:
            assert all(torch.equal(state[name], value) for name, value in states[0].items())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def data():
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(K, (62,), generator=generator)
    return torch.randn(62, K, generator=generator) + torch.eye(K)[target], target


def loader():
    """This rank's part of the samples; its size differs between ranks."""
    x, y = (part.split([62 - 9 * (RANKS - 1), *[9] * (RANKS - 1)])[RANK] for part in data())
    return Resumable(list(zip(x.tensor_split(BATCHES), y.tensor_split(BATCHES))))


def alone(epochs):
    """A single process with all samples: soft labels after each epoch, and the number of samples in the last one."""
    criterion, found = new(), []
    for _ in range(epochs):
        x, y = data()
        criterion(x * 1.5, y)
        report = criterion.next_epoch(sync=False)
        found.append(criterion.soft_labels.clone())
    return found, report.samples_accumulated


def fit(checkpoint=None, callbacks=()):
    model = Model()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=RANKS, strategy="ddp", use_distributed_sampler=False, default_root_dir=FOLDER, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=bool(callbacks),
        callbacks=[OnlineLabelSmoothingCallback(), *callbacks],
    )  # fmt: skip
    trainer.fit(model, loader(), ckpt_path=checkpoint)
    assert trainer.world_size == RANKS
    soft_labels, accumulated = alone(2)
    assert model.criterion.epoch == 2
    assert len(model.history) == 2
    for found, expected in zip(model.history, soft_labels):
        assert torch.equal(found, expected), (found - expected).abs().max()
    assert trainer.callback_metrics["ols/samples_accumulated"] == accumulated > 20


fit(callbacks=[pl.callbacks.ModelCheckpoint(FOLDER, every_n_train_steps=2, save_top_k=-1, filename="{step}")])
file = FOLDER / "step=2.ckpt"  # in the middle of the first epoch
counted = torch.load(file, weights_only=True)["state_dict"]["criterion.counts"].sum()
assert 0 < counted < alone(1)[1]
fit(checkpoint=file)
print("held", flush=True)
