"""The state of the module when it is copied, moved, cast, assigned or forked (rules R12, R13, R15)."""

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest
import torch
from conftest import PATIENCE, python
from test_torch_loss import batch

from ols import OnlineLabelSmoothing


def trained(epochs=2, **options):
    criterion = OnlineLabelSmoothing(**{"alpha": 0.4, "n_classes": 5, "momentum": 0.25, "empty_class": "uniform", **options})
    for _ in range(epochs):
        criterion(*batch(32, criterion.n_classes))
        criterion.next_epoch()
    criterion(*batch(32, criterion.n_classes))
    return criterion


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def go_on(criterion):
    """The results of two further epochs."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(2):
        logits, target = torch.randn(40, 5, generator=generator) * 3, torch.randint(5, (40,), generator=generator)
        found += [criterion(logits, target), criterion.sums.clone()]
        criterion.next_epoch()
        found.append(criterion.soft_labels.clone())
    return found


OPTIONS = [{}, {"weight": torch.rand(5)}, {"init": torch.rand(5, 5)}, {"freeze_above": 0.95, "min_count": 3, "ignore_index": 4}]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "deepcopy", "pickle"])
def test_r12_copies(copied):
    criterion = trained(weight=torch.rand(5)).eval()
    other = copied(criterion)
    assert same(criterion, other)
    assert not other.training
    assert other.epoch == 2
    before = criterion.sums.clone()
    go_on(other.train())
    other.alpha = 0.9
    assert torch.equal(criterion.sums, before)
    assert (criterion.epoch, criterion.alpha) == (2, 0.4)


@pytest.mark.parametrize(
    "cast",
    [lambda c: c.half(), lambda c: c.double(), lambda c: c.bfloat16(), lambda c: c.to(torch.float16), lambda c: c.type(torch.float64),
     lambda c: c.float(), lambda c: c.to("cpu", torch.float64), lambda c: c.cpu(), lambda c: c.share_memory(), lambda c: c.requires_grad_(False)],
)  # fmt: skip
def test_s_stays_f32_and_exact_under_casts(cast):
    criterion, other = trained(init=torch.rand(5, 5)), None
    reference = copy.deepcopy(criterion)
    other = cast(criterion)
    assert other is criterion
    assert criterion.soft_labels.dtype == torch.float32
    assert [t.dtype for t in (criterion.sums, criterion.counts, criterion.counters)] == [torch.int64] * 3
    assert same(criterion, reference)
    assert [name for name, _ in criterion.named_buffers()] == ["soft_labels"]
    assert all(torch.equal(a, b) for a, b in zip(go_on(criterion), go_on(reference)))


def test_a_move_keeps_the_epoch_and_the_report():
    criterion = trained(epochs=1)
    report = criterion.next_epoch()
    criterion.share_memory()
    assert criterion.soft_labels.is_shared()
    assert criterion.sums.is_shared()
    assert criterion.epoch == 2
    assert report.epoch == 2
    with torch.device("cpu"):
        assert OnlineLabelSmoothing(0.5, 5).to("meta").soft_labels.is_meta


def test_statistics_follow_soft_labels_that_others_have_moved():
    criterion = trained()
    criterion._buffers["soft_labels"] = criterion.soft_labels.to("meta")  # as FullyShardedDataParallel does
    with pytest.raises(RuntimeError, match="meta"):
        criterion.next_epoch()
    assert criterion.sums.is_meta
    assert criterion.counts.is_meta
    criterion = trained()
    before = copy.deepcopy(criterion)
    criterion.soft_labels.data = criterion.soft_labels.data.clone()
    assert all(torch.equal(a, b) for a, b in zip(go_on(criterion), go_on(before)))
    assert criterion.epoch == 4


@pytest.mark.parametrize("name", ["soft_labels", "sums", "counts", "counters"])
@pytest.mark.parametrize("exchange", [lambda t: t.share_memory_(), lambda t: setattr(t, "data", t.data.clone())], ids=["share", "data"])
def test_r13_memory_that_pytorch_exchanges_is_followed(name, exchange):
    """Sending a tensor to another process puts its memory into shared memory."""
    criterion = trained(n_classes=300)  # so large that freed memory is unmapped at once
    before = copy.deepcopy(criterion)
    report = criterion.next_epoch()
    before.next_epoch()
    exchange(getattr(criterion, name))
    logits, target = batch(32, 300)
    assert torch.equal(criterion(logits, target), before(logits, target))
    assert same(criterion, before)
    assert report.epoch == 3
    half = logits.half().requires_grad_()
    loss = criterion(half, target)
    criterion.soft_labels.data = criterion.soft_labels.data.clone()
    with pytest.raises(RuntimeError, match="a move"):
        (loss * 3).backward()


def test_a_failed_move_changes_nothing():
    criterion = trained()
    before = copy.deepcopy(criterion)

    def fail(tensor):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        criterion._apply(fail)
    assert same(criterion, before)
    go_on(criterion)


def test_r13_memory_given_lives_as_long_as_the_criterion():
    import gc

    criterion = trained()
    engine, soft_labels = criterion._engine, criterion.soft_labels.clone()
    del criterion
    gc.collect()
    torch.empty(1000)
    assert torch.equal(engine.soft_labels, soft_labels)
    assert engine.core.epoch == 2
    engine.forward(*batch(4, 5), (None,) * 4, 0, False)


def test_a_handler_of_a_signal_saves_within_any_call():
    code = """
        import copy, faulthandler, pickle, signal, torch, ols
        faulthandler.dump_traceback_later(300, exit=True)  # the handler hangs
        logits, target = torch.randn(500, 600, generator=torch.Generator().manual_seed(1)) * 9, torch.arange(500)
        logits[:, :500] += 30 * torch.eye(500)
        criterion, kept = ols.OnlineLabelSmoothing(0.5, 600, momentum=0.5), []

        def save(*_):
            state = copy.deepcopy(criterion.state_dict())
            kept.append((state, pickle.loads(pickle.dumps(criterion)), copy.deepcopy(criterion)))
            signal.setitimer(signal.ITIMER_REAL, 0.002)

        signal.signal(signal.SIGALRM, save)
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        while len(kept) < 60:
            criterion(logits, target)
            criterion.next_epoch()
        signal.setitimer(signal.ITIMER_REAL, 0)
        again, expected = ols.OnlineLabelSmoothing(0.5, 600, momentum=0.5), []
        for epoch in range(criterion.epoch + 1):
            expected.append(again.soft_labels.clone())
            again(logits, target)
            again.next_epoch()
        for state, *copies in kept:
            loaded = ols.OnlineLabelSmoothing(0.5, 600)
            loaded.load_state_dict(state)
            for one in (loaded, *copies):
                assert torch.equal(one.soft_labels, expected[one.epoch]), one.epoch
        print("held")
    """
    result = python("\n".join(line[8:] for line in code.splitlines()))
    assert result.stdout == "held\n", result.stderr


def test_a_call_within_a_cast_is_counted():
    criterion = trained()
    alone, engine, (logits, target) = copy.deepcopy(criterion), criterion._engine, batch(32, 5)
    lost = []

    def cast(tensor):
        def call():
            try:
                criterion(logits, target)
                criterion.state_dict()
            except BaseException as error:
                lost.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join(PATIENCE)
        alone(logits, target)
        return tensor.half() if tensor.is_floating_point() else tensor

    criterion._apply(cast)
    assert lost == []
    assert criterion._engine is engine  # calls on a second one would not wait for calls on the first
    assert same(criterion, alone)


def test_statistics_that_are_assigned_are_those_that_count():
    criterion, (logits, target) = trained(), batch(32, 5)
    sums, counts, counters = (torch.zeros_like(tensor) for tensor in (criterion.sums, criterion.counts, criterion.counters))
    before = criterion.sums.clone()
    given = criterion.sums
    criterion.sums, criterion.counts, criterion.counters = sums, counts, counters
    criterion(logits, target)
    alone = trained(epochs=0)
    alone.next_epoch()
    alone(logits, target)
    assert criterion.sums is sums
    assert counts.sum() > 0
    assert torch.equal(counts, alone.counts)
    assert torch.equal(given, before)
    assert criterion.next_epoch().samples_accumulated == alone.counts.sum()
    assert criterion.epoch == 3
    engine = criterion._engine
    criterion.counts += 1
    assert criterion._engine is engine
    short = torch.zeros(4, dtype=torch.int64), ValueError, r"torch.int64 and shape \(4,\)"
    for value, error, shown in (short, (torch.zeros(5), ValueError, "float32"), (0, TypeError, "int")):
        with pytest.raises(error, match=rf"counts must be a tensor of dtype torch.int64 and shape \(5,\), .*{shown}"):
            criterion.counts = value
    with pytest.raises(TypeError, match="soft_labels must be a tensor, not Parameter"):
        criterion.soft_labels = torch.nn.Parameter(torch.rand(5, 5))
    with pytest.raises(TypeError, match="soft_labels must be a tensor, not ndarray"):
        criterion.set_soft_labels(np.eye(5))
    assert criterion.counts is counts
    go_on(criterion)


def test_a_copy_made_in_inference_mode_goes_on():
    criterion = trained(weight=torch.rand(5))
    with torch.inference_mode():
        other = copy.deepcopy(criterion)
    assert same(criterion, other)
    other.load_state_dict(trained(weight=torch.rand(5)).state_dict())
    other.load_state_dict(criterion.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(go_on(criterion), go_on(other)))


def test_replicas_of_dataparallel_are_refused():
    criterion, (logits, target) = trained(), batch(32, 5)
    before, engine = copy.deepcopy(criterion), criterion._engine
    for soft_labels in (criterion.soft_labels, criterion.soft_labels.clone()):  # replicas on the first device and on another one
        replica = criterion._replicate_for_data_parallel()
        replica.soft_labels = soft_labels
        assert replica.epoch == 2
        step = lambda *given: replica.step(torch.softmax(given[0], 1), given[1])  # noqa: B023, E731
        for call in (replica, replica.loss_and_grad, replica.take_back, step):
            with pytest.raises(RuntimeError, match="DistributedDataParallel"):
                call(logits, target)
    assert criterion._engine is engine
    assert same(criterion, before)
    assert all(torch.equal(a, b) for a, b in zip(go_on(criterion), go_on(before)))


def _work(criterion, queue):
    queue.put([value.numpy().copy() for value in go_on(criterion)])


def test_r15_parent_and_child_of_a_fork_go_on_equally():
    criterion = trained()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_work, args=(criterion, queue))
    child.start()
    theirs = queue.get(timeout=PATIENCE)
    child.join(PATIENCE)
    assert child.exitcode == 0
    for one, other in zip(go_on(criterion), theirs):
        np.testing.assert_array_equal(one.numpy(), other)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")  # on a machine with one processor
def test_forked_data_loaders():
    logits, target = batch(64, 5)
    criterion, alone = OnlineLabelSmoothing(0.5, 5), OnlineLabelSmoothing(0.5, 5)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(logits, target), 16, num_workers=2, multiprocessing_context="fork")
    for _ in range(2):
        for z, y in loader:
            criterion(z, y)
            alone(z.clone(), y.clone())
        criterion.next_epoch()
        alone.next_epoch()
    assert same(criterion, alone)
