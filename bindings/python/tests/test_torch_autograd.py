"""Uses of the gradient (rule R23)."""

import math

import pytest
import torch
from test_torch_loss import batch
from torch.utils.checkpoint import checkpoint

from ols import OnlineLabelSmoothing


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mixed", [False, True])
def test_gradcheck_and_double_backward(reduction, mixed):
    logits, target = batch(5, 4, dtype=torch.float64)
    target[1] = -100
    v = torch.rand(5, dtype=torch.float64)
    v[2] = 0
    arguments = {"sample_weight": v, "target2": target.roll(1), "lam": torch.rand(5)} if mixed else {}
    criterion = OnlineLabelSmoothing(0.3, 4, reduction=reduction, weight=torch.rand(4) if mixed else None)
    criterion(*batch(64, 4))
    criterion.next_epoch()
    criterion.eval()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: criterion(z, target, **arguments), logits)
    assert torch.autograd.gradgradcheck(lambda z: criterion(z, target, **arguments), logits)


def test_double_backward_of_an_image_with_lam_for_all():
    logits, target = batch(2, 3, 2, 2, dtype=torch.float64)
    criterion = OnlineLabelSmoothing(0.3, 3).eval()
    assert torch.autograd.gradgradcheck(lambda z: criterion(z, target, None, target.flip(0), 0.25), logits.requires_grad_())


