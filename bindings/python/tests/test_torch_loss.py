"""Results of the module: losses, gradients, statistics, reports, threads (rules R14, R17, R19, R26)."""

import threading

import oracle
import pytest
import torch

import ols
from ols import OnlineLabelSmoothing

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def batch(*shape, dtype=torch.float32, right=0.6):
    """Logits, many of them classified correctly, and targets."""
    logits = torch.randn(shape, dtype=torch.float64) * 2
    target = torch.randint(shape[1], (shape[0], *shape[2:]))
    boost = (torch.rand(target.shape) < right).double() * 6
    logits.scatter_add_(1, target.unsqueeze(1), boost.unsqueeze(1))
    return logits.to(dtype), target


def check(criterion, logits, target, **arguments):
    """Loss, gradient and statistics of one training step against the oracle."""
    sums, counts = criterion.sums.clone(), criterion.counts.clone()
    z = logits.detach().requires_grad_()
    loss = criterion(z, target, **arguments)
    upstream = torch.rand(loss.shape, dtype=loss.dtype) + 0.5
    loss.backward(upstream)
    exact = z.detach().double().requires_grad_()
    options = {
        "weight": None if criterion._weights is None else criterion._weights,
        "ignore_index": criterion.ignore_index,
        "reduction": criterion.reduction,
    }
    expected = oracle.loss(exact, target, criterion.soft_labels, criterion.alpha, **options, **arguments)
    expected.backward(upstream.double())
    near = TOLERANCE[logits.dtype]
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=near, atol=near)
    assert z.grad.dtype == logits.dtype
    assert loss.dtype == (torch.float64 if logits.dtype is torch.float64 else torch.float32)
    if criterion.training and "target2" not in arguments and "sample_weight" not in arguments:
        more, right = oracle.statistics(z.detach(), target, criterion.ignore_index)
        assert torch.equal(criterion.counts - counts, right)
        torch.testing.assert_close((criterion.sums - sums).double() / 2**30, more, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(32, 10), (4, 7, 5), (2, 5, 3, 4), (2, 3, 2, 2, 2), (1, 2), (3, 257)])
def test_r17_dtypes_reductions_and_shapes(dtype, reduction, shape):
    criterion = OnlineLabelSmoothing(0.3, shape[1], reduction=reduction)
    for _ in range(2):
        check(criterion, *batch(*shape, dtype=dtype))
        criterion.next_epoch()


@pytest.mark.parametrize("index", [torch.int64, torch.int32, torch.uint8])
def test_r17_targets_of_every_dtype_give_the_same_bits(index):
    logits, target = batch(16, 10)
    one, other = OnlineLabelSmoothing(0.5, 10), OnlineLabelSmoothing(0.5, 10)
    assert torch.equal(one(logits, target), other(logits, target.to(index)))
    assert torch.equal(one.sums, other.sums)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_targets_and_ignored_samples(reduction):
    logits, target = batch(24, 6)
    target[::5] = -1
    target2 = target.roll(1)
    criterion = OnlineLabelSmoothing(0.4, 6, weight=torch.rand(6) + 0.1, ignore_index=-1, reduction=reduction)
    v = torch.rand(24)
    v[3] = 0
    for arguments in (
        {}, {"sample_weight": v}, {"sample_weight": v.double()}, {"target2": target2, "lam": 0.3}, {"target2": target2, "lam": torch.rand(24)},
        {"target2": target2, "lam": torch.tensor(0.7), "sample_weight": v},
    ):  # fmt: skip
        check(criterion, logits, target, **arguments)


def test_r19_no_sample():
    for reduction, expected in (("mean", torch.zeros(())), ("sum", torch.zeros(())), ("none", torch.zeros(0))):
        criterion = OnlineLabelSmoothing(0.5, 5, reduction=reduction)
        logits = torch.zeros(0, 5, requires_grad=True)
        loss = criterion(logits, torch.zeros(0, dtype=torch.int64))
        assert torch.equal(loss, expected)
        loss.sum().backward()
        assert logits.grad.shape == (0, 5)
    assert OnlineLabelSmoothing(0.5, 3)(torch.ones(2, 3), torch.tensor([-100, -100])) == 0


def test_loss_and_grad_is_the_step_without_autograd():
    logits, target = batch(64, 10)
    one, other = OnlineLabelSmoothing(0.5, 10), OnlineLabelSmoothing(0.5, 10)
    z = logits.clone().requires_grad_()
    loss = one(z, target)
    loss.backward()
    found, gradient = other.loss_and_grad(logits, target)
    assert torch.equal(found, loss)
    assert torch.equal(gradient, z.grad)
    assert torch.equal(one.sums, other.sums)
    scaled = other.loss_and_grad(logits, target, grad_loss=torch.tensor(4.0))[1]
    assert torch.equal(scaled, 4 * gradient)


def test_statistics_do_not_ask_for_gradients():
    logits, target = batch(32, 5)
    criterion = OnlineLabelSmoothing(0.5, 5)
    with torch.no_grad():
        criterion(logits, target)
    expected = criterion.sums.clone()
    criterion(logits.requires_grad_(), target)
    assert torch.equal(criterion.sums, 2 * expected)
    criterion.eval()(logits, target)
    assert torch.equal(criterion.sums, 2 * expected)
    criterion.train().step(torch.softmax(logits.detach().double(), 1), target)
    assert torch.equal(criterion.counts * 2, 3 * criterion.counts - criterion.counts)
    torch.testing.assert_close(criterion.sums.double(), 3 * expected.double(), rtol=1e-5, atol=2000.0)


