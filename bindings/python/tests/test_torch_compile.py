"""torch.compile, torch.export and the operators of torch.library."""

import copy

import pytest
import torch
import torch._dynamo.testing
from test_torch_loss import batch
from torch.utils.checkpoint import checkpoint

import ols
from ols import OnlineLabelSmoothing
from ols.torch import _operators

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def arguments(training, **options):
    logits, target = batch(6, 4)
    criterion = OnlineLabelSmoothing(0.3, 4, **options)
    statistics = (criterion.sums, criterion.counts, criterion.counters) if training else ()
    numbers = (0.3, -100, int(criterion._settings.reduction))
    return [logits, target, criterion.soft_labels, *statistics, criterion._weights, torch.rand(6), target.roll(1), torch.rand(6), None, *numbers]


@pytest.mark.parametrize("with_gradient", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_operators_pass_opcheck(training, reduction, with_gradient):
    operator = torch.ops.ols.forward_ if training else torch.ops.ols.forward
    torch.library.opcheck(operator.default, (*arguments(training, reduction=reduction, weight=torch.rand(4)), with_gradient))


def test_operators_of_images_and_narrow_logits_pass_opcheck():
    for logits, target in (batch(2, 4, 3, 2), batch(6, 4, dtype=torch.bfloat16), batch(0, 4)):
        criterion = OnlineLabelSmoothing(0.3, 4)
        torch.library.opcheck(
            torch.ops.ols.forward.default, (logits, target, criterion.soft_labels, None, None, None, None, None, 0.3, -100, 1, True)
        )


def test_the_operator_of_the_gradient_passes_opcheck():
    for reduction in ("mean", "none"):
        logits, target, soft_labels, *options = arguments(False, reduction=reduction, weight=torch.rand(4))
        grad_loss = torch.tensor(3.0) if reduction == "mean" else torch.rand(6)
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            torch.library.opcheck(torch.ops.ols.backward.default, (logits.to(dtype), target, soft_labels, grad_loss, *options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_compiled_step_counts_the_16_bit_logits_that_it_returns(dtype):
    """Even if the compiler fuses the operations that make the logits, the rounded values are counted."""
    criterion, other = OnlineLabelSmoothing(0.5, 64), OnlineLabelSmoothing(0.5, 64)

    def step(x, target):
        logits = 30 * torch.tanh(x.to(dtype) / 30)
        return criterion(logits, target), logits

    x, target = batch(512, 64)
    loss, logits = torch.compile(step, fullgraph=True)(x.requires_grad_(), target)
    loss.backward()
    seen = logits.detach().requires_grad_()
    expected = other(seen, target)
    assert torch.equal(loss, expected)
    for name in ("sums", "counts", "counters"):
        assert torch.equal(getattr(criterion, name), getattr(other, name))
    assert criterion.counts.sum() > 100
    expected.backward()
    torch.testing.assert_close(x.grad, (seen.grad.float() * (1 - (logits.detach().float() / 30) ** 2)), rtol=2e-2, atol=1e-6)
    criterion.take_back(logits.detach(), target)
    assert criterion.sums.abs().sum() == criterion.counts.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_step_takes_the_memory_of_one_gradient(dtype):
    logits, target = batch(64, 1000, dtype=dtype)
    logits.requires_grad_()
    compiled = torch.compile(OnlineLabelSmoothing(0.5, 1000), fullgraph=True)
    for _ in range(2):
        logits.grad = None
        compiled(logits, target).backward()
    logits.grad = None
    with torch.profiler.profile(profile_memory=True) as profile:
        compiled(logits, target).backward()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    size = logits.numel() * logits.element_size()
    assert size <= peak < size + 4096


def test_what_came_between_forward_and_backward_of_a_compiled_step():
    logits, target = batch(8, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    criterion.alpha = 0.25
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    for change in (criterion.next_epoch, lambda: setattr(criterion, "alpha", 0.9), lambda: criterion.load_state_dict(criterion.state_dict())):
        narrow = logits.bfloat16().requires_grad_()
        loss = compiled(narrow, target)
        change()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        wide = logits.clone().requires_grad_()
        loss = compiled(wide, target)
        change()  # the gradient was computed with the loss
        loss.backward()


def test_a_loss_scale_does_not_underflow_under_compile():
    logits = torch.zeros(4096, 8)
    logits[:, 0] = 10
    target = torch.zeros(4096, dtype=torch.int64)
    one, two = logits.half().requires_grad_(), logits.half().requires_grad_()
    criterion = OnlineLabelSmoothing(1.0, 8)
    (criterion(one, target) * 2.0**16).backward()
    (torch.compile(criterion, fullgraph=True, backend="aot_eager")(two, target) * 2.0**16).backward()
    assert torch.equal(one.grad, two.grad)
    assert two.grad.count_nonzero() == two.grad.numel()


def test_mixtures_of_ever_new_shares_compile_to_few_graphs():
    criterion, other = OnlineLabelSmoothing(0.5, 4), OnlineLabelSmoothing(0.5, 4)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(criterion, fullgraph=True, backend=counter)
    logits, target = batch(8, 4)
    for share in torch.rand(12, dtype=torch.float64).tolist():
        one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss, expected = compiled(one, target, None, target.roll(1), share), other(two, target, None, target.roll(1), share)
        assert torch.equal(loss, expected)
        loss.backward()
        expected.backward()
        assert torch.equal(one.grad, two.grad)
    assert torch.equal(criterion.sums, other.sums)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("whole", [True, False])
def test_a_gradient_that_nobody_computes_is_refused_under_compile(whole):
    logits, target = batch(6, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    compiled = torch.compile(criterion, fullgraph=whole, backend="aot_eager")
    with pytest.raises(RuntimeError, match=None if whole else "sample_weight requires a gradient"):
        compiled(logits.requires_grad_(), target, torch.rand(6, requires_grad=True))
    assert criterion.counts.sum() == 0


def train(step, criterion, model, batches):
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for x, target in batches:
        loss = step(x, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().clone())
    return losses


@pytest.mark.parametrize(
    ("backend", "dtype"), [("eager", torch.float32), ("aot_eager", torch.float32), ("aot_eager", torch.bfloat16), ("inductor", torch.float32)]
)
def test_a_compiled_training_step_is_the_eager_one(backend, dtype):
    models = [torch.nn.Linear(6, 5).to(dtype)]
    models.append(copy.deepcopy(models[0]))
    criteria = [OnlineLabelSmoothing(0.5, 5, weight=torch.arange(1.0, 6)), OnlineLabelSmoothing(0.5, 5, weight=torch.arange(1.0, 6))]
    compiled = torch.compile(lambda x, y: criteria[1](models[1](x), y), fullgraph=True, backend=backend)
    for _ in range(2):
        batches = [(torch.randn(16, 6, dtype=dtype), torch.randint(5, (16,))) for _ in range(3)]
        one = train(lambda x, y: criteria[0](models[0](x), y), criteria[0], models[0], batches)
        other = train(compiled, criteria[1], models[1], batches)
        torch.testing.assert_close(one, other, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-5)
        torch.testing.assert_close(
            models[0].weight, models[1].weight, rtol=1e-4 if dtype == torch.float32 else 2e-2, atol=1e-2 if dtype != torch.float32 else 1e-5
        )
        assert criteria[1].counts.sum() > 0
        if dtype == torch.float32:
            assert torch.equal(criteria[0].counts, criteria[1].counts)
        for criterion in criteria:
            criterion.next_epoch()


def test_batches_of_every_size_compile_to_few_graphs():
    criterion, other = OnlineLabelSmoothing(0.5, 4), OnlineLabelSmoothing(0.5, 4)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(criterion, fullgraph=True, dynamic=True, backend=counter)
    for samples in (7, 9, 33, 1, 64, 0, 12):
        logits, target = batch(samples, 4)
        one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        compiled(one, target).backward()
        other(two, target).backward()
        assert torch.equal(one.grad, two.grad)
    assert torch.equal(criterion.sums, other.sums)
    assert counter.frame_count <= 4  # PyTorch makes separate graphs for 0 and 1 samples


def test_compiled_gradients_are_the_eager_ones():
    for reduction in ("mean", "none"):
        for dtype in (torch.float32, torch.float16):
            torch._dynamo.reset()
            logits, target = batch(8, 4, dtype=dtype)
            criterion, other = OnlineLabelSmoothing(0.5, 4, reduction=reduction), OnlineLabelSmoothing(0.5, 4, reduction=reduction)
            mixed = (torch.rand(8), target.roll(1), 0.3)
            one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
            compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
            (criterion(one, target, *mixed).sum() * 3).backward()
            (compiled(two, target, *mixed).sum() * 3).backward()
            if dtype == torch.float16:
                assert torch.equal(one.grad, two.grad)
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-6, atol=1e-7)
            assert torch.equal(criterion.sums, other.sums)


def test_evaluation_and_modes_under_compile():
    logits, target = batch(8, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    expected = criterion.eval()(logits, target)
    assert torch.equal(compiled(logits, target), expected)
    assert criterion.counts.sum() == 0
    criterion.train()
    with torch.no_grad():
        compiled(logits, target)
    counted = criterion.counts.sum()
    assert counted > 0
    criterion.eval()
    compiled(logits, target)
    assert criterion.counts.sum() == counted
    criterion.next_epoch()
    assert torch.equal(compiled(logits, target), OnlineLabelSmoothing(0.5, 4, init=criterion.soft_labels).eval()(logits, target))


def test_alpha_may_be_scheduled_under_compile():
    logits, target = batch(8, 4)
    criterion, other = OnlineLabelSmoothing(0.5, 4), OnlineLabelSmoothing(0.5, 4)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"  # the name before 2.7
    with torch._dynamo.config.patch({limit: 2}):
        for step in range(12):
            criterion.alpha = other.alpha = step / 12
            z = logits.clone().requires_grad_()
            assert torch.equal(compiled(z, target), other(logits, target))


def test_alpha_may_be_set_in_a_compiled_function():
    logits, target = batch(8, 4)
    criterion, other = OnlineLabelSmoothing(0.5, 4), OnlineLabelSmoothing(0.5, 4)

    def step(alpha):
        criterion.alpha = alpha
        return criterion(logits, target)

    compiled = torch.compile(step, backend="aot_eager")
    for alpha in (0.1, 0.5, 0.9):
        other.alpha = alpha
        assert torch.equal(compiled(alpha), other(logits, target))
        assert criterion.alpha == alpha


@pytest.mark.parametrize("method", ["loss_and_grad", "step", "take_back", "next_epoch"])
def test_what_must_stay_outside_of_a_compiled_function_interrupts_the_graph(method):
    criterion, other = OnlineLabelSmoothing(0.5, 4), OnlineLabelSmoothing(0.5, 4)
    given = () if method == "next_epoch" else batch(8, 4)
    if method == "step":
        given = (given[0].softmax(1), given[1])
    if method == "take_back":
        criterion(*given), other(*given)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(lambda: getattr(criterion, method)(*given), fullgraph=True, backend="eager")()
    torch.compile(lambda: getattr(criterion, method)(*given), backend="eager")()
    getattr(other, method)(*given)
    assert torch.equal(criterion.sums, other.sums)


def test_errors_under_compile_are_the_librarys():
    criterion = OnlineLabelSmoothing(0.5, 4)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    logits, target = batch(8, 4)
    compiled(logits, target)
    before = criterion.sums.clone()
    with pytest.raises(IndexError, match=r"target\[0\] = 9 is outside \[0, 4\)"):
        compiled(logits, target.clone().fill_(9))
    with pytest.raises(ValueError, match=r"target has shape \(2, 4, 3\), but \(2, 3, 4\) is needed"):
        compiled(torch.randn(2, 4, 3, 4), torch.zeros(2, 4, 3, dtype=torch.int64))
    assert torch.equal(criterion.sums, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointing_of_a_compiled_criterion_counts_once(dtype):
    layer = torch.nn.Linear(6, 5).to(dtype)
    x, target = torch.randn(32, 6, dtype=dtype), torch.randint(5, (32,))
    plain, recomputed = OnlineLabelSmoothing(0.5, 5), OnlineLabelSmoothing(0.5, 5)
    plain(layer(x), target).backward()
    compiled = torch.compile(recomputed, fullgraph=True, backend="aot_eager")
    checkpoint(lambda x: compiled(layer(x), target), x, use_reentrant=False).backward()
    assert torch.equal(plain.sums, recomputed.sums)
    inside = OnlineLabelSmoothing(0.5, 5)
    torch.compile(lambda x: checkpoint(lambda x: inside(layer(x), target), x, use_reentrant=False), fullgraph=True, backend="aot_eager")(x).backward()
    assert torch.equal(plain.sums, inside.sums)


@pytest.mark.parametrize("strict", [False, True])
def test_export_in_evaluation_mode(strict):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.criterion = torch.nn.Linear(6, 5), OnlineLabelSmoothing(0.5, 5)

        def forward(self, x, target):
            return self.criterion(self.layer(x), target)

    model = Model().eval()
    x, target = torch.randn(8, 6), torch.randint(5, (8,))
    program = torch.export.export(model, (x, target), strict=strict)
    assert "ols.forward.default" in str(program)
    torch.testing.assert_close(program.module()(x, target), model(x, target))
    assert "criterion.soft_labels" in program.state_dict


def test_dispatch_modes_see_the_operators():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    names = []
    logits, target = batch(8, 4)
    criterion, other = OnlineLabelSmoothing(0.5, 4), OnlineLabelSmoothing(0.5, 4)
    with Seen():
        loss = criterion(logits, target)
        z = logits.clone().requires_grad_()
        with pytest.raises(RuntimeError, match="double backward is not supported by the operators"):
            torch.autograd.grad(criterion.eval()(z, target), z, create_graph=True)
    assert "ols.forward_.default" in names
    assert torch.equal(loss, other(logits, target))
    assert torch.equal(criterion.sums, other.sums)


def test_operators_keep_few_criteria_and_no_tensors():
    _operators._engines.clear()
    logits, target = batch(8, 4)
    for number in range(40):
        criterion = OnlineLabelSmoothing(0.5, 4, ignore_index=-number - 1)
        with torch.utils._python_dispatch._disable_current_modes():
            torch.ops.ols.forward(logits, target, criterion.soft_labels, None, None, None, None, None, 0.5, -number - 1, 1, False)
    assert len(_operators._engines) == _operators._MOST_ENGINES
    for engine, _ in _operators._engines.values():
        assert engine.soft_labels.untyped_storage().nbytes() == 0
        assert engine.core.keep is None


def test_class_weights_that_change_are_seen_by_the_operators():
    logits, target = batch(8, 4)
    criterion = OnlineLabelSmoothing(0.5, 4)
    found = []
    for weight in (torch.ones(4).double(), torch.arange(1.0, 5).double()):
        found.append(torch.ops.ols.forward(logits, target, criterion.soft_labels, weight, None, None, None, None, 0.5, -100, 1, False)[0])
        assert torch.equal(found[-1], OnlineLabelSmoothing(0.5, 4, weight=weight).eval()(logits, target))
    assert not torch.equal(*found)
    assert ols.OnlineLabelSmoothing is OnlineLabelSmoothing
