"""Loading, versions, errors (rules R1, R2, R5 to R7, R10 to R12)."""

import errno
import gc
import pickle
import threading

import numpy as np
import pytest
from conftest import compile_c, python

import ols
from ols import _abi, _errors, _library

STUB = """
#include <stdint.h>
const char *ols_version(void) { return "%s"; }
uint32_t ols_abi_version(void) { return %d; }
"""


def stub(tmp_path, version, abi):
    return str(compile_c(STUB % (version, abi), tmp_path / "libother.so", "-shared", "-fPIC"))


def test_r01_another_abi_version_names_both_numbers_and_the_path(tmp_path):
    path = stub(tmp_path, "7.1.0", 7)
    with pytest.raises(ols.LibraryError, match=r"libother\.so \(libols 7\.1\.0\) has ABI version 7, but this package was written for 0") as raised:
        _library.load(path)
    assert isinstance(raised.value, RuntimeError)
    assert isinstance(raised.value, ImportError)


def test_r01_below_1_the_minor_version_counts(tmp_path):
    with pytest.raises(RuntimeError, match=r"0\.2\.0.*written for 0\.1\.x"):
        _library.load(stub(tmp_path, "0.2.0", 0))


def test_r01_no_library(tmp_path):
    with pytest.raises(RuntimeError, match=r"cannot be loaded from /nowhere/libols\.so.*OLS_LIBRARY"):
        _library.load("/nowhere/libols.so")
    empty = compile_c("int nothing(void) { return 0; }", tmp_path / "libempty.so", "-shared", "-fPIC")
    with pytest.raises(RuntimeError, match="is not libols"):
        _library.load(str(empty))
    run = python("import ols", OLS_LIBRARY="/nowhere/libols.so")
    assert run.returncode == 1
    assert "LibraryError: libols cannot be loaded from /nowhere/libols.so" in run.stderr


def test_r02_loading_starts_no_thread_and_needs_numpy_alone():
    run = python(
        "import sys, threading, os; import ols;"
        "print(len(os.listdir('/proc/self/task')), 'torch' in sys.modules, ols.__version__)"
        , OPENBLAS_NUM_THREADS="1",
    )  # fmt: skip
    assert run.stdout.split() == ["1", "False", ols.library_version()], run.stderr
    assert run.stderr == ""


def test_a_star_imports_the_modules_where_pytorch_is():
    code = "from ols import *; print(Criterion.__name__, 'OnlineLabelSmoothing' in globals(), 'LabelSmoothingLoss' in globals())"
    assert python(code).stdout.split() == ["Criterion", "True", "True"]
    without = "import sys; sys.modules['torch'] = None; "
    assert python(without + code).stdout.split() == ["Criterion", "False", "False"]
    run = python(without + "from ols import LabelSmoothingLoss")
    assert "ModuleNotFoundError: ols.LabelSmoothingLoss needs PyTorch, which is not installed; the extra 'libols[torch]'" in run.stderr


def test_r05_r07_kinds_keep_their_number():
    kinds = {
        ols.InvalidArgumentError: ValueError, ols.InvalidDtypeError: TypeError, ols.InvalidShapeError: ValueError, ols.InvalidDeviceError: RuntimeError,
        ols.TargetOutOfRangeError: IndexError, ols.InvalidStateError: RuntimeError, ols.UnsupportedError: RuntimeError,
        ols.OutOfMemoryError: MemoryError, ols.FileError: OSError, ols.InvalidFileError: ValueError, ols.CudaError: RuntimeError,
        ols.PanicError: RuntimeError,
    }  # fmt: skip
    assert set(kinds) == set(_errors.OF_STATUS.values())
    for status, kind in _errors.OF_STATUS.items():
        error = _errors.error_of(status, "NAME", "text")
        assert isinstance(error, kinds[kind])
        assert (error.status, str(error)) == (status, "text")
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.status, str(copy)) == (kind, status, "text")


