"""Every case of every file of tests/vectors, with `ols.Criterion` and with the PyTorch module (rules R27 and R28, and R8 for errors)."""

import json
import math
import re

import numpy as np
import pytest
import torch
import vectors
from conftest import VECTORS

import ols
from ols._errors import in_python

KINDS = {
    "invalid_argument": ols.InvalidArgumentError, "invalid_dtype": ols.InvalidDtypeError, "invalid_shape": ols.InvalidShapeError,
    "target_out_of_range": ols.TargetOutOfRangeError, "invalid_state": ols.InvalidStateError,
}  # fmt: skip
# What the module cannot express, and why. The numbers of skipped cases are tested.
NOT_IN_THE_MODULE = {
    "target_offset": "labels of PyTorch count from 0",
    "negative strides": "tensors of PyTorch have none",
}


class OfNumpy:
    """Runs a case with ols.Criterion."""

    absent = frozenset()

    def __init__(self, classes, options, mode):
        self.criterion = ols.Criterion(classes, **options).train(mode == "train")

    def arguments(self, batch):
        rest = {name: block.array for name, block in batch.rest.items()}
        names = {"sample_weights": "sample_weight", "targets2": "target2"}
        return {names.get(name, name): array for name, array in rest.items()} | ({"target_offset": batch.offset} if batch.offset else {})

    def forward(self, batch, update, with_loss, out):
        arguments = self.arguments(batch)
        target = batch.targets.array
        if update == "take_back":
            arguments.pop("grad_loss", None)
            return self.criterion.take_back(batch.logits.array, target, **arguments), None
        if out is None and with_loss and not {"grad_loss", "target_offset"} & set(arguments):
            return self.criterion.loss(batch.logits.array, target, update=update == "add", **arguments), None
        return self.criterion(batch.logits.array, target, update=update == "add", out=None if out is None else out.array, **arguments)

    def backward(self, batch, out):
        self.criterion.backward(batch.logits.array, batch.targets.array, out=out.array, **self.arguments(batch))

    def accumulate(self, batch, update):
        arguments = self.arguments(batch)
        arguments.pop("grad_loss", None)
        training = self.criterion.training
        self.criterion.train(training and update != "none")
        try:
            self.criterion.accumulate(batch.logits.array, batch.targets.array, take_back=update == "take_back", **arguments)
        finally:
            self.criterion.train(training)

    def set_soft_labels(self, values):
        self.criterion.set_soft_labels(values)

    def save_load(self, options, mode):
        other = ols.Criterion(self.criterion.n_classes, reduction=options["reduction"]).train(mode == "train")
        other.load_bytes(self.criterion.to_bytes())
        self.criterion.close()
        self.criterion = other

    def running_samples_skipped(self):
        return self.criterion.running()["samples_skipped"]

    def state(self):
        return {name: np.asarray(getattr(self.criterion, name)) for name in ("soft_labels", "sums", "counts", "counters")}


def as_torch(block):
    """A tensor with the same memory and strides."""
    bits = block.memory.view(np.int16) if block.memory.dtype.itemsize == 2 else block.memory
    tensor = torch.from_numpy(bits)
    if block.dtype.name == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    elif block.dtype == np.float16:
        tensor = tensor.view(torch.float16)
    return tensor.as_strided(block.array.shape, block.steps, block.offset)


