"""State dicts: the contents of ours and of the published PyTorch package's, and how they are read.

Ours: `soft_labels` f32 (K, K), a row per class; `sums` int64 (K, K) in units of 2^-30; `counts` int64 (K); `counters` int64 (4); `settings`, the options
that affect the result, the epoch and the rank as JSON in uint8, so that safetensors and distributed checkpoints can hold it; and, if there are any,
`class_weights` f64 (K) and `initial_soft_labels` f32 (K, K).

The published package's: `supervise`, `update` (K, K) and `idx_count` (K), all of a floating dtype, a **column** per class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import _abi
from .._core import Core
from .._memory import tensor_of_array
from .._settings import JSON_BYTES, Settings

STATE = {"soft_labels": torch.float32, "sums": torch.int64, "counts": torch.int64, "counters": torch.int64}
SETTINGS = "settings"
OPTIONAL = {"class_weights": torch.float64, "initial_soft_labels": torch.float32}
PUBLISHED = ("supervise", "update", "idx_count")


@dataclass
class Loaded:
    """A complete and valid state. `settings` is None if the state dict has no options."""

    state: dict[str, torch.Tensor]
    settings: Settings | None = None
    epoch: int | None = None
    rank: int | None = None


def settings_tensor(settings: Settings, epoch: int, rank: int) -> torch.Tensor:
    return torch.frombuffer(bytearray(settings.to_json(epoch, rank)), dtype=torch.uint8)


def optional_tensors(settings: Settings) -> dict[str, torch.Tensor]:
    found = {name: getattr(settings, name) for name in OPTIONAL}
    return {name: torch.from_numpy(array.copy()) for name, array in found.items() if array is not None}


class RefusedError(Exception):
    """A state dict cannot be loaded; the message says why."""


def read(given: dict[str, Any], settings: Settings) -> Loaded:
    """Reads the entries of a state dict under a module's prefix. Raises `RefusedError`; changes nothing."""
    if any(name in given for name in PUBLISHED):
        return _read_published(given, settings)
    shapes = shapes_of(settings.num_classes)
    for name, dtype in STATE.items():
        _demand(name, given[name], shapes[name], (dtype,))
    loaded = Loaded({name: given[name] for name in STATE})
    _validate(loaded.state)
    record = given[SETTINGS]
    _demand(SETTINGS, record, (JSON_BYTES,), (torch.uint8,))
    try:
        found, loaded.epoch, loaded.rank, weighted = Settings.from_json(bytes(record.cpu().tolist()), settings.reduction)
    except (ValueError, OverflowError) as error:
        raise RefusedError(f"{SETTINGS}: {error}") from error
    if found.num_classes != settings.num_classes:
        raise RefusedError(f"{SETTINGS}: {found.num_classes} classes, but the criterion has {settings.num_classes}")
    needed = {"class_weights": weighted, "initial_soft_labels": found.initial == _abi.Initial.MATRIX}
    for name, dtype in OPTIONAL.items():
        if needed[name]:
            if name not in given:
                raise RefusedError(f"{name} is missing, but {SETTINGS} says it was used")
            _demand(name, given[name], shapes[name], (dtype,))
            setattr(found, name, given[name].detach().cpu().clone().numpy())
    try:
        _demand_options(found, loaded.epoch)
    except ValueError as error:
        raise RefusedError(f"{SETTINGS}: {error}") from error
    loaded.settings = found
    return loaded


def _demand_options(settings: Settings, epoch: int) -> None:
    """Creates a criterion, so that the library validates the options."""
    shapes = shapes_of(settings.num_classes)
    # An adopted state is not read, so the system does not have to provide this memory.
    arrays = {name: np.empty(shapes[name], np.float32 if dtype is torch.float32 else np.int64) for name, dtype in STATE.items()}
    Core(settings, {name: tensor_of_array(array) for name, array in arrays.items()}, arrays, adopt=True, epoch=epoch).close()


def _read_published(given: dict[str, Any], settings: Settings) -> Loaded:
    classes = settings.num_classes
    floating = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    for name, shape in zip(PUBLISHED, ((classes, classes), (classes, classes), (classes,))):
        _demand(name, given[name], shape, floating)
    supervise, update, idx_count = (given[name].detach().double() for name in PUBLISHED)
    if not bool(torch.isfinite(update).all() and torch.isfinite(idx_count).all() and (update >= 0).all() and (idx_count >= 0).all()):
        raise RefusedError("update and idx_count must be finite and >= 0")
    state = {
        "soft_labels": supervise.t().float(),
        # Summed probabilities in units of 2^-30, rounded half to even as the library rounds them.
        "sums": (update.t() * 2.0**_abi.FRACTION_BITS).round().long(),
        "counts": idx_count.round().long(),
        "counters": torch.zeros(_abi.COUNTERS, dtype=torch.int64),
    }
    _validate(state)
    return Loaded(state)


def shapes_of(classes: int) -> dict[str, tuple[int, ...]]:
    square = (classes, classes)
    return {
        "soft_labels": square, "sums": square, "counts": (classes,), "counters": (_abi.COUNTERS,), "class_weights": (classes,),
        "initial_soft_labels": square,
    }  # fmt: skip


def _demand(name: str, tensor: Any, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise RefusedError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if tuple(tensor.shape) != shape:
        raise RefusedError(f"size mismatch for {name}: the checkpoint's shape is {tuple(tensor.shape)}, the criterion's {shape}")
    if tensor.dtype not in dtypes:
        raise RefusedError(f"{name} has dtype {tensor.dtype}, but {' or '.join(map(str, dtypes))} is needed")


def _validate(state: dict[str, torch.Tensor]) -> None:
    soft_labels = state["soft_labels"]
    if soft_labels.is_meta:
        return
    if not bool(torch.isfinite(soft_labels).all() and (soft_labels >= 0).all()):
        raise RefusedError("soft labels must be finite and >= 0")
    for name in ("sums", "counts", "counters"):
        if bool((state[name] < 0).any()):
            raise RefusedError(f"{name} must be >= 0")
