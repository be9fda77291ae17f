"""`ols.Criterion` on device memory of the stand-in CUDA driver: `device_memory.py SCENARIO`. See test_device_memory.py."""

import sys
import tempfile
from pathlib import Path

import device_arrays as xp  # before ols
import ml_dtypes
import numpy as np
from device_arrays import Array, counted
from refused import raises

import ols

K, N, DEVICE = 6, 16, 1
CUDA = ("cuda", DEVICE)
WITHIN = {"float64": 1e-13, "float32": 4e-7, "float16": 1e-3, "bfloat16": 1e-2}


def batch(dtype=np.float32, label=np.int64, shape=()):
    target = np.random.randint(K, size=(N, *shape)).astype(label)
    logits = np.random.randn(N, K, *shape) + 2 * np.moveaxis(np.eye(K)[target], -1, 1)
    return logits.astype(dtype), target


def close(there, host, dtype="float32"):
    there = there.numpy()
    assert (there.dtype, there.shape) == (host.dtype, host.shape)
    np.testing.assert_allclose(there.astype(np.float64), host.astype(np.float64), rtol=WITHIN[dtype], atol=WITHIN[dtype])


def state(criterion, stream=None):
    """A criterion on the host with the same state."""
    loaded = ols.Criterion(K)
    loaded.load_bytes(criterion.to_bytes(stream))
    return loaded


def agree(there, host, stream=None):
    found = state(there, stream)
    assert found.epoch == host.epoch
    np.testing.assert_allclose(found.soft_labels, host.soft_labels, rtol=2**-22, atol=2**-29)
    np.testing.assert_array_equal(found.counts, host.counts)
    np.testing.assert_allclose(found.sums, host.sums, rtol=2**-22, atol=2 * N)


def passes():
    """R17, R21: loss and gradient equal the host's, work runs on the given stream, and only reading a report waits."""
    stream = xp.new_stream(DEVICE)
    for dtype, label in ((np.float32, np.int64), (np.float64, np.int32), (np.float16, np.uint8), (ml_dtypes.bfloat16, np.int64)):
        name = np.dtype(dtype).name
        host, there = ols.Criterion(K, alpha=0.3, momentum=0.25), ols.Criterion(K, alpha=0.3, momentum=0.25, device=CUDA)
        logits, target = batch(dtype, label)
        z, y = Array(logits, DEVICE), Array(target, DEVICE)
        for epoch in (1, 2):
            waits, copies = counted("synchronisations"), counted("copies")
            loss, gradient = there(z, y, stream=stream)
            again = there.backward(z, y, stream=stream)
            alone = there.loss(z, y, update=False, stream=stream)
            assert counted("queued") > 0
            report = there.next_epoch(stream)
            assert (counted("synchronisations"), counted("copies")) == (waits, copies)
            assert counted("last_stream") == stream
            assert (gradient.device, loss.device, loss.shape) == (DEVICE, DEVICE, ())
            want, slope = host(logits, target)
            expected = host.next_epoch()
            assert report.epoch == expected.epoch == epoch
            assert counted("synchronisations") > waits
            assert report == expected
            assert report.samples_accumulated > K
            close(loss, np.asarray(want), "float64" if name == "float64" else "float32")
            close(gradient, slope, name)
            np.testing.assert_array_equal(again.numpy(), gradient.numpy())
            assert alone.numpy() == loss.numpy()
            agree(there, host, stream)
            del loss, gradient, again, alone  # freeing memory while calls are counted would wait
        assert set(z.asked) == set(y.asked) == {stream}
    ols.Criterion(K, device=CUDA)(z, y)
    assert z.asked[-1] == 1  # DLPack's number of the default stream


