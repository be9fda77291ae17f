"""`ols.Criterion`: updates, views of the state, epochs, files, threads, settings (rules R14, R15, R18, R19, R24 to R26)."""

import ctypes
import multiprocessing
import subprocess
import threading

import numpy as np
import pytest
from conftest import PATIENCE, ROOT, compile_c

import ols


def batch(n=32, k=5, dtype=np.float32):
    logits = np.random.randn(n, k) * 2
    target = np.random.randint(k, size=n)
    logits[np.arange(n), target] += 3 * (np.random.rand(n) < 0.7)
    return logits.astype(dtype), target


def test_weights_mixtures_and_updates():
    criterion = ols.Criterion(5, reduction="none", weight=np.arange(1, 6))
    logits, target = batch()
    v = np.random.rand(32).astype(np.float32)
    each, _ = criterion(logits, target, sample_weight=v, target2=np.roll(target, 1), lam=0.25, grad_loss=np.ones(32))
    assert each.shape == (32,)
    assert criterion.loss(logits, target, sample_weight=v, target2=np.roll(target, 1), lam=np.float32(0.25), update=False).tolist() == each.tolist()
    counted = criterion.counts.sum()
    criterion.eval()(logits, target)
    assert criterion.counts.sum() == counted > 0
    criterion.take_back(logits, target, sample_weight=v, target2=np.roll(target, 1), lam=0.25)
    assert criterion.sums.any() == criterion.counts.any() == False  # noqa: E712
    with pytest.raises(RuntimeError):
        criterion.take_back(logits, target)


def test_r18_the_users_number_is_in_the_message():
    with pytest.raises(IndexError, match=r"target\[1\] = 9 is outside \[1, 6\)"):
        ols.Criterion(5)(np.zeros((2, 5), np.float32), np.array([1, 9]), target_offset=1)


def test_r19_nothing():
    loss, gradient = ols.Criterion(5)(np.zeros((0, 5), np.float32), np.zeros(0, np.int64))
    assert loss == 0
    assert gradient.shape == (0, 5)
    assert ols.Criterion(5, reduction="none")(np.zeros((0, 5), np.float32), np.zeros(0, np.int64))[0].shape == (0,)


def test_r26_views_show_the_state_and_several_criteria_add_up():
    parts, whole = [ols.Criterion(5) for _ in range(3)], ols.Criterion(5)
    labels = whole.soft_labels
    with pytest.raises(ValueError, match="read-only"):
        labels[0, 0] = 1
    for part in parts:
        for _ in range(2):
            logits, target = batch(dtype=np.float64)
            part(logits, target)
            whole(logits, target)
    for name in ("sums", "counts", "counters"):
        total = sum(getattr(part, name) for part in parts)
        for part in parts:
            getattr(part, name)[...] = total
    whole.next_epoch()
    for part in parts:
        part.next_epoch()
        np.testing.assert_array_equal(part.soft_labels, whole.soft_labels)
    assert labels.base is not None
    np.testing.assert_array_equal(labels, whole.soft_labels)
    whole.set_soft_labels(np.eye(5))
    np.testing.assert_array_equal(labels, np.eye(5))
    del whole
    np.testing.assert_array_equal(labels, np.eye(5))


C_READER = """
#include <ols.h>
#include <stdio.h>
int main(int argc, char **argv) {
    ols_options_t options;
    ols_criterion_t *criterion;
    ols_tensor_t soft_labels;
    ols_statistics_t statistics = {.struct_size = sizeof statistics};
    int64_t epoch;
    (void)argc;
    ols_options_init(&options, sizeof options);
    options.num_classes = 5;
    if (ols_create(&options, &criterion) || ols_load(criterion, argv[1], NULL)) return fprintf(stderr, "%s", ols_last_error()), 1;
    ols_soft_labels(criterion, &soft_labels);
    ols_statistics(criterion, &statistics);
    ols_epoch(criterion, &epoch);
    printf("%lld", (long long)epoch);
    for (int i = 0; i < 25; i++) printf(" %a %lld", ((float *)soft_labels.data)[i], (long long)((int64_t *)statistics.sums.data)[i]);
    for (int i = 0; i < 5; i++) printf(" %lld", (long long)((int64_t *)statistics.counts.data)[i]);
    ols_next_epoch(criterion, NULL);
    return ols_save(criterion, argv[2], NULL);
}
"""


def test_r24_the_end_of_an_epoch_is_the_users_call():
    criterion = ols.Criterion(5)
    first = criterion.soft_labels.copy()
    for _ in range(20):
        criterion(*batch(n=64))
    assert criterion.epoch == 0
    assert (criterion.soft_labels == first).all()
    assert criterion.counts.sum() > 0
    # The documentation says where the call belongs, and that ranks are added up before it.
    readme = (ROOT / "bindings/python/README.md").read_text()
    assert "criterion.next_epoch()  # once an epoch" in readme
    assert "collective call" in readme
    criterion.next_epoch()
    assert criterion.epoch == 1
    assert (criterion.soft_labels != first).any()


