"""Everything the module needs from PyTorch that PyTorch does not document: one name each, and what replaces it in a version without it.

All of it exists in PyTorch 2.6, the oldest that the package supports, through 2.13, which the tests run with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad

M = TypeVar("M", bound=type[torch.nn.Module])

# Methods of torch.nn.Module that are overridden: moves and casts, state dicts, replicas of DataParallel, torch.jit.trace. There are no
# public hooks for these. A test compares the list with what is overridden and with what PyTorch has. The module also reads `_buffers` in every call,
# as looking up the attribute takes longer than all other checks of a call, and excludes S from PyTorch's loading by `_non_persistent_buffers_set`.
OVERRIDDEN = ("_apply", "_load_from_state_dict", "_replicate_for_data_parallel", "_save_to_state_dict", "_slow_forward")

# The number of the backward pass that this thread is in, or -1. A forward in one is the recomputation of activation checkpointing, which must not be
# counted again. There is no public way to find out, and counting twice silently would be worse than failing to import.
try:
    current_graph_task_id: Callable[[], int] = torch._C._current_graph_task_id
except AttributeError as error:
    raise ImportError(f"ols.OnlineLabelSmoothing needs torch._C._current_graph_task_id, which PyTorch {torch.__version__} does not have") from error

# Whether a transform of torch.func is active, to refuse it with a helpful message. Without it `direct_apply` leaves that to PyTorch.
_transforms: Callable[[], bool] | None = getattr(torch._C, "_are_functorch_transforms_active", None)
transforms_active: Callable[[], bool] = _transforms or (lambda: False)

# Whether a tensor is a batch of gradients, as `is_grads_batched` of torch.autograd.grad makes them. Without it PyTorch's own operations refuse these.
is_batched: Callable[[torch.Tensor], bool] = getattr(getattr(torch._C, "_functorch", None), "is_legacy_batchedtensor", lambda tensor: False)

# How many dispatch modes are active. They see operators, not library calls. Without it every call goes through the operators, as if a mode were active.
len_torch_dispatch_stack: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)

if hasattr(forward_ad, "_current_level"):
    # Avoids the public function, which takes ten times as long, in steps without forward-mode differentiation.
    def has_tangent(tensor: torch.Tensor) -> bool:
        """Whether a tensor is a dual tensor of forward-mode differentiation."""
        return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]

else:

    def has_tangent(tensor: torch.Tensor) -> bool:
        """Whether a tensor is a dual tensor of forward-mode differentiation."""
        return forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]


def direct_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply` without its checks in Python. The caller checks `transforms_active`; if that is missing, this is `function.apply` itself."""
    direct: Callable[..., Any] | None = getattr(super(torch.autograd.Function, function), "apply", None)
    return function.apply if direct is None or _transforms is None else direct


def call_backward_directly(function: type[torch.autograd.Function]) -> None:
    """Makes the engine call `function.backward` without first looking for `vjp` in Python. Without the attribute nothing changes."""
    node = getattr(function, "_backward_cls", None)
    if node is not None:
        node.apply = function.backward


_HAS_TRACE_HOOK = hasattr(torch.nn.Module, "_slow_forward")


def refuse_trace(*_: Any, **__: Any) -> Any:
    raise RuntimeError("torch.jit.trace would record the loss of this batch as a constant: use torch.compile or torch.export")


def refusing_traces(module: M) -> M:
    """Makes calls an error while torch.jit.trace records: PyTorch then calls `_slow_forward`. Without that hook each `forward` checks."""
    if _HAS_TRACE_HOOK:
        module._slow_forward = refuse_trace  # type: ignore[method-assign]
        return module
    forward = module.forward

    @functools.wraps(forward)
    def asking(self: torch.nn.Module, *arguments: Any, **named: Any) -> Any:
        return refuse_trace() if torch.jit.is_tracing() else forward(self, *arguments, **named)  # type: ignore[attr-defined, no-untyped-call]

    module.forward = asking
    return module


def assigns(local_metadata: dict[str, Any]) -> bool:
    """Whether `_load_from_state_dict` is called by `load_state_dict(assign=True)`. Without the entry tensors are copied, as by default."""
    return bool(local_metadata.get("assign_to_params_buffers", False))


def reducible_devices(group: Any, device: torch.device) -> list[str]:
    """The types of devices whose tensors a process group reduces. Without the attribute that of `device`: the group then raises by itself."""
    return sorted({str(getattr(kind, "type", kind)) for kind in getattr(group, "_device_types", [device])})