def layouts():
    """R16: memory is read in place and never copied."""
    host, there = ols.Criterion(K), ols.Criterion(K, device=CUDA)
    logits, target = batch(shape=(2, 3))
    channels_last = np.moveaxis(np.moveaxis(logits, 1, -1).copy(), -1, 1)
    rows = np.zeros((N, 11), np.float32)[:, 3 : 3 + K]
    rows[...], labels = batch()
    for values, of in ((logits, target), (channels_last, target), (rows, labels), (np.asfortranarray(batch()[0]), labels), (rows[::2], labels[::2])):
        z, y = Array(values, DEVICE), Array(of, DEVICE)
        loss, gradient = there(z, y)
        want, slope = host(values, of)
        close(loss, np.asarray(want))
        close(gradient, slope)
        before = counted("allocations")
        kept = there(z, y, out=z if values.base is None else gradient)
        assert counted("allocations") == before + 1  # the loss
        assert kept[1] is (z if values.base is None else gradient)
        host(values, of)
        close(kept[1], slope)
    turned = Array(np.swapaxes(logits, 2, 3), DEVICE)
    raises(ValueError, "logits: shape (16, 6, 3, 2)", there, turned, Array(target.swapaxes(1, 2).copy(), DEVICE))
    agree(there, host)
    empty = there(Array(np.zeros((0, K), np.float32), DEVICE), Array(np.zeros(0, np.int64), DEVICE))
    assert (empty[0].numpy(), empty[1].shape) == (0, (0, K))


def extras():
    """Weights, mixtures, upstream gradients, one loss per sample; adding and taking back, from logits and from probabilities."""
    options = {"weight": np.arange(1, K + 1), "reduction": "none", "ignore_index": 0}
    host, there = ols.Criterion(K, **options), ols.Criterion(K, device=CUDA, **options)
    logits, target = batch()
    values = {"sample_weight": np.random.rand(N), "target2": np.roll(target, 1), "lam": np.random.rand(N).astype(np.float32)}
    given = {name: Array(value, DEVICE) for name, value in values.items()}
    z, y, incoming = Array(logits, DEVICE), Array(target, DEVICE), np.random.rand(N).astype(np.float32)
    loss, gradient = there(z, y, grad_loss=Array(incoming, DEVICE), **given)
    want, slope = host(logits, target, grad_loss=incoming, **values)
    close(loss, want)
    close(gradient, slope)
    agree(there, host)
    mixed = {**given, "lam": 0.25}  # a number, which the library of the logits copies to the device
    close(there.loss(z, y, **mixed), host.loss(logits, target, **{**values, "lam": 0.25}))
    there.take_back(z, y, **given)
    host.take_back(logits, target, **values)
    agree(there, host)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for one, at, of in ((there, Array(p, DEVICE), y), (host, p, target)):
        one.accumulate(at, of)
        one.accumulate(at, of)
        one.accumulate(at, of, take_back=True)
    agree(there, host)
    scaled = ols.Criterion(K, device=CUDA)(z, y, grad_loss=1024.0)[1].numpy()
    np.testing.assert_allclose(scaled, ols.Criterion(K)(logits, target, grad_loss=1024.0)[1], rtol=1e-6, atol=1e-4)


def states():
    """R25, R26: soft labels can be set from device memory, states move between device and host, and there are no NumPy views."""
    host, there = ols.Criterion(K), ols.Criterion(K, device=CUDA)
    matrix = np.random.rand(K, K).astype(np.float32)
    host.set_soft_labels(matrix)
    there.set_soft_labels(Array(matrix, DEVICE))
    logits, target = batch()
    z, y = Array(logits, DEVICE), Array(target, DEVICE)
    there(z, y)
    host(logits, target)
    np.testing.assert_array_equal(state(there).soft_labels, matrix)
    agree(there, host)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        there.save(path)
        assert path.read_bytes() == there.to_bytes()
        other = ols.Criterion(K, alpha=0.9, device=("cuda", 0))
        other.load(path)
    assert (other.alpha, other.epoch, other.to_bytes()) == (0.5, 0, there.to_bytes())
    there.next_epoch()
    other.next_epoch()
    assert other.to_bytes() == there.to_bytes()
    for name in ("soft_labels", "sums", "counts", "counters"):
        raises(RuntimeError, f"{name} is on a device", getattr, there, name)
    raises(TypeError, "use save and load", there.__getstate__)
    before = there.to_bytes()
    there.eval()
    there(z, y)
    assert there.to_bytes() == before
    there.set_soft_labels(Array(np.full((K, K), -1, np.float32), DEVICE))  # only known when it is read
    raises(ValueError, "soft_labels", there.running)
    live = counted("live_bytes")
    there.close()
    assert counted("live_bytes") < live