def test_r25_a_file_goes_to_c_and_back(tmp_path):
    from ols import _library

    criterion = ols.Criterion(5, momentum=0.25, weight=np.arange(1, 6))
    criterion(*batch())
    criterion.next_epoch()
    criterion(*batch())
    criterion.save(tmp_path / "ours")
    program = compile_c(C_READER, tmp_path / "reader", _library.path, f"-Wl,-rpath,{_library.path.rsplit('/', 1)[0]}")
    soname = subprocess.run([ROOT / "packaging" / "soname", _library.path], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / soname).symlink_to(_library.path)
    run = subprocess.run(
        [program, tmp_path / "ours", tmp_path / "theirs"], capture_output=True, text=True, check=False, env={"LD_LIBRARY_PATH": str(tmp_path)}
    )
    assert run.returncode == 0, run.stderr
    words = run.stdout.split()
    labels = [float.fromhex(word) for word in words[1:51:2]]
    assert (int(words[0]), labels) == (1, criterion.soft_labels.reshape(-1).astype(float).tolist())
    assert [int(word) for word in words[2:52:2]] == criterion.sums.reshape(-1).tolist()
    assert [int(word) for word in words[51:]] == criterion.counts.tolist()
    other = ols.Criterion(5)
    other.load(tmp_path / "theirs")
    criterion.next_epoch()
    assert other.to_bytes() == criterion.to_bytes()
    with pytest.raises(OSError, match="nowhere"):
        criterion.save(tmp_path / "nowhere" / "x")
    with pytest.raises(ValueError, match="num_classes|classes"):
        ols.Criterion(6).load(tmp_path / "theirs")


def test_r14_threads():
    shared, alone = ols.Criterion(5), ols.Criterion(5)
    batches = [batch(20 + number) for number in range(6)]
    workers = [threading.Thread(target=lambda n=number: [shared(*batches[n]) for _ in range(50)]) for number in range(6)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    for one in batches:
        for _ in range(50):
            alone(*one)
    np.testing.assert_array_equal(shared.sums, alone.sums)


def test_r14_the_interpreter_runs_on_during_a_call():
    assert isinstance(ols._library.lib, ctypes.CDLL)  # which releases the lock; PyDLL would not
    assert not isinstance(ols._library.lib, ctypes.PyDLL)


def _child(criterion, logits, target, queue):
    criterion(logits, target)
    criterion.next_epoch()
    queue.put(criterion.soft_labels.copy())


def test_r15_fork():
    criterion = ols.Criterion(5)
    criterion(*batch())
    logits, target = batch()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(criterion, logits, target, queue))
    child.start()
    theirs = queue.get(timeout=PATIENCE)
    child.join(PATIENCE)
    criterion(logits, target)
    criterion.next_epoch()
    np.testing.assert_array_equal(criterion.soft_labels, theirs)


def test_settings():
    criterion = ols.Criterion(5, min_count=3, freeze_above=0.9, smoothing=0.5)
    criterion.alpha = 0.75
    criterion.epoch = 7
    assert (criterion.alpha, criterion.epoch, criterion.n_classes) == (0.75, 7, 5)
    with pytest.raises(ValueError, match="alpha = -1"):
        criterion.alpha = -1
    with pytest.raises(ValueError, match="epoch"):
        criterion.epoch = -1
    with pytest.raises(ValueError, match="epoch = 18446744073709551619 is outside"):
        criterion.epoch = 2**64 + 3
    with pytest.raises(TypeError, match="epoch = 1.5 is not an integer"):
        criterion.epoch = 1.5
    with pytest.raises(TypeError, match="alpha = '0.5' is not a number"):
        criterion.alpha = "0.5"
    with pytest.raises(ValueError, match="alpha is an integer beyond"):
        criterion.alpha = 10**400
    assert (criterion.alpha, criterion.epoch) == (0.75, 7)
    assert "min_count=1234567, ignore_index=-9223372036854775808," in repr(ols.Criterion(5, min_count=1234567, ignore_index=-(2**63)))
    with pytest.raises(TypeError, match="data must be bytes, not int"):
        criterion.load_bytes(10**9)
    assert repr(criterion) == "Criterion(alpha=0.75, n_classes=5, smoothing=0.5, empty_class='keep', freeze_above=0.9, min_count=3, reduction='mean')"


def test_the_number_of_threads_changes_nothing(threads):
    criterion, other = ols.Criterion(5), ols.Criterion(5)
    for number in (1, 2, 0, None):
        ols.set_num_threads(number)
        logits, target = batch()
        report = criterion.next_epoch()
        criterion(logits, target)
        assert criterion._core.handle.options().n_threads == (number or 0)
        ols.set_num_threads(1)
        other.next_epoch()
        other(logits, target)
        assert report.epoch == criterion.epoch == other.epoch
    assert criterion.to_bytes() == other.to_bytes()