def test_messages_name_the_arguments_as_python_does_but_files_as_they_are():
    text = "ols_forward: targets2.shape = (3) differs from the targets', sample_weights, num_classes, class_weights, initial_soft_labels"
    expected = "ols_forward: target2.shape = (3) differs from the target', sample_weight, n_classes, weight, init"
    assert str(_errors.error_of(1, "NAME", text)) == expected
    assert str(_errors.error_of(1, "NAME", "ols_accumulate: logits.shape differs")) == "ols_accumulate: probabilities.shape differs"
    for code, bits, name in ((5, 64, "complex64"), (5, 128, "complex128"), (0, 16, "int16"), (1, 64, "uint64"), (6, 8, "bool")):
        text = f"ols_forward: targets.dtype_code = {code} with dtype_bits = {bits} is not one of f32"
        assert str(_errors.error_of(1, "NAME", text)) == f"ols_forward: target.dtype = {name} is not one of f32"
    text = "ols_forward: logits.dtype_code = 10 with dtype_bits = 8 is not one of f32"  # one of many formats with 8 bits
    assert str(_errors.error_of(1, "NAME", text)) == text
    for text in ("ols_load: /tmp/targets/class_weights: it has no num_classes", "ols_save: targets", "ols_forward: running_targets_out_of_range"):
        assert str(_errors.error_of(1, "NAME", text)) == text


def test_r07_a_missing_file_is_a_file_not_found_error(tmp_path):
    criterion, nowhere = ols.Criterion(3), tmp_path / "nowhere"
    for call in (lambda: criterion.load(nowhere), lambda: criterion.save(nowhere / "x")):
        with pytest.raises(FileNotFoundError, match="nowhere.*No such file") as raised:
            call()
        for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
            assert isinstance(error, ols.FileError)
            assert (type(error), error.errno, error.status) == (ols.MissingFileError, errno.ENOENT, _abi.Status.IO)
            assert str(error) == str(raised.value)
    with pytest.raises(ols.FileError, match="cannot be read") as raised:
        criterion.load(tmp_path)
    assert (type(raised.value), raised.value.errno) == (ols.FileError, errno.EISDIR)
    with pytest.raises(ols.FileError, match="is not a regular file") as raised:
        criterion.save(tmp_path)  # a rule of the library, not an error of the system
    assert raised.value.errno is None
    for call in (criterion.save, criterion.load):
        with pytest.raises(ValueError, match="contains a NUL"):
            call(f"{nowhere}\0x")
    # Only the end of a message comes from the operating system.
    text = "ols_load: /tmp/no (os error 2): cannot be read: Permission denied (os error 13)"
    assert (type(_errors.error_of(9, "IO", text)), _errors.error_of(9, "IO", text).errno) == (ols.FileError, errno.EACCES)
    assert _errors.error_of(9, "IO", "ols_save: (os error 2): it is there").errno is None


def test_r07_an_unknown_status_is_an_error_that_keeps_it():
    error = _errors.error_of(99, "UNKNOWN", "")
    assert isinstance(error, ols.Error)
    assert (error.status, str(error)) == (99, "libols: status 99 (UNKNOWN)")


def test_r06_messages_are_those_of_their_calls():
    messages = []
    for alpha in (2.0, -1.0):
        with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is what is looked at
            ols.Criterion(3, alpha=alpha)
        messages.append(raised.value)
    ols.Criterion(3)
    assert [str(error) for error in messages] == ["ols_create: alpha = 2 is outside [0, 1]", "ols_create: alpha = -1 is outside [0, 1]"]


