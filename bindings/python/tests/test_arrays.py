"""The arrays that `ols.Criterion` accepts, and their layouts: NumPy, DLPack, JAX (rules R16, R17, R20, R21)."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from conftest import PATIENCE, ROOT, python
from test_criterion import batch

import ols

LOGITS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


def expected(logits, target, soft_labels, alpha):
    z = logits.astype(np.float64)
    log_p = z - z.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    q = alpha * np.eye(z.shape[1])[target] + (1 - alpha) * soft_labels[target]
    return -(q * log_p).sum(1).mean(), (q.sum(1, keepdims=True) * np.exp(log_p) - q) / len(z)


@pytest.mark.parametrize("dtype", LOGITS)
def test_r17_loss_and_gradient(dtype):
    criterion = ols.Criterion(5, alpha=0.3)
    for _ in range(2):
        logits, target = batch(dtype=dtype)
        loss, gradient = criterion(logits, target)
        want, grad = expected(logits, target, criterion.soft_labels, 0.3)
        near = {2: 2e-3, 4: 1e-6, 8: 1e-7}[np.dtype(dtype).itemsize]  # S is f32
        assert gradient.dtype == dtype
        assert loss.dtype == (np.float64 if dtype == np.float64 else np.float32)
        np.testing.assert_allclose(loss, want, rtol=2e-6)
        np.testing.assert_allclose(gradient.astype(np.float64), grad, atol=near)
        np.testing.assert_array_equal(criterion.backward(logits, target), gradient)
        criterion.next_epoch()


@pytest.mark.parametrize("index", [np.int64, np.int32, np.uint8])
def test_r17_targets(index):
    logits, target = batch()
    assert ols.Criterion(5)(logits, target.astype(index))[0] == ols.Criterion(5)(logits, target)[0]
    assert ols.Criterion(5)(logits, (target + 1).astype(index), target_offset=1)[0] == ols.Criterion(5)(logits, target)[0]


def test_r17_others_are_refused():
    criterion = ols.Criterion(5)
    logits, target = batch()
    for name, value, message in (
        ("target", target.astype(np.int16), "target has dtype int16, but int64, int32 or uint8 is needed$"),
        ("target", np.exp(logits), "target has dtype float32, .*; to mix two classes, pass their labels as target and target2, and lam"),
        ("target2", target.astype(bool), "target2 has dtype bool"), ("sample_weight", [1.0] * 32, "sample_weight must be a NumPy array or .* not list"),
        ("lam", "0.5", "lam must be a number, .* not str"), ("grad_loss", "1", "grad_loss must be a number, .* not str"),
        ("target_offset", 1.0, "target_offset = 1.0 is not an integer"), ("stream", "0", "stream = '0' is not an integer"),
        ("logits", logits.astype(np.complex128), "logits: dtype complex128 is not supported"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=message):
            criterion(**{"logits": logits, "target": target, name: value})
    with pytest.raises(ValueError, match="target has the logits' shape"):
        criterion(logits, np.eye(5, dtype=np.int64)[target])
    with pytest.raises(ValueError, match="target_offset = 18446744073709551616 is outside"):
        criterion(logits, target, target_offset=2**64)
    with pytest.raises(ValueError, match="lam is an integer beyond"):
        criterion(logits, target, target2=target, lam=10**400)
    with pytest.raises(ValueError, match=r"device\[1\] = 4294967296 is outside"):
        ols.Criterion(5, device=("cuda", 2**32))
    for device in (None, 0, ("cuda",), ("cuda", 0, 0), (0, "cuda")):
        with pytest.raises(TypeError, match=r"device = .* is neither 'cpu' nor \('cuda', number\)"):
            ols.Criterion(5, device=device)
    with pytest.raises(TypeError, match="probabilities must be"):
        criterion.accumulate([[0.5] * 5], target)
    with pytest.raises(ValueError, match=r"probabilities\[0, 0\] = 2 is not a probability"):
        criterion.accumulate(np.full((32, 5), 2.0), target)
    for wrong in (
        (logits.astype(np.int32), target), (logits, target.astype(np.float32)), (logits, target.astype(np.int16)), (logits.astype(np.complex64), target),
        (logits.astype(">f4"), target), (logits.astype(object), target), (logits.tolist(), target), (logits, "x"), (logits.astype("U3"), target),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            criterion(*wrong)
    with pytest.raises(ValueError, match="device = 'tpu'"):
        ols.Criterion(5, device="tpu")
    with pytest.raises(RuntimeError):
        ols.Criterion(5, device=("cuda", 1000))
    assert criterion.counts.sum() == 0


def test_r16_strides_are_passed_and_copies_are_said():
    logits, target = batch()
    reference, gradient = ols.Criterion(5)(logits, target)
    padded = np.zeros((64, 9), np.float32)[::2, 2:7]
    padded[...] = logits
    for view in (np.asfortranarray(logits), padded, logits[::-1][::-1], np.lib.stride_tricks.as_strided(logits, logits.shape, logits.strides)):
        loss, found = ols.Criterion(5)(view, target)
        assert loss == reference
        np.testing.assert_array_equal(found, gradient)
    back, _ = ols.Criterion(5)(logits[::-1], target[::-1])
    np.testing.assert_allclose(back, reference, rtol=1e-6)
    image = np.random.randn(2, 5, 3, 4).astype(np.float32)
    labels = np.random.randint(5, size=(2, 3, 4))
    want, _ = ols.Criterion(5)(image, labels)
    with pytest.warns(ols.CopyWarning, match="logits is copied"):
        loss, gradient = ols.Criterion(5)(image.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2), labels)
    assert loss == want
    assert gradient.shape == image.shape


def test_r16_the_address_is_the_arrays():
    from ols._arrays import look, view

    logits = np.zeros((6, 8), np.float32)[1:, 2:7]
    layout, address, _ = look("logits", logits)
    assert address == logits.ctypes.data
    assert list(view("logits", layout, 2).strides[:2]) == [8, 1]

    class Shown:
        __dlpack__ = logits.__dlpack__
        __dlpack_device__ = logits.__dlpack_device__

    shown, address, _ = look("logits", Shown())
    assert address == logits.ctypes.data
    assert bytes(view("logits", shown, 2)) == bytes(view("logits", layout, 2))
    criterion, target = ols.Criterion(5), np.arange(5)
    criterion(logits, target)
    (plan,) = criterion._calls._plans.values()
    assert (plan.batch.logits.data, plan.batch.targets.data) == (logits.ctypes.data, target.ctypes.data)


def test_r20_in_place_and_given_memory():
    logits, target = batch()
    kept = logits.copy()
    loss, gradient = ols.Criterion(5)(logits, target)
    np.testing.assert_array_equal(logits, kept)
    out = np.empty((5, 32), np.float32).T
    same, returned = ols.Criterion(5)(logits, target, out=out)
    assert returned is out
    np.testing.assert_array_equal(out, gradient)
    assert ols.Criterion(5)(logits, target, out=logits)[0] == loss == same
    np.testing.assert_array_equal(logits, gradient)
    criterion = ols.Criterion(5)
    frozen = kept.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        criterion(kept, target, out=frozen)
    with pytest.raises(TypeError, match="list"):
        criterion(kept, target, out=[])
    with pytest.raises(TypeError, match="out.dtype = f64, but f32 is required"):
        criterion(kept, target, out=np.empty((32, 5)))
    with pytest.raises(ValueError, match=r"out has shape \(2, 5, 4, 3\), but \(2, 5, 3, 4\) is needed"):
        criterion(np.zeros((2, 5, 3, 4)), np.zeros((2, 3, 4), np.int64), out=np.empty((2, 5, 4, 3)))
    with pytest.raises(ValueError, match="out overlaps logits"):
        criterion(kept[:16], target[:16], out=kept[8:24])
    assert criterion.counts.sum() == 0
    assert criterion(frozen, target)[0] == loss  # but accepted as an input


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64, np.longdouble])
def test_numbers_may_be_numpys(kind):
    logits, target = batch()
    criterion = ols.Criterion(5)
    expected = criterion(logits, target, target2=target[::-1], lam=0.25, grad_loss=2.0)
    found = criterion(logits, target, target2=target[::-1], lam=kind(0.25), grad_loss=kind(2))
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(criterion(logits, target, grad_loss=np.int64(2))[1], criterion(logits, target, grad_loss=2)[1])


def test_what_pytorch_does_not_export_is_refused_by_name():
    torch = pytest.importorskip("torch")
    criterion, (logits, target) = ols.Criterion(5), batch()
    # PyTorch exports the memory of a negated view without the sign.
    negated = torch.complex(torch.from_numpy(logits), torch.from_numpy(logits)).conj().imag
    assert negated.is_neg()
    for wrong in (torch.from_numpy(logits).requires_grad_(), torch.from_numpy(logits).to_sparse(), negated):
        with pytest.raises(BufferError, match=r"logits.*(tensor\.detach|strided|logits\.resolve_neg)"):
            criterion(wrong, target)
    for dtype in (torch.complex64, torch.complex128):
        with pytest.raises(TypeError, match=f"logits.dtype = {str(dtype)[6:]} is not one of f32"):
            criterion(torch.zeros(32, 5, dtype=dtype), target)
    assert criterion.counts.sum() == 0
    assert criterion(negated.resolve_neg(), target)[0] == criterion(-logits, target)[0]


JAX = """
import jax
import jax.numpy as jnp, ml_dtypes, numpy as np, ols
random = np.random.default_rng(0)
logits, target = random.normal(size=(32, 5)).astype(np.float32), random.integers(5, size=32)
want, gradient = ols.Criterion(5)(logits, target)
loss, found = ols.Criterion(5)(jnp.asarray(logits), jnp.asarray(target, jnp.int32))
assert loss == want
np.testing.assert_array_equal(found, gradient)
try:
    jax.jit(lambda z: ols.Criterion(5)(z, target)[0])(jnp.asarray(logits))
