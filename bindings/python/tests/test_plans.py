"""Repeated calls of `ols.Criterion` with the same layout: same results, same errors, and no array is kept (rules R8, R13, R14)."""

import gc
import threading
import weakref

import numpy as np
import pytest
from test_criterion import batch

import ols


class Shown:
    """Host memory that is only exported through DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, *, stream=None):
        return self.array.__dlpack__()


class Array(np.ndarray):
    """An array that supports weak references."""


def test_a_second_call_gives_what_the_first_gave():
    logits, target = batch(dtype=np.float64)
    extras = {"sample_weight": np.random.rand(32), "target2": np.roll(target, 1), "lam": 0.25, "grad_loss": 3.0}
    criterion = ols.Criterion(5)
    for dtype in (np.float32, np.float64, np.float16) * 2:
        z = logits.astype(dtype)
        for given in ({}, extras, {**extras, "lam": 0.5}, {**extras, "lam": np.full(32, 0.5)}, {"grad_loss": np.float32(2)}):
            expected = ols.Criterion(5)(z, target, **given)
            for arrays in ((z, target), (Shown(z), target), (z, Shown(target)), (np.asfortranarray(z), target), (z, target.astype(np.int32))):
                loss, gradient = criterion(*arrays, **given)
                assert (loss, loss.dtype) == (expected[0], expected[0].dtype)
                np.testing.assert_array_equal(gradient, expected[1])
                weights = {name: value for name, value in given.items() if name != "grad_loss"}
                assert criterion.loss(*arrays, **weights) == loss
                np.testing.assert_array_equal(criterion.backward(*arrays, **given), gradient)
                criterion.take_back(*arrays, **weights)
                criterion.take_back(*arrays, **weights)
    assert criterion.counts.sum() == 0


def test_a_loss_is_not_overwritten_by_the_next_call():
    criterion, (logits, target) = ols.Criterion(5), batch()
    first, _ = criterion(logits, target)
    kept = float(first)
    second, _ = criterion(2 * logits, target)
    assert float(first) == kept != float(second)
    each = ols.Criterion(5, reduction="none")
    first, _ = each(logits, target)
    kept = first.copy()
    each(2 * logits, target)
    np.testing.assert_array_equal(first, kept)


def test_r08_errors_are_those_of_a_first_call():
    criterion, (logits, target) = ols.Criterion(5), batch()
    wrong = target.copy()
    wrong[3] = 7
    for _ in range(2):
        criterion(logits, target)
        for arguments, kind, message in (
            ((logits, wrong), IndexError, r"target\[3\] = 7"), ((logits, target.astype(np.int16)), TypeError, "target has dtype int16"),
            ((logits, target[:5]), ValueError, "target"), ((logits.astype(">f4"), target), TypeError, "logits: dtype >f4"),
            ((logits, [0]), TypeError, "target must be .* not list"), ((np.zeros((32, 6), np.float32), target), ValueError, "logits"),
            ((np.ndarray((32, 5), np.float32, bytes(900), strides=(26, 4)), target), ValueError, "logits: strides of .26, 4. bytes"),
        ):  # fmt: skip
            with pytest.raises(kind, match=message):
                criterion(*arguments)
        with pytest.raises(TypeError, match="target_offset = 0.0 is not an integer"):
            criterion(logits, target, target_offset=0.0)
    criterion.take_back(logits, target)
    criterion.take_back(logits, target)
    assert criterion.counts.sum() == 0


def test_what_must_be_copied_is_copied_in_every_call():
    logits, target = np.random.randn(2, 5, 4, 3).astype(np.float32).transpose(0, 1, 3, 2), np.random.randint(5, size=(2, 3, 4))
    criterion = ols.Criterion(5)
    expected = ols.Criterion(5)(np.ascontiguousarray(logits), target)[0]
    for _ in range(2):
        with pytest.warns(ols.CopyWarning, match="logits is copied") as said:
            assert criterion(logits, target)[0] == expected
        assert [one.filename for one in said] == [__file__]  # the warning names the caller's line
        with pytest.raises(ValueError, match="logits: .*; make it contiguous"):
            criterion(Shown(logits), target)


def test_r13_no_array_is_kept_beyond_the_call():
    criterion = ols.Criterion(5)
    logits, target = batch()
    weight, out = np.ones(32), np.empty_like(logits)
    arrays = [array.view(Array) for array in (logits, target, weight, target, out)]
    references = [weakref.ref(array) for array in arrays]
    shown = Shown(logits.copy())
    references += [weakref.ref(shown)]
    criterion(arrays[0], arrays[1], sample_weight=arrays[2], target2=arrays[3], lam=0.5, out=arrays[4])
    criterion(shown, target)
    with pytest.raises(IndexError):
        criterion(arrays[0], (arrays[1] + 9), sample_weight=arrays[2])
    del arrays, shown
    gc.collect()
    assert [reference() for reference in references] == [None] * 6


def test_r14_threads_get_their_own_results():
    criterion = ols.Criterion(5)
    batches = [batch(16 + number // 2) for number in range(8)]  # of four layouts
    expected = [ols.Criterion(5)(*one, target2=one[1], lam=number / 8) for number, one in enumerate(batches)]
    wrong = []

    def work(start):
        for turn in range(100):
            n = (start + turn) % 8
            loss, gradient = criterion(*batches[n], target2=batches[n][1], lam=n / 8)
            if loss != expected[n][0] or not np.array_equal(gradient, expected[n][1]):
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert wrong == []


def test_ever_new_shapes_do_not_pile_up():
    criterion = ols.Criterion(2)
    for n in range(600):
        criterion(np.zeros((n, 2), np.float32), np.zeros(n, np.int64))
    assert len(criterion._calls._plans) <= 256
