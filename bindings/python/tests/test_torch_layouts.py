"""Layouts of tensors: all are read in place, copies cause a warning, and the gradient replaces the logits on request (rules R16, R20)."""

import re
import warnings

import pytest
import torch
from test_torch_loss import batch, check

import ols
from ols import OnlineLabelSmoothing


@pytest.mark.parametrize("name", ["row-major", "column-major", "class last", "padded", "every second row", "expanded", "image, channels last"])
def test_r16_every_layout_is_read_where_it_lies(name):
    logits, target = {
        "row-major": lambda: batch(8, 5),
        "column-major": lambda: (lambda z, y: (z.t().contiguous().t(), y))(*batch(8, 5)),
        "class last": lambda: (lambda z, y: (z.movedim(1, -1).contiguous().movedim(-1, 1), y))(*batch(4, 5, 6)),
        "padded": lambda: (lambda z, y: (torch.nn.functional.pad(z, (1, 3))[:, 1:6], y))(*batch(8, 5)),
        "every second row": lambda: (lambda z, y: (z[::2], y[::2]))(*batch(16, 5)),
        "expanded": lambda: (lambda z, y: (z.expand(8, 5), y.expand(8)))(*batch(1, 5)),
        "image, channels last": lambda: (lambda z, y: (z.to(memory_format=torch.channels_last), y))(*batch(2, 5, 3, 4)),
    }[name]()  # fmt: skip
    criterion = OnlineLabelSmoothing(0.5, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ols.CopyWarning)
        check(criterion, logits, target)
    assert [plan.logits_data.value for plan in criterion._engine._plans.values()] == [logits.data_ptr()]
    same = OnlineLabelSmoothing(0.5, 5)
    assert torch.equal(same(logits.contiguous(), target.contiguous()), OnlineLabelSmoothing(0.5, 5)(logits, target))


def test_r16_the_address_is_the_tensors():
    logits, target = batch(8, 5)
    criterion = OnlineLabelSmoothing(0.5, 5)
    criterion(logits, target)
    (plan,) = criterion._engine._plans.values()
    assert (plan.logits_data.value, plan.targets_data.value) == (logits.data_ptr(), target.data_ptr())
    assert (plan.batch.logits.data, plan.batch.targets.data) == (logits.data_ptr(), target.data_ptr())


def test_r16_what_no_three_strides_walk_is_copied_and_said():
    z, y = batch(2, 5, 3, 4)
    logits, target = z.transpose(2, 3).contiguous().transpose(2, 3), y.transpose(1, 2).contiguous().transpose(1, 2)
    criterion = OnlineLabelSmoothing(0.5, 5)
    with pytest.warns(ols.CopyWarning) as said:
        loss = criterion(logits, target)
    assert [str(one.message).split(":")[0] for one in said] == ["logits is copied", "target is copied"]
    assert torch.equal(loss, OnlineLabelSmoothing(0.5, 5)(z, y))
    with pytest.warns(ols.CopyWarning):
        check(criterion, logits, target)
    with pytest.raises(ValueError, match="does not collapse"):
        criterion.loss_and_grad(logits, target, inplace=True)
    leaf, p = logits.detach().requires_grad_(), z.softmax(1).transpose(2, 3).contiguous().transpose(2, 3)
    for call, given in (
        (criterion.take_back, logits),
        (criterion.step, p),
        (criterion.loss_and_grad, logits),
        (criterion, logits),
        (criterion, leaf),
    ):
        with pytest.warns(ols.CopyWarning) as said:
            call(given, target)
        assert {one.filename for one in said} == {__file__}  # the warning names the caller's line


