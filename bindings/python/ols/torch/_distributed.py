"""Statistics across processes. They are integers, so any all-reduce gives every rank the same soft labels, bit for bit."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ._private import reducible_devices


def several(group: Any = None) -> bool:
    """Whether the process group has more than one process. RuntimeError in a process that is not in the group."""
    if not dist.is_available() or not dist.is_initialized():
        return False
    ranks = dist.get_world_size(group)
    if ranks < 0:
        raise RuntimeError(f"group: only its members may call, but rank {dist.get_rank()} is not one of them")
    return ranks > 1


def rank() -> int:
    """The rank of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def demand_device(device: torch.device, group: Any) -> None:
    """RuntimeError if the group has no backend for the device. Called before anything changes."""
    group = group if group is not None else dist.group.WORLD
    able = reducible_devices(group, device)
    if device.type not in able:
        raise RuntimeError(
            f"the statistics are on {device}, but the process group ({dist.get_backend(group)}) only reduces tensors on {', '.join(able)}. "
            'Initialise it with a backend for both (as "cpu:gloo,cuda:nccl"), pass another group to next_epoch, or move the criterion'
        )


def all_sum(tensors: tuple[torch.Tensor, ...], group: Any) -> None:
    """Replaces the tensors with their sums over all ranks."""
    demand_device(tensors[0].device, group)
    for tensor in tensors:
        dist.all_reduce(tensor, dist.ReduceOp.SUM, group)


def gather_sum(tensors: tuple[torch.Tensor, ...], group: Any) -> tuple[tuple[torch.Tensor, ...], int] | None:
    """Moves the sums over all ranks to the group's first rank; the others keep zeros, so the total is unchanged. On the others, returns the sums, on the
    host, and the global number of that rank."""
    all_sum(tensors, group)
    if dist.get_rank(group) == 0:
        return None
    # The host has room for a second copy; a device may not.
    totals = tuple(tensor.to("cpu", copy=True) for tensor in tensors)
    for tensor in tensors:
        tensor.zero_()
    return totals, dist.get_global_rank(group if group is not None else dist.group.WORLD, 0)  # type: ignore[arg-type]
