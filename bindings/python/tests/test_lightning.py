"""A real Lightning Trainer: with the callback, with a user's own hook, with checkpoints and resuming."""

import copy
import socket

import lightning.pytorch as pl
import pytest
import torch
from conftest import run_ranks

import ols
from ols.lightning import OnlineLabelSmoothingCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class Model(pl.LightningModule):
    def __init__(self, by_hand=False):
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.by_hand = torch.nn.Linear(4, 3), by_hand
        self.criterion = ols.OnlineLabelSmoothing(0.5, 3)
        self.history = []

    def training_step(self, batch, _):
        x, target = batch
        return self.criterion(self.layer(x), target)

    def validation_step(self, batch, _):
        x, target = batch
        before = self.criterion.counts.clone()
        self.log("validation", self.criterion(self.layer(x), target))
        assert torch.equal(self.criterion.counts, before)

    def on_train_epoch_end(self):
        if self.by_hand:
            self.criterion.next_epoch()

    def on_train_epoch_start(self):
        self.history.append(self.criterion.soft_labels.clone())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.5)


def loader():
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(3, (96,), generator=generator)
    x = torch.randn(96, 4, generator=generator) + torch.eye(4)[:3][target] * 3
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, target), 16)


class Resumable:
    """A loader that resumes within an epoch, like torchdata's StatefulDataLoader."""

    def __init__(self, batches):
        self.batches, self.place = list(batches), 0

    def __iter__(self):
        for number in range(self.place, len(self.batches)):
            # Lightning does not fetch anything after the last batch.
            self.place = (number + 1) % len(self.batches)
            yield self.batches[number]

    def __len__(self):
        return len(self.batches)

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def fit(model, folder, epochs=3, checkpoint=None, callbacks=(), **options):
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, default_root_dir=folder, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(model, Resumable(loader()), loader(), ckpt_path=checkpoint)
    return trainer


def test_the_callback_ends_epochs_and_logs(tmp_path):
    model, by_hand = Model(), Model(by_hand=True)
    trainer = fit(model, tmp_path, callbacks=[OnlineLabelSmoothingCallback()], enable_checkpointing=False)
    fit(by_hand, tmp_path, enable_checkpointing=False)
    assert model.criterion.epoch == by_hand.criterion.epoch == 3
    assert trainer.global_step == 3 * len(loader())
    assert torch.equal(model.criterion.soft_labels, by_hand.criterion.soft_labels)
    assert torch.equal(model.layer.weight, by_hand.layer.weight)
    assert trainer.callback_metrics["ols/rows_measured"] == 3
    assert trainer.callback_metrics["ols/samples_accumulated"] > 30
    assert not torch.equal(model.history[0], model.history[1])


@pytest.mark.parametrize("by_hand", [False, True], ids=["callback", "own_hook"])
@pytest.mark.parametrize("after_validation", [False, True])
def test_checkpoint_and_resume_continue_bitwise(tmp_path, by_hand, after_validation):
    def callbacks():
        return [] if by_hand else [OnlineLabelSmoothingCallback()]

    straight = Model(by_hand)
    saver = pl.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", save_on_train_epoch_end=not after_validation)
    fit(straight, tmp_path, callbacks=[*callbacks(), saver])
    resumed = Model(by_hand)
    fit(resumed, tmp_path, checkpoint=tmp_path / "epoch=0.ckpt", callbacks=callbacks(), enable_checkpointing=False)
    assert resumed.criterion.epoch == straight.criterion.epoch == 3
    for one, other in zip(straight.state_dict().items(), resumed.state_dict().items()):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])


def test_a_checkpoint_within_an_epoch(tmp_path):
    saver = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1, filename="{step}")
    model = Model()
    fit(model, tmp_path, epochs=1, callbacks=[OnlineLabelSmoothingCallback(), saver])
    state = torch.load(tmp_path / "step=4.ckpt", weights_only=True)["state_dict"]
    assert 0 < state["criterion.counts"].sum() <= 64
    resumed = Model()
    fit(resumed, tmp_path, epochs=1, checkpoint=tmp_path / "step=4.ckpt", callbacks=[OnlineLabelSmoothingCallback()], enable_checkpointing=False)
    assert torch.equal(resumed.criterion.soft_labels, model.criterion.soft_labels)


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks_agree_with_one_process(tmp_path, ranks):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for output in run_ranks("lightning_ranks.py", tmp_path, ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)):
        assert output.splitlines()[-1] == "held"


@pytest.mark.parametrize("copied", [False, True])
def test_gathering_at_a_checkpoint_shows_in_it(monkeypatch, copied):
    """What `gather` moves after the state dict was taken is updated in it, even if a strategy has copied its tensors to the host or removed some."""
    model = Model()
    model.criterion(torch.eye(3) * 9, torch.arange(3))
    checkpoint = {"state_dict": copy.deepcopy(model.state_dict()) if copied else model.state_dict()}
    assert checkpoint["state_dict"]["criterion.counts"].sum() == 3
    del checkpoint["state_dict"]["criterion.counters"]
    names = list(checkpoint["state_dict"])
    monkeypatch.setattr(ols.OnlineLabelSmoothing, "gather", lambda self: self.counts.zero_())
    OnlineLabelSmoothingCallback().on_save_checkpoint(None, model, checkpoint)
    assert checkpoint["state_dict"]["criterion.counts"].sum() == 0
    assert list(checkpoint["state_dict"]) == names


def test_a_module_without_a_criterion_is_told():
    model = Model()
    callback = OnlineLabelSmoothingCallback()
    del model.criterion
    with pytest.raises(ValueError, match="Model contains no OnlineLabelSmoothing"):
        callback.on_train_start(None, model)
    OnlineLabelSmoothingCallback(ols.OnlineLabelSmoothing(0.5, 3)).on_train_start(None, model)
    model.a, model.b = ols.OnlineLabelSmoothing(0.5, 3), ols.OnlineLabelSmoothing(0.5, 3)
    assert set(callback.criteria(model)) == {"a", "b"}
    assert set(copy.deepcopy(callback).criteria(model)) == {"a", "b"}