@pytest.mark.parametrize("ignored", [{"target": -100}, {"sample_weight": 0.0}], ids=["target", "weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_double_backward_leaves_ignored_samples_out(ignored, value):
    logits, target = batch(6, 4)
    logits, sample_weight = logits.double(), torch.ones(6, dtype=torch.float64)
    logits[2] = value
    target[2] = ignored.get("target", 0)
    sample_weight[2] = ignored.get("sample_weight", 1)
    logits.requires_grad_()
    loss = OnlineLabelSmoothing(0.3, 4)(logits, target, sample_weight)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    assert torch.equal(second[2], torch.zeros(4, dtype=torch.float64))
    assert second.isfinite().all()
    assert second.any(1).sum() == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_batches_of_gradients(dtype, reduction):
    logits, target = batch(5, 4)
    logits = logits.to(dtype).requires_grad_()
    loss = OnlineLabelSmoothing(0.3, 4, reduction=reduction)(logits, target)
    given = torch.randn(3, *loss.shape)
    (found,) = torch.autograd.grad(loss, logits, given, retain_graph=True, is_grads_batched=True)
    expected = [torch.autograd.grad(loss, logits, one, retain_graph=True)[0] for one in given]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_create_graph_gives_the_same_gradient(dtype):
    logits, target = batch(8, 4, dtype=dtype)
    criterion = OnlineLabelSmoothing(0.3, 4).eval()
    logits.requires_grad_()
    (one,) = torch.autograd.grad(criterion(logits, target), logits)
    (two,) = torch.autograd.grad(criterion(logits, target), logits, create_graph=True)
    assert two.requires_grad
    torch.testing.assert_close(one, two.detach(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-3, atol=1e-6)
    two.float().pow(2).sum().backward()  # a gradient penalty
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_r23_a_second_backward_is_right(dtype):
    logits, target = batch(8, 4, dtype=dtype)
    logits.requires_grad_()
    loss = OnlineLabelSmoothing(0.3, 4)(logits, target)
    grads = [torch.autograd.grad(loss, logits, torch.tensor(scale, dtype=loss.dtype), retain_graph=True)[0] for scale in (2.0, 1.0, 2.0)]
    assert torch.equal(grads[0], grads[2])
    assert torch.equal(grads[0], 2 * grads[1])
    assert grads[0].data_ptr() != grads[2].data_ptr()


def test_r23_a_freed_graph_is_refused():
    logits, target = batch(8, 4)
    loss = OnlineLabelSmoothing(0.3, 4)(logits.requires_grad_(), target)
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_r23_what_came_between_forward_and_backward():
    logits, target = batch(8, 4)
    criterion = OnlineLabelSmoothing(0.3, 4)
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(criterion(logits, target), logits)
    loss = criterion(logits, target)
    criterion(*batch(8, 4))  # another forward
    criterion.next_epoch()  # the gradient was computed with the loss
    (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
    assert torch.equal(found, expected)
    with pytest.raises(RuntimeError, match="next_epoch, a load, a move or a change of alpha came between"):
        torch.autograd.grad(loss, logits)
    half = logits.detach().half().requires_grad_()
    for change in (criterion.next_epoch, lambda: setattr(criterion, "alpha", 0.9), lambda: criterion.load_state_dict(criterion.state_dict())):
        loss = criterion(half, target)
        change()
        with pytest.raises(RuntimeError, match="came between"):
            (loss * 3).backward()


def test_r23_a_loss_scale_does_not_underflow():
    logits = torch.zeros(4096, 8)
    logits[:, 0] = 10
    target = torch.zeros(4096, dtype=torch.int64)
    criterion = OnlineLabelSmoothing(1.0, 8)
    exact = logits.clone().requires_grad_()
    criterion(exact, target).backward()
    half = logits.half().requires_grad_()
    (criterion(half, target) * 2.0**16).backward()
    assert exact.grad.half().count_nonzero() < exact.grad.count_nonzero()  # it would underflow
    torch.testing.assert_close(half.grad.float() / 2**16, exact.grad, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_r23_a_scale_that_is_foreseen_gives_the_same_bits(dtype):
    logits, target = batch(64, 10, dtype=dtype)
    logits.requires_grad_()
    criterion = OnlineLabelSmoothing(0.5, 10)
    calls = []
    real = criterion._current_engine().backward
    for scale in (1.0, 1.0, 3.0, 3.0, float("inf"), 3.0, 0.375, 0.375, 0.375, 1.0):
        loss = criterion(logits, target)
        place = loss.grad_fn.given[0].data_ptr()
        foreseen = loss.grad_fn.given[1] == scale
        (found,) = torch.autograd.grad(loss, logits, torch.tensor(scale))
        calls.append(foreseen)
        assert found.data_ptr() == place  # no more memory than one gradient
        assert torch.equal(found.nan_to_num(7.0), real(logits.detach(), target, (None,) * 4, torch.tensor(scale)).nan_to_num(7.0))
    assert calls == [True, True, False, True, False, False, False, True, True, False]


def test_transforms_of_torch_func_are_refused():
    logits, target = batch(8, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    with torch.no_grad():
        criterion.eval()(logits, target)  # prepares the plan that the transform will find
    criterion.train()
    uses = [
        lambda: torch.func.grad(lambda z: criterion(z, target))(logits), lambda: torch.func.jacrev(lambda z: criterion(z, target))(logits),
        lambda: torch.vmap(lambda z: criterion(z, target))(torch.stack([logits, logits])),
        lambda: torch.vmap(lambda y: criterion(logits, y))(torch.stack([target, target])),
        lambda: torch.vmap(lambda z: criterion.loss_and_grad(z, target)[0])(torch.stack([logits, logits])),
        lambda: torch.vmap(lambda z: criterion.take_back(z, target))(torch.stack([logits, logits])),
        lambda: torch.vmap(lambda z: criterion.step(z.softmax(1), target))(torch.stack([logits, logits])),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(RuntimeError, match="torch.func transforms are not supported: use autograd"):
            use()
    # Tensors that are not the transform's have memory.
    torch.vmap(lambda x: x + criterion.eval().loss_and_grad(logits, target)[0])(torch.zeros(2))
    assert criterion.counts.sum() == 0


def test_the_gradient_is_scaled_in_place_once():
    logits, target = batch(64, 10)
    logits.requires_grad_()
    criterion = OnlineLabelSmoothing(0.5, 10)
    loss = criterion(logits, target)
    gradient = loss.grad_fn.given[0]
    place = gradient.data_ptr()
    del gradient
    (loss * 3).backward()
    assert logits.grad.data_ptr() == place
    assert torch.equal(logits.grad, 3 * criterion.loss_and_grad(logits.detach(), target)[1])


def test_a_step_takes_the_memory_of_one_gradient():
    logits, target = batch(64, 1000)
    logits.requires_grad_()
    criterion = OnlineLabelSmoothing(0.5, 1000)
    criterion(logits, target).backward()
    logits.grad = None
    size = logits.numel() * 4
    with torch.profiler.profile(profile_memory=True) as profile:
        criterion(logits, target).backward()
    held = peak = 0
    for event in profile.events():
        if event.name == "[memory]":
            held += event.cpu_memory_usage if hasattr(event, "cpu_memory_usage") else 0
            peak = max(peak, held)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages() if event.key.startswith("aten::"))
    assert size <= max(allocated, peak) < size + 4096


def test_gradient_accumulation():
    logits, target = batch(64, 5)
    whole, parts = OnlineLabelSmoothing(0.5, 5), OnlineLabelSmoothing(0.5, 5)
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    whole(one, target).backward()
    for start in range(0, 64, 16):
        (parts(two[start : start + 16], target[start : start + 16]) / 4).backward()
    torch.testing.assert_close(one.grad, two.grad)
    whole.next_epoch()
    parts.next_epoch()
    assert torch.equal(whole.soft_labels, parts.soft_labels)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation_checkpointing_counts_once(reentrant, dtype):
    layer = torch.nn.Linear(6, 5).to(dtype)
    x, target = torch.randn(32, 6, dtype=dtype), torch.randint(5, (32,))
    plain, recomputed = OnlineLabelSmoothing(0.5, 5), OnlineLabelSmoothing(0.5, 5)
    plain(layer(x), target).backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    checkpoint(lambda x: recomputed(layer(x), target), x.requires_grad_(), use_reentrant=reentrant).backward()
    assert torch.equal(layer.weight.grad, expected)
    assert torch.equal(plain.sums, recomputed.sums)
    assert torch.equal(plain.counts, recomputed.counts)
    assert plain.counts.sum() > 0


def test_a_skipped_step_is_taken_back():
    model, criterion = torch.nn.Linear(6, 5), OnlineLabelSmoothing(0.5, 5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # too large, so that the first steps are skipped
    counted = skipped = 0
    for _ in range(40):
        x, target = torch.randn(16, 6), torch.randint(5, (16,))
        logits = model(x)
        before = criterion.sums.clone()
        scaler.scale(1000 * criterion(logits, target)).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if scaler.get_scale() < scale:
            criterion.take_back(logits.detach(), target)
            assert torch.equal(criterion.sums, before)
            skipped += 1
        else:
            counted += int((logits.argmax(1) == target).sum())
    assert skipped > 2
    assert criterion.counts.sum() == counted > 0


def test_autocast_gives_16_bit_logits_and_an_f32_loss():
    model, criterion = torch.nn.Linear(6, 5), OnlineLabelSmoothing(0.5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(8, 6))
        loss = criterion(logits, torch.randint(5, (8,)))
    assert (logits.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    loss.backward()
    assert model.weight.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda z: criterion.eval()(z, torch.arange(4)), z)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by PyTorch when forward mode is first used
def test_forward_mode_is_refused_and_no_tangent_lost():
    logits, target = batch(8, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    with torch.autograd.forward_ad.dual_level():
        criterion(logits, target)
        before = criterion.sums.clone()
        for z in (logits, logits.clone().requires_grad_()):
            with pytest.raises(RuntimeError, match="no forward-mode differentiation"):
                criterion(torch.autograd.forward_ad.make_dual(z, torch.ones_like(z)), target)
    assert torch.equal(criterion.sums, before)


def test_inference_mode():
    logits, target = batch(32, 5)
    with torch.inference_mode():
        criterion = OnlineLabelSmoothing(0.5, 5)
        assert not criterion(logits, target).requires_grad
        counted = criterion.counts.sum()
        criterion.next_epoch()
        criterion.load_state_dict(criterion.state_dict())
    assert counted > 0
    criterion(logits.requires_grad_(), target).backward()
    criterion.next_epoch()


def test_gradients_reach_a_network():
    """Twenty steps on separable points: the loss falls, and the rows of the next soft labels sum to 1."""
    model, criterion = torch.nn.Linear(2, 3), OnlineLabelSmoothing(0.5, 3)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    target = torch.arange(300) % 3
    x = torch.stack([torch.cos(target * 2.1), torch.sin(target * 2.1)], 1) + 0.1 * torch.randn(300, 2)
    losses = []
    for _ in range(20):
        loss = criterion(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    report = criterion.next_epoch()
    assert report.rows_measured == 3
    torch.testing.assert_close(criterion.soft_labels.sum(1), torch.ones(3))


def test_a_nan_row_reaches_the_scaler_but_not_the_statistics():
    logits, target = batch(8, 4)
    logits[2, 1] = float("nan")
    criterion = OnlineLabelSmoothing(0.5, 4)
    loss = criterion(logits.requires_grad_(), target)
    loss.backward()
    assert loss.isnan()
    assert logits.grad[2].isnan().all()
    assert criterion.next_epoch().samples_skipped == 1
    assert criterion.soft_labels.isfinite().all()