class OfTorch:
    """Runs a case with ols.OnlineLabelSmoothing: forward and backward by autograd, saving by the state dict."""

    absent = NOT_IN_THE_MODULE

    def __init__(self, classes, options, mode):
        options = dict(options)
        self.criterion = ols.OnlineLabelSmoothing(options.pop("alpha"), classes, **options).train(mode == "train")

    def arguments(self, batch):
        names = {"sample_weights": "sample_weight", "targets2": "target2"}
        return {names.get(name, name): as_torch(block) for name, block in batch.rest.items()}

    def forward(self, batch, update, with_loss, out):
        logits, target, arguments = as_torch(batch.logits), as_torch(batch.targets), self.arguments(batch)
        grad_loss = arguments.pop("grad_loss", None)
        if update == "take_back":
            return self.criterion.take_back(logits, target, **arguments), None
        training = self.criterion.training
        self.criterion.train(training and update == "add")
        try:
            if out is batch.logits:
                return self.criterion.loss_and_grad(logits, target, grad_loss=grad_loss, inplace=True, **arguments)[0], None
            if (
                grad_loss is not None and grad_loss.numel() != 1 and self.criterion.reduction != "none"
            ):  # autograd would reject it with its own message
                return self.criterion.loss_and_grad(logits, target, grad_loss=grad_loss, **arguments)
            logits.requires_grad_(out is not None)
            loss = self.criterion(logits, target, **arguments)
            if out is not None:
                given = (
                    torch.ones_like(loss)
                    if grad_loss is None
                    else grad_loss.to(loss.dtype).reshape(loss.shape if loss.dim() == 0 else grad_loss.shape)
                )
                (gradient,) = torch.autograd.grad(loss, logits, given.expand(loss.shape))
                as_torch(out).copy_(gradient)
            return loss.detach(), None
        finally:
            self.criterion.train(training)

    def backward(self, batch, out):
        self.forward(batch, "none", False, out)

    def accumulate(self, batch, update):
        training = self.criterion.training
        self.criterion.train(training and update != "none")
        try:
            self.criterion.step(as_torch(batch.logits), as_torch(batch.targets), take_back=update == "take_back", **self.arguments(batch))
        finally:
            self.criterion.train(training)

    def set_soft_labels(self, values):
        self.criterion.set_soft_labels(torch.from_numpy(values))

    def save_load(self, options, mode):
        other = ols.OnlineLabelSmoothing(0.5, self.criterion.n_classes, reduction=options["reduction"]).train(mode == "train")
        other.load_state_dict(self.criterion.state_dict())
        self.criterion = other

    def running_samples_skipped(self):
        return int(self.criterion.counters[0])

    def state(self):
        return {name: getattr(self.criterion, name).numpy() for name in ("soft_labels", "sums", "counts", "counters")}


# The numbers of skipped cases; the tests print their names.
SKIPPED = {(OfTorch, "errors"): 2, (OfTorch, "targets"): 5, (OfTorch, "layouts"): 16}


def refused(error, call):
    with pytest.raises(KINDS[error["kind"]]) as raised:
        call()
    if error.get("message"):
        function = str(raised.value).split(":")[0]  # it decides what the arguments are called
        assert in_python(f"{function}:{error['message']}").removeprefix(f"{function}:") in str(raised.value)


def run_batch(runner, case, step):
    batch = vectors.Batch(case["batches"][step["batch"]])
    expect, out = step["expect"], None
    if step.get("in_place"):
        out = batch.logits
    elif "grad" in step:
        out = vectors.Block(case["batches"][step["batch"]]["logits"]["dtype"], step["grad"])
    before = None if out is None else out.memory.copy()
    state = {name: value.copy() for name, value in runner.state().items()}
    with_loss, found = "loss" in step, {}

    def call():
        if step["do"] == "forward":
            found["loss"] = runner.forward(batch, step["update"], with_loss, out)[0]
        elif step["do"] == "backward":
            runner.backward(batch, out)
        else:
            runner.accumulate(batch, step.get("update", "add"))

    if "error" in expect:
        refused(expect["error"], call)
        for name, value in runner.state().items():
            np.testing.assert_array_equal(value, state[name], err_msg=f"{name} after an error")
    else:
        call()
        if "loss" in expect and found.get("loss") is not None:
            vectors.compare("loss", np.asarray(found["loss"]), expect["loss"])
        if step.get("update") != "take_back":
            if "grad" in expect:
                vectors.compare("grad", out.array, expect["grad"])
            if "grad_abs_sum" in expect:
                vectors.compare("grad_abs_sum", np.abs(out.array.astype(np.float64)).sum(), expect["grad_abs_sum"])
    if out is not None:
        assert out.untouched(before, "error" in expect), "memory outside of the gradient was written"