def test_step_in_evaluation_mode_changes_nothing():
    criterion = OnlineLabelSmoothing(0.5, 3).eval()
    criterion.step(torch.eye(3), torch.arange(3))
    assert criterion.counts.sum() == 0
    criterion.train().step(torch.eye(3), torch.arange(3))
    assert criterion.counts.tolist() == [1, 1, 1]
    criterion.eval().step(torch.eye(3), torch.arange(3), take_back=True)
    assert criterion.sums.abs().sum() == 0


def test_taking_back_is_exact_and_refuses_more_than_there_is():
    criterion = OnlineLabelSmoothing(0.5, 10)
    first, second = batch(32, 10), batch(8, 10)
    v = torch.rand(8)
    criterion(*first)
    before = criterion.sums.clone(), criterion.counts.clone(), criterion.counters.clone()
    second[0][3, 2] = float("nan")
    criterion(*second, sample_weight=v, target2=second[1].roll(1), lam=0.6)
    assert criterion.counters[0] == 1
    criterion.eval().take_back(*second, sample_weight=v, target2=second[1].roll(1), lam=0.6)
    assert all(torch.equal(a, b) for a, b in zip(before, (criterion.sums, criterion.counts, criterion.counters)))
    criterion.take_back(*first)
    with pytest.raises(RuntimeError):
        criterion.take_back(*first)
    assert criterion.counts.sum() == 0


def test_r26_the_published_names_show_the_state():
    criterion = OnlineLabelSmoothing(0.5, 4, init=torch.arange(16.0).reshape(4, 4))
    criterion(*batch(32, 4))
    assert criterion.supervise.data_ptr() == criterion.soft_labels.data_ptr()
    assert torch.equal(criterion.supervise[:, 1], criterion.soft_labels[1])
    torch.testing.assert_close(criterion.update.sum(0), criterion.idx_count.float())
    torch.testing.assert_close(criterion.update, (criterion.sums.double() / 2**30).float().t())
    assert criterion.idx_count is criterion.counts
    soft_labels, sums = criterion.soft_labels, criterion.sums
    new = criterion.update / criterion.idx_count
    criterion.next_epoch()
    assert criterion.soft_labels is soft_labels
    assert criterion.sums is sums
    measured = ~new.isnan().any(0)
    torch.testing.assert_close(criterion.supervise[:, measured], new[:, measured])


def test_what_the_caller_writes_is_used():
    criterion = OnlineLabelSmoothing(0.0, 3)
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        criterion.supervise.copy_(torch.eye(3))
    torch.testing.assert_close(criterion(logits, target), torch.nn.functional.cross_entropy(logits, target))
    criterion.set_soft_labels(torch.full((3, 3), 1 / 3))
    torch.testing.assert_close(criterion(logits, target), -torch.log_softmax(logits, 1).mean())
    with pytest.raises(ValueError, match=r"soft_labels\[0, 0\] = -1"):
        criterion.set_soft_labels(-torch.ones(3, 3))


def test_reports_stay():
    criterion = OnlineLabelSmoothing(0.5, 4)
    logits, target = 9 * torch.eye(4), torch.arange(4)
    criterion(logits, target)
    first = criterion.next_epoch()
    criterion(logits[:2], target[:2])
    second = criterion.next_epoch()
    assert (first.epoch, first.rows_measured, first.samples_accumulated) == (1, 4, 4)
    assert (second.epoch, second.rows_measured, second.rows_kept) == (2, 2, 2)
    third = criterion.next_epoch()
    criterion.load_state_dict(criterion.state_dict())
    assert third.as_dict()["rows_kept"] == 4
    assert second != third
    assert repr(second) == "Report(epoch=2, rows_measured=2, rows_kept=2, samples_accumulated=2)"


def test_r14_threads_share_a_criterion():
    criterion, alone = OnlineLabelSmoothing(0.5, 6), OnlineLabelSmoothing(0.5, 6)
    batches = [batch(16 + number, 6) for number in range(8)]
    expected = [OnlineLabelSmoothing(0.5, 6).loss_and_grad(*b) for b in batches]
    wrong = []

    def work(number):
        for turn in range(60):
            n = (number + turn) % 8
            z = batches[n][0].clone().requires_grad_()
            loss = criterion(z, batches[n][1])
            loss.backward()
            if not torch.equal(loss, expected[n][0]) or not torch.equal(z.grad, expected[n][1]):
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    for number in range(8):
        for turn in range(60):
            alone(*batches[(number + turn) % 8])
    assert wrong == []
    assert torch.equal(criterion.sums, alone.sums)


def test_threads_follow_pytorch_unless_told(threads):
    criterion = OnlineLabelSmoothing(0.5, 6)
    logits, target = batch(16, 6)

    def used():
        criterion(logits, target)
        return criterion._engine.core.handle.options().n_threads

    torch.set_num_threads(1)
    assert used() == 1
    report = criterion.next_epoch()
    torch.set_num_threads(2)
    assert used() == 2
    ols.set_num_threads(3)
    assert used() == 3
    ols.set_num_threads(0)
    assert used() == 0
    assert ols.get_num_threads() == 0
    ols.set_num_threads(None)
    assert used() == 2
    assert (criterion.epoch, report.epoch) == (1, 1)
    for number, error, message in (
        (-1, ValueError, "n = -1 is outside"),
        (65537, ValueError, "n = 65537 is outside"),
        (1.5, TypeError, "n = 1.5 is not"),
    ):
        with pytest.raises(error, match=message):
            ols.set_num_threads(number)
    ols.set_num_threads(65536)
    assert used() == 65536
