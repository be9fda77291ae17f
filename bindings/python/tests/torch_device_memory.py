"""The module on CUDA tensors of the stand-in CUDA driver: `torch_device_memory.py SCENARIO`. See test_device_memory.py.

What would need a GPU in the real libtorch_cuda is left out: PyTorch's engine (`backward` takes its place), copies of storages, double backward.
"""

import copy
import ctypes
import os
import pickle
import sys
from types import SimpleNamespace

import torch
from refused import raises

pretended = ctypes.CDLL(os.environ["OLS_TEST_TORCH_CUDA"])
pretended.stream.restype = ctypes.c_void_p
pretended.begin(os.environ["OLS_TEST_DRIVER"].encode())
driver = ctypes.CDLL(os.environ["OLS_TEST_DRIVER"])
driver.standin_get.restype = ctypes.c_longlong
# Replaces what Python would call in the real libtorch_cuda: nothing looks for a GPU, and streams are the stand-in's.
torch.cuda._initialized = True
torch.isfinite = lambda tensor: tensor - tensor == 0  # the real one resizes its output, which the stand-in's memory does not support
torch.cuda.current_stream = lambda index: SimpleNamespace(cuda_stream=pretended.stream(index))

from ols import OnlineLabelSmoothing  # noqa: E402

K, N = 6, 16
CUDA = torch.device("cuda", 1)
DTYPES = {torch.float32: 1e-6, torch.float64: 1e-12, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def counted(name):
    return driver.standin_get(name.encode())


def batch(dtype=torch.float32, shape=()):
    target = torch.randint(K, (N, *shape))
    return (torch.randn(N, K, *shape) + 2 * torch.eye(K)[target].movedim(-1, 1)).to(dtype), target


def backward(loss, incoming=1.0):
    """The gradient with respect to the logits of the loss."""
    with torch.no_grad():
        return loss.grad_fn.apply(torch.full(loss.shape, incoming, device=loss.device))[0]


def agree(there, host, within=2**-22):
    assert there.soft_labels.device == there.sums.device == there.counts.device == CUDA
    assert there.epoch == host.epoch
    assert torch.equal(there.counts.cpu(), host.counts)
    torch.testing.assert_close(there.soft_labels.cpu(), host.soft_labels, rtol=within, atol=2**-29)
    torch.testing.assert_close(there.sums.cpu().double(), host.sums.double(), rtol=within, atol=2 * N)


def training():
    """R17, R21: loss, gradient and soft labels equal the host's, on PyTorch's stream, and neither a forward pass nor the end of an epoch waits."""
    for dtype, within in DTYPES.items():
        host = OnlineLabelSmoothing(0.3, K, momentum=0.25, weight=torch.linspace(1, 2, K))
        there = copy.deepcopy(host).to(CUDA)
        there.to_bytes()  # the first call creates the library's criterion, and waits
        for epoch in (1, 2):
            logits, target = batch(dtype)
            a, b, y = logits.clone().requires_grad_(), logits.to(CUDA).requires_grad_(), target.to(CUDA)
            want, waits = host(a, target), counted("synchronisations")
            loss = there(b, y)
            assert counted("synchronisations") == waits
            assert counted("queued") > 0
            assert counted("last_stream") == pretended.stream(1)
            (want * 1024).backward()
            gradient = backward(loss, 1024.0)
            assert (loss.device, gradient.device, gradient.dtype) == (CUDA, CUDA, dtype)
            torch.testing.assert_close(loss.cpu(), want, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(gradient.cpu(), a.grad, rtol=within, atol=1024 * within)
            waits = counted("synchronisations")
            report = there.next_epoch()
            assert counted("synchronisations") == waits
            assert report == host.next_epoch()
            assert report.epoch == epoch
            assert report.samples_accumulated > K
            agree(there, host)
            del loss, gradient  # freeing memory while calls are counted would wait


def calls():
    """Images in two layouts, Mixup, weights, one loss per sample, evaluation, taking back."""
    host = OnlineLabelSmoothing(0.5, K, reduction="none")
    there = copy.deepcopy(host).to(CUDA)
    image, labels = batch(shape=(2, 3))
    v = torch.rand(labels.shape)
    for form in (torch.contiguous_format, torch.channels_last):
        want = host(image.contiguous(memory_format=form), labels, v, labels.flip(0), 0.25)
        z = image.to(CUDA).contiguous(memory_format=form)
        loss = there(z, labels.to(CUDA), v.to(CUDA), labels.flip(0).to(CUDA), 0.25)
        torch.testing.assert_close(loss.cpu(), want, rtol=1e-5, atol=1e-6)
        agree(there, host)
    there.take_back(z, labels.to(CUDA), v.to(CUDA), labels.flip(0).to(CUDA), 0.25)
    host.take_back(image, labels, v, labels.flip(0), 0.25)
    agree(there, host)
    logits, target = batch()
    z, y = logits.to(CUDA), target.to(CUDA)
    for inplace in (False, True):
        want, slope = host.loss_and_grad(logits.clone(), target)
        loss, gradient = there.loss_and_grad(z, y, inplace=inplace)
        assert (gradient.data_ptr() == z.data_ptr()) == inplace
        torch.testing.assert_close(loss.cpu(), want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient.cpu(), slope, rtol=1e-6, atol=1e-6)
    agree(there, host)
    for one, p, of in ((host, logits.softmax(1), target), (there, logits.softmax(1).to(CUDA), y)):
        one.step(p, of)
    agree(there, host)
    host.eval()
    there.eval()
    logits, target = batch()
    loss = there(logits.to(CUDA).requires_grad_(), target.to(CUDA))
    (want,) = torch.autograd.grad(host(logits.requires_grad_(), target).sum(), logits)
    torch.testing.assert_close(backward(loss).cpu(), want, rtol=1e-6, atol=1e-6)
    agree(there, host)


def states():
    """R12, R25: a state saved on one device loads on the other; moves are exact."""
    there = OnlineLabelSmoothing(0.4, K, momentum=0.25).to(CUDA)
    for _ in range(2):
        logits, target = batch()
        there(logits.to(CUDA), target.to(CUDA))
        if there.epoch == 0:
            there.next_epoch()
    saved = there.to_bytes()
    state = {name: value.cpu() for name, value in there.state_dict().items()}
    k = K
    published = {"supervise": torch.rand(k, k), "update": torch.rand(k, k), "idx_count": torch.arange(k, dtype=torch.float32)}
    for of in (CUDA, torch.device("cpu")):
        for to in (CUDA, torch.device("cpu")):
            for assign in (False, True):
                one = OnlineLabelSmoothing(0.9, K).to(to)
                one.load_state_dict({name: value.to(of) for name, value in state.items()}, assign=assign)
                assert one.to_bytes() == saved
                assert one.soft_labels.device == one.counts.device == (of if assign else to)
                for dtype in DTYPES:
                    given = {name: value.to(of, dtype) for name, value in published.items()}
                    one.load_state_dict(given, assign=assign)
                    assert torch.equal(one.supervise.cpu(), given["supervise"].cpu().float())
                    torch.testing.assert_close(one.update.cpu(), given["update"].cpu().float(), rtol=0, atol=2**-30)
                    assert one.next_epoch().rows_measured == K - 1  # the first class had no correctly classified sample
    host = OnlineLabelSmoothing(0.9, K)
    host.load_state_dict(state)
    assert there.half().soft_labels.device == CUDA
    assert there.to_bytes() == saved
    host = pickle.loads(pickle.dumps(host))
    assert there.cpu().to_bytes() == host.to_bytes() == saved


def wrong():
    """R9: memory on another device is an error of the library, and nothing changes; invalid values are counted and do not affect later calls."""
    host = OnlineLabelSmoothing(0.5, K, reduction="sum")
    there = copy.deepcopy(host).to(CUDA)
    logits, target = batch()
    z, y = logits.to(CUDA), target.to(CUDA)
    clean = there.to_bytes()
    raises(RuntimeError, "logits.device = cpu, but the criterion is on cuda:1", there, logits, target)
    raises(RuntimeError, "target.device = cpu", there, z, target)
    raises(RuntimeError, "logits.device = cuda:1", host, z, y)
    raises(RuntimeError, "logits.device = cuda:0", there, logits.to("cuda:0"), target.to("cuda:0"))
    raises(RuntimeError, "sample_weight.device = cpu", there, z, y, torch.rand(N))
    raises(TypeError, "target has dtype torch.float32", there, z, y.float())
    raises(ValueError, "target.shape", there, z, y[:5])
    assert there.to_bytes() == clean
    labels = target.clone()
    labels[3], labels[5] = K, -7
    z.requires_grad_()
    loss = there(z, labels.to(CUDA))
    gradient = backward(loss)
    want, slope = host.loss_and_grad(logits, torch.where(labels == target, target, host.ignore_index))
    torch.testing.assert_close(loss.cpu(), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.cpu(), slope, rtol=1e-6, atol=1e-6)
    assert there.next_epoch().targets_out_of_range == 2
    host.next_epoch()
    torch.testing.assert_close(there(z, y).cpu(), host(logits, target), rtol=1e-5, atol=1e-6)
    agree(there, host)
    unread = there.next_epoch()
    there.next_epoch()
    raises(RuntimeError, "not read before the next epoch ended", unread.as_dict)


torch.manual_seed(0)
torch.set_num_threads(1)
globals()[sys.argv[1]]()
print("held")