def run_case(kind, case):
    options, mode = vectors.options(case["options"]), case["options"]["mode"]
    if "error" in case:
        refused(case["error"], lambda: kind(case["options"]["classes"], options, mode))
        return 1
    runner = kind(case["options"]["classes"], options, mode)
    for step in case["steps"]:
        expect, report = step["expect"], None
        if step["do"] == "next_epoch":
            report = runner.criterion.next_epoch()
        elif step["do"] == "set_mode":
            mode = step["mode"]
            runner.criterion.train(mode == "train")
        elif step["do"] == "set_alpha":
            alpha = vectors.real(step["alpha"])
            (refused(expect["error"], lambda a=alpha: setattr(runner.criterion, "alpha", a)) if "error" in expect
             else setattr(runner.criterion, "alpha", alpha))  # fmt: skip
        elif step["do"] == "set_soft_labels":
            k = case["options"]["classes"]
            matrix = vectors.reals(step["values"]).reshape(k, k)
            if "error" in expect:
                refused(expect["error"], lambda m=matrix: runner.set_soft_labels(m))
            else:
                runner.set_soft_labels(matrix)
        elif step["do"] == "save_load":
            runner.save_load(options, mode)
        else:
            run_batch(runner, case, step)
        state = runner.state()
        if "counts" in expect:
            assert state["counts"].tolist() == expect["counts"]
        if "sums" in expect:
            vectors.compare("sums", state["sums"], expect["sums"])
        if "soft_labels" in expect:
            vectors.compare("soft_labels", state["soft_labels"], expect["soft_labels"])
        if "samples_skipped" in expect:
            assert runner.running_samples_skipped() == expect["samples_skipped"]
        if "epoch" in expect:
            assert runner.criterion.epoch == expect["epoch"]
        if "report" in expect:
            assert report.as_dict() == expect["report"]
    return len(case["steps"])


def lacks(kind, case):
    """What a case needs and this kind of criterion lacks."""
    text = json.dumps(list(case.get("batches", [])) + [step.get("grad") for step in case.get("steps", [])])
    found = {"target_offset"} if '"target_offset"' in text else set()
    found |= {"negative strides"} if re.search(r'"strides": \[[^]]*-', text) else set()
    return sorted(found & set(kind.absent))


def test_r27_no_file_is_unknown():
    assert sorted(path.stem for path in VECTORS.glob("*")) == sorted(vectors.FILES)


def test_r28_the_formula():
    assert vectors.splitmix64(0, 0) == 0xE220A8397B1DCDAF
    assert vectors.splitmix64(7, 3) == 0x953AEB70673E29CB


@pytest.mark.parametrize("name", vectors.FILES)
@pytest.mark.parametrize("kind", [OfNumpy, OfTorch])
@pytest.mark.filterwarnings("ignore::ols.CopyWarning")
def test_r27_every_case(kind, name):
    ran, wrong, skipped = 0, [], []
    for case in vectors.read(name):
        if missing := lacks(kind, case):
            skipped.append(f"{name}/{case['name']}: {', '.join(missing)}: {kind.absent[missing[0]]}")
            continue
        try:
            ran += run_case(kind, case) > 0
        except Exception as error:
            wrong.append(f"{name}/{case['name']}: {type(error).__name__}: {error}")
    print(*skipped, sep="\n")
    assert not wrong, f"{len(wrong)} of {ran + len(wrong)} cases:\n" + "\n".join(wrong[:15])
    assert ran > 20
    assert len(skipped) == SKIPPED.get((kind, name), 0)


def test_r28_a_changed_number_fails():
    case = next(case for case in vectors.read("weights") if case["steps"][0]["do"] == "forward")
    grad = case["steps"][0]["expect"]["grad"]
    grad["values"][0] = (vectors.real(grad["values"][0]) + 1e-3).hex()
    for kind in (OfNumpy, OfTorch):
        with pytest.raises(AssertionError, match="grad"):
            run_case(kind, case)
    case = vectors.read("epochs")[0]
    case["steps"][0]["expect"]["counts"][0] += 1
    with pytest.raises(AssertionError):
        run_case(OfNumpy, case)
    assert math.isnan(vectors.real("nan"))
