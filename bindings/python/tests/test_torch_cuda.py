"""CUDA: what can be tested without a GPU, and what needs one (rule R21)."""

import copy

import pytest
import torch
import torch.distributed as dist
from test_torch_loss import batch

import ols
from ols import OnlineLabelSmoothing, _abi
from ols.torch import _engine, _layout


def has_cuda():
    """Whether there is a GPU, and a library that uses it."""
    if not torch.cuda.is_available():
        return False
    try:
        ols.Criterion(2, device=("cuda", 0)).close()
    except ols.UnsupportedError:
        return False
    return True


needs_gpu = pytest.mark.skipif(not has_cuda(), reason="there is no GPU here")


class OnCuda:
    """The parts of a tensor on the second GPU that a view uses."""

    layout, dtype, shape, device = torch.strided, torch.bfloat16, torch.Size((4, 3)), torch.device("cuda", 1)

    def data_ptr(self):
        return 0x7F0000000000

    def stride(self):
        return (3, 1)

    def is_neg(self):
        return False


def test_views_name_the_device_and_the_address():
    view = _layout.describe(OnCuda(), "logits", 2)
    assert (view.device_type, view.device_id, view.data) == (_abi.DEVICE_CUDA, 1, 0x7F0000000000)
    assert (view.dtype_code, view.dtype_bits, list(view.shape)[:2], list(view.strides)[:2]) == (_abi.CODE_BFLOAT, 16, [4, 3], [3, 1])


def test_r21_calls_go_on_pytorchs_current_stream(monkeypatch):
    criterion = OnlineLabelSmoothing(0.5, 4)
    logits, target = batch(8, 4)
    criterion(logits, target)
    engine, seen = criterion._engine, []
    stream = {"number": 1234}
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: type("Stream", (), {"cuda_stream": stream["number"]}))
    engine._on_cuda = True
    real = _engine._forward

    def forward(address, given, *outputs):
        seen.append(_abi.Batch.from_address(given).stream)
        return real(address, given, *outputs)

    monkeypatch.setattr(_engine, "_forward", forward)
    criterion(logits.requires_grad_(), target)
    stream["number"] = 77
    criterion(logits, target)
    criterion.loss_and_grad(logits.detach().clone(), target, inplace=True)
    assert seen == [1234, 77, 77]
    engine.core.device = (_abi.DEVICE_CUDA, 0)  # only reports use it
    assert criterion.next_epoch()._source[1] == 77


def test_a_device_that_is_not_there_is_an_error_that_says_so():
    criterion = OnlineLabelSmoothing(0.5, 3).to("meta")
    with pytest.raises(RuntimeError, match="soft_labels is on device meta"):
        criterion(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


def test_on_a_device_an_unread_report_expires_and_next_epoch_waits_for_nothing():
    criterion = OnlineLabelSmoothing(0.5, 3)
    read, unread = criterion.next_epoch(), None
    read.read()
    criterion._engine.core.device = (_abi.DEVICE_CUDA, 0)  # only reports use it
    unread = criterion.next_epoch()
    last = criterion.next_epoch()
    assert read.epoch == 1
    assert last.epoch == 3
    with pytest.raises(RuntimeError, match="not read before the next epoch ended"):
        _ = unread.epoch


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_gpu_and_cpu_agree(dtype):
    criterion = OnlineLabelSmoothing(0.5, 50)
    other = copy.deepcopy(criterion).cuda()
    for _ in range(2):
        logits, target = batch(128, 50, dtype=dtype)
        one, two = logits.clone().requires_grad_(), logits.cuda().requires_grad_()
        loss, theirs = criterion(one, target), other(two, target.cuda())
        loss.backward()
        theirs.backward()
        torch.testing.assert_close(theirs.cpu(), loss, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(two.grad.cpu(), one.grad, rtol=1e-2, atol=1e-5)
        assert torch.equal(other.counts.cpu(), criterion.counts)
        assert criterion.next_epoch() == other.next_epoch()
        torch.testing.assert_close(other.soft_labels.cpu(), criterion.soft_labels, rtol=2**-22, atol=2**-29)


@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning")
def test_a_training_step_does_not_synchronise():
    criterion = OnlineLabelSmoothing(0.5, 50).cuda()
    logits, target = batch(128, 50)
    z, y = logits.cuda().requires_grad_(), target.cuda()
    criterion(z, y).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        criterion(z, y, None, y.flip(0), 0.3).backward()
        report = criterion.next_epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert report.samples_accumulated > 0


@needs_gpu
def test_a_captured_graph_counts_at_each_replay():
    criterion = OnlineLabelSmoothing(0.5, 50).cuda()
    logits, target = batch(128, 50)
    z, y = logits.cuda().requires_grad_(), target.cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        criterion(z, y).backward()
    torch.cuda.current_stream().wait_stream(side)
    once = criterion.sums.clone()
    z.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = criterion(z, y)
        loss.backward()
    for _ in range(3):
        graph.replay()
    assert torch.equal(criterion.sums, 4 * once)
    criterion.next_epoch()
    graph.replay()
    assert torch.equal(criterion.sums, once)
    torch.testing.assert_close(loss, OnlineLabelSmoothing(0.5, 50, init=criterion.soft_labels).cuda().eval()(z, y))


@needs_gpu
def test_a_mix_of_devices_and_a_wrong_target():
    criterion = OnlineLabelSmoothing(0.5, 5).cuda()
    logits, target = batch(8, 5)
    for z, y in ((logits, target), (logits.cuda(), target), (logits, target.cuda())):
        with pytest.raises(RuntimeError, match="device"):
            criterion(z, y)
    criterion(logits.cuda(), target.cuda().fill_(9))
    assert criterion.next_epoch().targets_out_of_range == 8
    criterion(logits.cuda(), batch(8, 5)[1].cuda())


@needs_gpu
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_older_fsdp_moves_the_criterion_and_leaves_it_exact(tmp_path):
    from torch.distributed.fsdp import FullyShardedDataParallel

    class Model(torch.nn.Module):
        def __init__(self, criterion):
            super().__init__()
            self.scale, self.criterion = torch.nn.Parameter(torch.full((7,), 1.5)), criterion

        def forward(self, x, target):
            return self.criterion(x * self.scale, target)

    criterion = OnlineLabelSmoothing(0.5, 7)
    expected = copy.deepcopy(criterion).cuda()
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = FullyShardedDataParallel(Model(criterion), device_id=0)
        for _ in range(2):
            x, target = (tensor.cuda() for tensor in batch(32, 7))
            model(x, target).backward()
            expected(x * 1.5, target)
            assert criterion.sums.is_cuda
            assert criterion.next_epoch() == expected.next_epoch()
            assert torch.equal(criterion.soft_labels, expected.soft_labels)
    finally:
        dist.destroy_process_group()