def devices():
    """R9: memory on another device, or on none, is an error of the library; nothing changes."""
    host, there = ols.Criterion(K), ols.Criterion(K, device=CUDA)
    logits, target = batch()
    z, y = Array(logits, DEVICE), Array(target, DEVICE)
    clean = there.to_bytes()
    raises(RuntimeError, "device_id = 7 is outside [0, 2)", ols.Criterion, K, device=("cuda", 7))
    raises(RuntimeError, "logits.device = cpu", there, logits, target)
    raises(RuntimeError, "target.device = cpu", there, z, target)
    raises(RuntimeError, "logits.device = cuda:1", host.loss, z, y)
    raises(RuntimeError, "logits.device = cuda:0", there, Array(logits, 0), Array(target, 0))
    raises(RuntimeError, "out.device = cpu", there, z, y, out=np.empty_like(logits))
    raises(RuntimeError, "lam.device = cpu", there, z, y, target2=y, lam=np.random.rand(N))
    raises(RuntimeError, "soft_labels.device = cpu", there.set_soft_labels, np.ones((K, K), np.float32))

    class Elsewhere(Array):
        """Claims to be on DEVICE, but its memory is at `address`."""

        def __dlpack__(self, stream=None):
            capsule = super().__dlpack__(stream)
            self.exported[-1][0].data, self.exported[-1][0].byte_offset = self.address, 0
            return capsule

    liar = Elsewhere(logits, DEVICE)
    liar.address = logits.ctypes.data
    raises(RuntimeError, "is host memory, but logits.device = cuda:1", there, liar, y)
    other = Array(logits, 0)
    liar.address = other.memory
    raises(RuntimeError, "is memory of cuda:0, but the criterion is on cuda:1", there, liar, y)
    raises(TypeError, "target has dtype float32", there, z, Array(target.astype(np.float32), DEVICE))
    raises(ValueError, "target.shape", there, z, Array(target[:5].copy(), DEVICE))
    assert there.to_bytes() == clean
    there(z, y)
    host(logits, target)
    agree(there, host)


def values():
    """Invalid values are reported by the next call that waits, and do not affect later calls."""
    host, there = ols.Criterion(K, reduction="sum"), ols.Criterion(K, reduction="sum", device=CUDA)
    logits, target = batch()
    wrong = target.copy()
    wrong[3], wrong[5] = K, -7
    z, y = Array(logits, DEVICE), Array(target, DEVICE)
    loss, gradient = there(z, Array(wrong, DEVICE))
    assert there.running()["targets_out_of_range"] == 2
    want, slope = host(logits, np.where(wrong == target, target, host.ignore_index))
    close(loss, np.asarray(want), "float32")
    close(gradient, slope)
    assert there.next_epoch().targets_out_of_range == 2
    host.next_epoch()
    assert there.running()["targets_out_of_range"] == 0
    close(there(z, y)[0], np.asarray(host(logits, target)[0]))
    agree(there, host)
    # Taking back more than was added has no effect, and reports fail until the next epoch has ended.
    there.take_back(z, y)
    there.take_back(z, y)
    raises(RuntimeError, "", there.running)
    there.next_epoch()
    host.take_back(logits, target)
    host.next_epoch()
    there.next_epoch()
    host.next_epoch()
    there.running()
    there(z, y)
    host(logits, target)
    agree(there, host)


np.random.seed(0)
globals()[sys.argv[1]]()
print("held")