SHAPES = [
    ((2, 5, 3, 4), (2, 4, 3)), ((2, 5, 3, 4), (2, 12)), ((2, 5, 12), (2, 3, 4)), ((2, 5, 3, 4), (2, 1, 3, 4)), ((2, 5, 0, 4), (2, 4, 0)),
    ((2, 5, 3, 4), (2,)), ((2, 5, 3, 4), (2, 3, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("logits", "target"), SHAPES)
def test_r16_images_on_their_side_are_not_taken_for_merged_dimensions(logits, target):
    needed = (logits[0], *logits[2:])
    message = re.escape(f"has shape {target}, but {needed} is needed") + "$"
    z, y, wrong = torch.randn(logits), torch.zeros(needed, dtype=torch.int64), torch.zeros(target, dtype=torch.int64)
    criterion, numbers = OnlineLabelSmoothing(0.5, 5), ols.Criterion(5)
    for given in (
        {"target": wrong},
        {"target": y, "sample_weight": wrong.double()},
        {"target": y, "target2": wrong, "lam": 0.5},
        {"target": y, "target2": y, "lam": wrong.double()},
    ):
        for use in (criterion, criterion.loss_and_grad, criterion.take_back):
            with pytest.raises(ValueError, match=message):
                use(z, **given)
        with pytest.raises(ValueError, match=message):
            numbers(z, **given)
    with pytest.raises(ValueError, match=r"logits.shape\[1\] = 6 differs from n_classes = 5"):
        criterion(torch.zeros(2, 6, *logits[2:]), wrong)
    for one in ((), (1,)):
        for use in (criterion.eval(), numbers.eval()):
            use(z, y, target2=y, lam=torch.ones(one))
    with pytest.raises(ValueError, match=r"target(.shape = \(1\) differs| has shape \(1,\))"):
        criterion(z, torch.zeros(1, dtype=torch.int64))
    # One value, unless there is a loss for each sample.
    with pytest.raises(ValueError, match=r"grad_loss.shape = .* is not a single value"):
        criterion.loss_and_grad(z, y, grad_loss=torch.ones(logits[:2]))
    with pytest.raises(ValueError, match="grad_loss(.shape =| has shape)"):
        OnlineLabelSmoothing(0.5, 5, reduction="none").loss_and_grad(z, y, grad_loss=torch.ones(logits[:2]))
    assert not criterion.counters.any()
    assert not criterion.counts.any()
    assert numbers.running()["samples_accumulated"] == 0


def test_r20_in_place_takes_no_memory_and_is_asked_for():
    logits, target = batch(64, 10)
    kept = logits.clone()
    criterion = OnlineLabelSmoothing(0.5, 10)
    loss, expected = criterion.loss_and_grad(logits, target)
    assert torch.equal(logits, kept)
    version = logits._version
    found, gradient = criterion.loss_and_grad(logits, target, inplace=True)
    assert gradient.data_ptr() == logits.data_ptr()
    assert torch.equal(found, loss)
    assert torch.equal(logits, expected)
    assert logits._version > version
    each = OnlineLabelSmoothing(0.5, 10, reduction="none")
    assert each.loss_and_grad(kept, target, inplace=True)[0].shape == (64,)


def test_in_place_makes_autograd_refuse_what_saved_the_logits():
    z = torch.randn(4, 3, requires_grad=True)
    logits = z * 2
    other = logits.exp()  # saves its output
    another = logits.pow(2)  # saves its input
    OnlineLabelSmoothing(0.5, 3).loss_and_grad(logits, torch.tensor([0, 1, 2, 0]), inplace=True)
    other.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        another.sum().backward()


@pytest.mark.filterwarnings("ignore::ols.CopyWarning")  # for 16-bit logits, backward makes a copy as well
def test_what_overlaps_is_copied_where_its_gradient_lies_in_another_order():
    base, target = torch.randn(4000), torch.randint(3, (2, 4, 5))
    for dtype in (torch.float32, torch.bfloat16):
        logits = base.to(dtype).as_strided((2, 3, 4, 5), (3, 40, 5, 1))
        criterion, other = OnlineLabelSmoothing(0.5, 3), OnlineLabelSmoothing(0.5, 3)
        one, two = logits.detach().requires_grad_(), logits.contiguous().requires_grad_()
        with pytest.warns(ols.CopyWarning, match=r"logits is copied: its gradient's shape \(2, 3, 4, 5\) with strides \(5, 40, 10, 1\) does not"):
            loss = criterion(one, target)
        loss.backward(torch.tensor(3.0))
        expected = other(two, target)
        expected.backward(torch.tensor(3.0))
        assert torch.equal(loss, expected)
        assert torch.equal(one.grad, two.grad)
        criterion.take_back(logits, target)
        assert criterion.sums.abs().sum() == 0


def test_a_weight_that_negates_is_not_read_as_it_lies():
    logits, target = batch(8, 5)
    criterion = OnlineLabelSmoothing(0.5, 5)
    weight = torch.complex(torch.ones(8), torch.full((8,), 2.0))
    criterion(logits, target, weight.imag)  # prepares the plan that the next call will find
    with pytest.raises(ValueError, match="sample_weight.resolve_neg"):
        criterion(logits, target, weight.conj().imag)


def test_a_view_that_negates_is_not_read_as_it_lies():
    logits = torch.view_as_complex(torch.randn(8, 5, 2)).conj().imag
    assert logits.is_neg()
    target = torch.arange(8) % 5
    criterion = OnlineLabelSmoothing(0.5, 5)
    expected = criterion(logits.resolve_neg(), target)
    with pytest.raises(ValueError, match="resolve_neg"):
        criterion(logits, target)
    assert torch.equal(criterion.eval()(logits.resolve_neg(), target), expected)


def test_in_place_takes_no_memory_at_all():
    logits, target = batch(64, 1000)
    criterion = OnlineLabelSmoothing(0.5, 1000)
    with torch.profiler.profile(profile_memory=True) as profile:
        criterion.loss_and_grad(logits, target, inplace=True)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages() if event.key.startswith("aten::"))
    assert allocated < 4096
