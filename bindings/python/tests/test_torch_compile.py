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
    assert counter.frame_count <= 4  # of 0 and 1 samples PyTorch makes graphs of their own


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
            torch.testing.assert_close(one.grad, two.grad, rtol=2e-3 if dtype == torch.float16 else 1e-6, atol=1e-7)
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


def test_errors_under_compile_are_the_librarys():
    criterion = OnlineLabelSmoothing(0.5, 4)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    logits, target = batch(8, 4)
    compiled(logits, target)
    before = criterion.sums.clone()
    with pytest.raises(IndexError, match=r"target\[0\] = 9 is outside \[0, 4\)"):
        compiled(logits, target.clone().fill_(9))
    assert torch.equal(criterion.sums, before)


def test_checkpointing_of_a_compiled_criterion_counts_once():
    layer = torch.nn.Linear(6, 5)
    x, target = torch.randn(32, 6), torch.randint(5, (32,))
    plain, recomputed = OnlineLabelSmoothing(0.5, 5), OnlineLabelSmoothing(0.5, 5)
    plain(layer(x), target).backward()
    compiled = torch.compile(recomputed, fullgraph=True, backend="aot_eager")
    checkpoint(lambda x: compiled(layer(x), target), x, use_reentrant=False).backward()
    assert torch.equal(plain.sums, recomputed.sums)


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
        with pytest.raises(RuntimeError, match="gradient of the operators' gradient"):
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