except TypeError as error:
    assert str(error).startswith("logits: "), error
else:
    raise AssertionError("a traced array has no memory")
narrow = jnp.asarray(logits, jnp.bfloat16)
loss, found = ols.Criterion(5)(narrow, jnp.asarray(target, jnp.int32))
assert found.dtype == ml_dtypes.bfloat16
assert loss == ols.Criterion(5)(np.asarray(narrow), target)[0]
print("held")
"""


def test_jax_arrays():
    """In a separate process, because JAX's threads make forking unsafe, which other tests need."""
    run = python(JAX)
    assert run.stdout == "held\n", run.stderr


def test_the_jax_example_runs():
    run = subprocess.run([sys.executable, ROOT / "examples" / "python" / "jax_custom_vjp.py"], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    epochs = [line for line in run.stdout.splitlines() if line.startswith("epoch")]
    assert len(epochs) == 5
    assert float(epochs[-1].split("accuracy ")[1].split(" ")[0]) > 85


class OnADevice:
    """The parts of a CuPy array that the criterion uses."""

    def __init__(self, array):
        self.array, self.streams = array, []
        self.device = "somewhere"

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        return self.array.__dlpack__()

    def __array_namespace__(self):
        return np


def test_r21_a_stream_is_asked_for_on_a_device():
    """Only the protocol, as there is no device to compute on."""
    from ols._arrays import look

    source = OnADevice(np.zeros((2, 5), np.float32))
    look("logits", source)
    look("logits", source, 77)
    assert source.streams == [1, 77]
