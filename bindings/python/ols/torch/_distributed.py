"""Statistics over several processes. They are integers, so that any all-reduce gives every rank the same soft labels, bit for bit."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ._private import reducible_devices


def several(group: Any = None) -> bool:
    """Whether there is a process group of more than one process. RuntimeError in a process that is outside of the group."""
    if not dist.is_available() or not dist.is_initialized():
        return False
    ranks = dist.get_world_size(group)
    if ranks < 0:
        raise RuntimeError(f"group: only its members may call, but rank {dist.get_rank()} is none of them")
    return ranks > 1


def rank() -> int:
    """This process's rank; 0 where there is no process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def demand_device(device: torch.device, group: Any) -> None:
    """RuntimeError, before anything is touched, where the group has no backend for the device."""
    group = group if group is not None else dist.group.WORLD
    able = reducible_devices(group, device)
    if device.type not in able:
        raise RuntimeError(
            f"the statistics are on {device}, but the process group ({dist.get_backend(group)}) reduces tensors on {', '.join(able)} alone. "
            'Initialise it with a backend for both (as "cpu:gloo,cuda:nccl"), give next_epoch another group, or move the criterion'
        )


def all_sum(tensors: tuple[torch.Tensor, ...], group: Any) -> None:
    """Every rank gets the sums over all."""
    demand_device(tensors[0].device, group)
    for tensor in tensors:
        dist.all_reduce(tensor, dist.ReduceOp.SUM, group)


def gather_sum(tensors: tuple[torch.Tensor, ...], group: Any) -> tuple[tuple[torch.Tensor, ...], int] | None:
    """The group's first rank gets the sums over all, the others zeros: together they hold what they held. The others are given the sums, on the host,
    and that rank's number among all."""
    all_sum(tensors, group)
    if dist.get_rank(group) == 0:
        return None
    # The host has room for a second set of them; a device may have none.
    totals = tuple(tensor.to("cpu", copy=True) for tensor in tensors)
    for tensor in tensors:
        tensor.zero_()
    return totals, dist.get_global_rank(group if group is not None else dist.group.WORLD, 0)  # type: ignore[arg-type]