def test_r06_messages_of_several_threads_stay_apart():
    wrong = []

    def fail(number):
        criterion, logits = ols.Criterion(3), np.zeros((2, 3), np.float32)
        for turn in range(200):
            value = 1000 * (number + 1) + turn
            try:
                criterion(logits, np.array([0, value]))
                wrong.append("no error")
            except IndexError as error:
                if f"target[1] = {value} " not in str(error):
                    wrong.append(str(error))

    workers = [threading.Thread(target=fail, args=(number,)) for number in range(4)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert wrong == []


@pytest.fixture
def destroyed(monkeypatch):
    """Counts the destroyed criteria by address."""
    found, real = [], _library.lib.ols_destroy

    class Counting:
        ols_destroy = staticmethod(lambda address: (found.append(address), real(address)))

        def __getattr__(self, name):
            return getattr(_library_lib, name)

    _library_lib = _library.lib
    monkeypatch.setattr(_library, "lib", Counting())
    return found


def test_r10_destroyed_once_by_close_or_by_the_collector(destroyed):
    criterion = ols.Criterion(3)
    criterion.close()
    assert len(destroyed) == 1
    del criterion
    gc.collect()
    assert len(destroyed) == 1
    criterion = ols.Criterion(3)
    del criterion
    gc.collect()
    assert len(destroyed) == 2
    with ols.Criterion(3):
        pass
    assert len(destroyed) == 3


def test_r10_a_failed_creation_has_nothing_to_destroy(destroyed):
    with pytest.raises(ValueError, match="n_classes = 1"):
        ols.Criterion(1)
    gc.collect()
    assert destroyed == []


def test_r10_criteria_that_are_left_when_the_interpreter_exits_are_destroyed_silently():
    code = """
import builtins, ols, sys
for place in (builtins, sys, ols._library, sys.modules["__main__"]):
    place.left = ols.Criterion(3)
    place.left.itself = place.left
    place.report = ols.Criterion(3).next_epoch()
for classes, alpha in ((1, 0.5), (3, 2)):
    try:
        ols.Criterion(classes, alpha=alpha)
    except ValueError as error:
        builtins.failed = error
sys.modules["left"] = ols.Criterion(3)
"""
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_r11_double_close_is_harmless_and_use_after_close_says_so():
    criterion = ols.Criterion(3)
    logits, target = np.zeros((1, 3), np.float32), np.array([0])
    labels = criterion.soft_labels
    criterion.close()
    criterion.close()
    uses = [
        lambda: criterion(logits, target), lambda: criterion.next_epoch(), lambda: criterion.soft_labels, lambda: criterion.save("/nowhere"),
        lambda: criterion.train(), lambda: criterion.epoch, lambda: criterion.running(), lambda: criterion.__enter__(),
        lambda: setattr(criterion, "alpha", 0.1), lambda: criterion.take_back(logits, target), lambda: pickle.dumps(criterion),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(RuntimeError, match="closed"):
            use()
    assert "closed" in repr(criterion)
    assert labels.sum() == pytest.approx(3)  # R13: the memory of a view outlives the criterion


def test_r12_copies_are_criteria_of_their_own():
    import copy

    criterion = ols.Criterion(3, momentum=0.25, reduction="sum", weight=[1, 2, 3], init=np.eye(3)).eval()
    logits, target = np.eye(3, dtype=np.float32), np.arange(3)
    criterion.train()(logits, target)
    for other in (copy.copy(criterion), copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert other.to_bytes() == criterion.to_bytes()
        assert repr(other) == repr(criterion)
        assert other._core.handle.address != criterion._core.handle.address
        before = criterion.counts.copy()
        other(logits, target)
        np.testing.assert_array_equal(criterion.counts, before)
        np.testing.assert_array_equal(other.counts, 2 * before)


@pytest.mark.parametrize("kind", [ols.Criterion, ols.OnlineLabelSmoothing])
def test_names_are_those_of_other_languages_too(kind):
    assert kind.retract is kind.take_back
    assert callable(kind.load_bytes)
    assert not hasattr(kind, "from_bytes")  # Python expects a constructor under this name


def test_r22_defaults_are_the_librarys():
    import inspect
    import math

    options = _library.options_init()
    expected = {
        "alpha": options.alpha, "smoothing": options.smoothing, "init": _abi.Initial(options.initial).name.lower(),
        "empty_class": _abi.EmptyClass(options.empty_class).name.lower(), "min_count": options.min_count, "momentum": options.momentum,
        "freeze_above": None if math.isinf(options.freeze_above) else options.freeze_above, "ignore_index": options.ignore_index,
        "reduction": _abi.Reduction(options.reduction).name.lower(), "weight": None,
    }  # fmt: skip
    for kind in (ols.Criterion, ols.OnlineLabelSmoothing):
        found = {name: p.default for name, p in inspect.signature(kind).parameters.items() if p.default is not p.empty and name != "device"}
        assert found == {name: value for name, value in expected.items() if kind is ols.Criterion or name != "alpha"}
