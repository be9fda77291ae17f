"""Undocumented parts of PyTorch that the module uses: all in one place, and without one of them results are the same or there is an error."""

import re
from pathlib import Path

import pytest
import torch
from conftest import python

from ols import OnlineLabelSmoothing
from ols.torch import _private

# A symbol is missing only while ols.torch._private is imported, because PyTorch itself uses it.
HIDING = """
import torch
from torch.autograd import forward_ad
from ols import _core, _settings
owner, name = {owner}, {name!r}
kept = getattr(owner, name)
delattr(owner, name)
import ols.torch._private as private
setattr(owner, name, kept)
"""

CALLS = """
import ols
from torch.utils._python_dispatch import TorchDispatchMode
logits, target = torch.randn(16, 5), torch.arange(16) % 5

def refused(call, *words):
    try:
        call()
    except RuntimeError as error:
        assert any(word in str(error) for word in words), error
    else:
        raise AssertionError(words)

criterion, other = ols.OnlineLabelSmoothing(0.5, 5), ols.Criterion(5)
for _ in range(2):
    z = logits.clone().requires_grad_()
    loss = criterion(z, target)
    loss.backward()
    expected = other(logits.numpy(), target.numpy())
    assert loss.item() == expected[0]
    assert torch.equal(z.grad, torch.from_numpy(expected[1]))
assert criterion.to_bytes() == other.to_bytes()
refused(lambda: torch.func.grad(lambda z: criterion(z, target))(logits), "torch.func transforms are not supported", "functorch transforms")
with forward_ad.dual_level():
    refused(lambda: criterion(forward_ad.make_dual(logits, logits), target), "no forward-mode differentiation", "forward mode AD", "forward AD")
refused(lambda: torch.jit.trace(criterion, (logits, target)), "torch.jit.trace would record the loss")

class Seeing(TorchDispatchMode):
    seen = []
    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.seen.append(str(function))
        return function(*arguments, **(named or {}))

with Seeing():
    criterion(logits, target)
assert "ols.forward_.default" in Seeing.seen, Seeing.seen
print("held")
"""

SYMBOLS = [
    ("torch._C", "_are_functorch_transforms_active", "private.transforms_active() is False"),
    ("torch._C._functorch", "is_legacy_batchedtensor", "not private.is_batched(torch.ones(()))"),
    ("torch._C", "_len_torch_dispatch_stack", "private.len_torch_dispatch_stack() == 1"),
    ("forward_ad", "_current_level", "'_current_level' not in private.has_tangent.__code__.co_names"),
    ("torch.nn.Module", "_slow_forward", "not private._HAS_TRACE_HOOK"),
]


@pytest.mark.parametrize(("owner", "name", "replaced"), SYMBOLS, ids=[name for _, name, _ in SYMBOLS])
def test_without_a_symbol_calls_do_the_same(owner, name, replaced):
    run = python(HIDING.format(owner=owner, name=name) + f"assert {replaced}\n" + CALLS)
    assert run.stdout == "held\n", run.stderr


def test_what_nothing_replaces_is_named_by_the_import():
    run = python(HIDING.format(owner="torch._C", name="_current_graph_task_id"))
    assert run.returncode == 1
    assert f"ImportError: ols.OnlineLabelSmoothing needs torch._C._current_graph_task_id, which PyTorch {torch.__version__} does not" in run.stderr


def test_a_function_without_a_node_of_its_own_keeps_its_detours():
    class Plain:
        apply = staticmethod(lambda: "in Python")

    _private.call_backward_directly(Plain)
    assert not hasattr(Plain, "_backward_cls")

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    for apply in (_private.direct_apply(Double), Double.apply):
        x = torch.ones(3, requires_grad=True)
        apply(x).sum().backward()
        assert x.grad.tolist() == [2, 2, 2]
        _private.call_backward_directly(Double)


def test_groups_and_loads_that_do_not_say():
    assert _private.reducible_devices(object(), torch.device("cpu")) == ["cpu"]
    assert not _private.assigns({})


def test_methods_that_are_overridden_exist_and_are_listed():
    ours = {
        name for kind in OnlineLabelSmoothing.__mro__ if kind.__module__.startswith("ols.") for name in vars(kind) if name in vars(torch.nn.Module)
    }
    assert sorted(name for name in ours if name.startswith("_") and not name.startswith("__")) == sorted(_private.OVERRIDDEN)
    assert {"_buffers", "_non_persistent_buffers_set"} <= set(vars(torch.nn.Module()))


def test_nothing_else_in_the_package_is_undocumented():
    folder = Path(_private.__file__).parents[1]
    private = re.compile(r"torch\._|torch(?:\.\w+)*\._[a-z]|forward_ad\._|_backward_cls|_device_types|\._C\b|_slow_forward|_is_replica")
    for path in folder.rglob("*.py"):
        if path.name != "_private.py":
            found = [line for line in path.read_text().splitlines() if private.search(line) and "import" not in line]
            assert found == [], path
