"""Hugging Face's Trainer as the README uses it: a run resumed from a checkpoint is bitwise equal to one that never stopped."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from ols import OnlineLabelSmoothing

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class NextEpoch(TrainerCallback):
    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        for module in model.modules():
            if isinstance(module, OnlineLabelSmoothing):
                module.next_epoch()

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        for module in model.modules():
            if isinstance(module, OnlineLabelSmoothing) and module.epoch < int(state.epoch):
                module.next_epoch()  # resumed from a checkpoint of the last step of an epoch, taken before the epoch ended


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.model, self.criterion = torch.nn.Linear(5, 3), OnlineLabelSmoothing(0.5, 3, momentum=0.25)

    def forward(self, x, labels):
        logits = self.model(x)
        return {"loss": self.criterion(logits, labels), "logits": logits}


def data(samples):
    target = torch.arange(samples) % 3
    x = torch.randn(samples, 5, generator=torch.Generator().manual_seed(2)) + 3 * torch.eye(5)[target]
    return [{"x": x, "labels": y} for x, y in zip(x, target)]


def train(folder, checkpoint=None):
    arguments = TrainingArguments(
        output_dir=folder, num_train_epochs=3, per_device_train_batch_size=8, report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=0.1,
        save_strategy="steps", save_steps=2, eval_strategy="epoch",
    )  # fmt: skip
    trainer = Trainer(Classifier(), arguments, train_dataset=data(32), eval_dataset=data(16), callbacks=[NextEpoch()])
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer.model


def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path):
    straight = train(tmp_path / "straight")
    assert straight.criterion.epoch == 3
    assert straight.criterion.counts.sum() == 0  # evaluation added nothing
    assert not torch.equal(straight.criterion.soft_labels, Classifier().criterion.soft_labels)
    for steps, ended in ((2, 0), (4, 0), (6, 1)):  # within the first epoch, after its last step, within the second
        resumed = train(tmp_path / "resumed", str(tmp_path / "straight" / f"checkpoint-{steps}"))
        held = OnlineLabelSmoothing(0.5, 3)
        state = load_file(tmp_path / "straight" / f"checkpoint-{steps}" / "model.safetensors")
        held.load_state_dict({name.removeprefix("criterion."): value for name, value in state.items() if name.startswith("criterion.")})
        assert held.epoch == ended
        for (name, one), (_, other) in zip(straight.state_dict().items(), resumed.state_dict().items(), strict=True):
            assert torch.equal(one, other), (steps, name)
