"""The state of the module: tensors that PyTorch moves, copies, saves and loads, and the library's criterion that uses them."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._core import STATE, Core
from .._settings import Settings
from . import _checkpoint, _distributed
from ._engine import Engine
from ._layout import describe, device_of
from ._private import assigns

if TYPE_CHECKING:
    from typing_extensions import Self


_STATISTICS = ("sums", "counts", "counters")
# Two criteria of the library with the same tensors would not wait for each other.
_RENEWAL = threading.Lock()


class Stateful(torch.nn.Module):
    """S is a buffer. The statistics are not, so that they are not broadcast, but they move with S and are in the state dict.

    The library's criterion is created when it is first needed, and again after tensors were moved or replaced. The only other state, the epoch, is
    kept here in the meantime.
    """

    soft_labels: Tensor
    sums: Tensor
    counts: Tensor
    counters: Tensor
    # Whether torch.nn.DataParallel has made this module, for one call.
    _replica = False
    # After `gather`, on the ranks whose statistics it has moved: the totals, and the rank that has them.
    _gathered: tuple[tuple[Tensor, ...], int] | None = None

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._engine: Engine | None = None
        self._epoch = 0
        # Options that the operators take as tensors on the host: class weights f64 (K); alpha f64, once it has been set.
        self._weights: Tensor | None = None
        self._scheduled_alpha: Tensor | None = None
        # The library rejects other numbers of classes itself; the memory must exist for that.
        shapes = _checkpoint.shapes_of(settings.num_classes if 2 <= settings.num_classes < 2**31 else 1)
        # Tensors created in inference mode could not be modified outside of it.
        with torch.inference_mode(False), torch.no_grad():
            for name, dtype in _checkpoint.STATE.items():
                tensor = torch.zeros(shapes[name], dtype=dtype)
                if name == "soft_labels":
                    self.register_buffer(name, tensor)
                else:
                    setattr(self, name, tensor)
            if self.soft_labels.is_meta:
                self._settings.options()
            else:
                self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets to the state of a new criterion: initial soft labels, no statistics, epoch 0. Also needed after `to_empty`."""
        self._drop()
        self._gathered = None
        self._engine = self._new_engine(adopt=False, epoch=0)
        self._mirror()
        self._changed()

    @property
    def epoch(self) -> int:
        """Number of epochs that have ended."""
        engine = self._engine
        return self._epoch if engine is None else engine.core.epoch

    # PyTorch's functions for distributed state dicts expect an attribute for each key.

    @property
    def settings(self) -> Tensor:
        """The options that affect the result, and the epoch, as in the state dict: JSON in uint8."""
        return _checkpoint.settings_tensor(self._settings, self.epoch, self._to_save()[1])

    @property
    def class_weights(self) -> Tensor | None:
        """The class weights, f64 (K) on the host: a copy."""
        return _checkpoint.optional_tensors(self._settings).get("class_weights")

    @property
    def initial_soft_labels(self) -> Tensor | None:
        """The matrix that was passed as `init`, f32 (K, K) on the host: a copy."""
        return _checkpoint.optional_tensors(self._settings).get("initial_soft_labels")

    def _to_save(self) -> tuple[tuple[Tensor, ...], int]:
        """The statistics for a state dict, and the rank that they belong to. A distributed checkpoint keeps one copy of what all ranks save, from any rank.
        So after `gather` all of them save the total, until they count again."""
        own = (self.sums, self.counts, self.counters)
        if self._gathered is not None and not any(bool(tensor.any()) for tensor in own):
            return self._gathered
        self._gathered = None
        return own, _distributed.rank()

    def _current_engine(self) -> Engine:
        engine = self._engine
        return engine if engine is not None and self._is_current(engine) else self._renewed()

    def _is_current(self, engine: Engine) -> bool:
        """Whether the engine has the state's tensors and memory."""
        soft_labels = self._buffers["soft_labels"]
        return (
            engine.soft_labels is soft_labels
            and soft_labels is not None
            and engine.addresses == (soft_labels.data_ptr(), self.sums.data_ptr(), self.counts.data_ptr(), self.counters.data_ptr())
        )

    def _renewed(self) -> Engine:
        """A new engine, after tensors were moved or replaced."""
        if self._replica:
            raise RuntimeError(
                "a replica of torch.nn.DataParallel cannot count, because it is discarded after each call; use DistributedDataParallel, with a process "
                "per device, or call the criterion outside of the wrapped model"
            )
        with _RENEWAL:
            engine, soft_labels = self._engine, self.soft_labels
            if engine is not None and self._is_current(engine):
                return engine  # another thread was here first
            self._drop()
            # FullyShardedDataParallel moves buffers without calling the module.
            for name in _STATISTICS:
                self.__dict__[name] = getattr(self, name).to(soft_labels.device)
            self._engine = self._new_engine(adopt=True, epoch=self._epoch)
            return self._engine

    def _new_engine(self, adopt: bool, epoch: int) -> Engine:
        state = {name: getattr(self, name) for name in STATE}
        memory = {name: describe(tensor, name) for name, tensor in state.items()}
        device = device_of(self.soft_labels, "soft_labels")
        core = Core(self._settings, memory, state, device=device, adopt=adopt, epoch=epoch, default_threads=torch.get_num_threads)
        return Engine(core, *state.values())

    def _drop(self) -> None:
        """Releases the library's criterion; the state stays in the tensors, the epoch here."""
        engine = self._engine
        if engine is not None:
            with engine.core.lock:
                engine.core.settle()
            self._epoch, self._engine = engine.core.epoch, None
            engine.generation += 1

    def _changed(self) -> None:
        """Tells autograd that the library has written S, so that an S saved for backward is not used with other values."""
        torch.autograd.graph.increment_version(self.soft_labels)
        if self._engine is not None:
            self._engine.generation += 1

    def _loaded(self) -> None:
        self._gathered = None
        self._mirror()
        self._changed()

    def _mirror(self) -> None:
        """Updates the options that the operators take as tensors."""
        self._weights = None if self._settings.class_weights is None else torch.from_numpy(self._settings.class_weights)
        if self._scheduled_alpha is not None:
            self._scheduled_alpha.fill_(self._settings.alpha)

    # ---- PyTorch's machinery

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        soft_labels = self.soft_labels
        before = {name: (tensor, tensor.data_ptr()) for name in STATE for tensor in (getattr(self, name),)}
        if (engine := self._engine) is not None:
            with engine.core.lock:
                engine.core.settle()

        def moved(tensor: Tensor) -> Tensor:
            if tensor is not soft_labels:
                return fn(tensor)
            # Viewed as integers, S is moved and shared by functions that move and share, and left alone by casts.
            result = _moved(fn, soft_labels.view(torch.int32))
            same = result.data_ptr() == soft_labels.data_ptr() and result.device == soft_labels.device
            return soft_labels if same else result.view(torch.float32)

        try:
            statistics = {name: _moved(fn, getattr(self, name)) for name in _STATISTICS}
            super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
            self.__dict__.update(statistics)
        finally:
            # After a cast nothing has moved, and other threads may be in a call.
            if any(getattr(self, name) is not tensor or tensor.data_ptr() != address for name, (tensor, address) in before.items()):
                self._drop()
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "soft_labels" and isinstance(value, torch.nn.Parameter):
            raise TypeError("soft_labels must be a tensor, not Parameter: it is a buffer")
        if name in _STATISTICS and value is not self.__dict__.get(name, value):
            shape = _checkpoint.shapes_of(self._settings.num_classes)[name]
            needed = f"a tensor of dtype torch.int64 and shape {shape}"
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be {needed}, not {type(value).__name__}")
            if value.dtype != torch.int64 or tuple(value.shape) != shape:
                raise ValueError(f"{name} must be {needed}, but has dtype {value.dtype} and shape {tuple(value.shape)}")
            super().__setattr__(name, value)
            self._gathered = None
            self._drop()
        else:
            super().__setattr__(name, value)

    def _replicate_for_data_parallel(self) -> Self:
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        # With the original's engine it would count on another device. Without one, its calls are refused.
        replica._epoch, replica._engine, replica._replica = self.epoch, None, True
        return replica

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        statistics, rank = self._to_save()
        destination.update((prefix + name, tensor) for name, tensor in zip(_STATISTICS, statistics))
        destination[prefix + _checkpoint.SETTINGS] = _checkpoint.settings_tensor(self._settings, self.epoch, rank)
        for name, tensor in _checkpoint.optional_tensors(self._settings).items():
            destination[prefix + name] = tensor

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: Any, unexpected_keys: Any, error_msgs: Any
    ) -> None:
        # What a subclass has added, and hooks, are left to PyTorch, which must not touch S.
        elsewhere: list[str] = []
        self._non_persistent_buffers_set.add("soft_labels")
        try:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, elsewhere, error_msgs)
        finally:
            self._non_persistent_buffers_set.discard("soft_labels")
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        published = any(name in given for name in _checkpoint.PUBLISHED)
        needed = _checkpoint.PUBLISHED if published else (*_checkpoint.STATE, _checkpoint.SETTINGS)
        known = {*needed, *(() if published else _checkpoint.OPTIONAL)}
        missing = [prefix + name for name in needed if name not in given]
        missing_keys.extend(missing if strict else [])
        unexpected = [key for key in elsewhere if key[len(prefix) :] not in known]
        unexpected_keys.extend(unexpected if strict else [])
        # This module loads everything or nothing. Whether the load is strict is not passed on to submodules (`strict` is always true).
        if missing or (unexpected and self.__dict__.get("_strictly", False)):
            return
        # A checkpoint without values can only be loaded into a criterion without values, as PyTorch's deferred initialisation makes them.
        empty = [name for name in needed if isinstance(given[name], Tensor) and given[name].is_meta]
        if empty and (published or not self.soft_labels.is_meta):
            error_msgs.append(f"{prefix}{empty[0]} is on the meta device, which has no values")
            return
        try:
            loaded = _checkpoint.read(given, self._settings)
        except _checkpoint.RefusedError as refused:
            error_msgs.append(f"{prefix}{refused}")
            return
        self._take(loaded, assigns(local_metadata))

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        self.__dict__["_strictly"] = strict
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            del self.__dict__["_strictly"]

    def _take(self, loaded: _checkpoint.Loaded, assign: bool) -> None:
        # The statistics of another rank's state count there.
        elsewhere = loaded.rank is not None and _distributed.several() and loaded.rank != _distributed.rank()
        self._drop()
        self._gathered = None
        if self.soft_labels.is_meta and not assign and not loaded.state["soft_labels"].is_meta:
            warnings.warn("a state with values is loaded into a criterion on the meta device, which has none: pass assign=True", stacklevel=2)
        with torch.inference_mode(False), torch.no_grad():
            for name, value in loaded.state.items():
                own = getattr(self, name)
                if assign:
                    own = torch.empty_like(own, device=value.device)
                    (self._buffers if name == "soft_labels" else self.__dict__)[name] = own
                own.copy_(torch.zeros_like(own) if elsewhere and name != "soft_labels" else value)
            if loaded.settings is not None and loaded.epoch is not None:
                self._settings, self._epoch = loaded.settings, loaded.epoch
            self._mirror()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None, "_epoch": self.epoch}

    def __copy__(self) -> Self:
        # With the same tensors, two criteria would count into the same statistics, each with an epoch and an alpha of its own.
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        # Copies created in inference mode could not be modified outside of it.
        with torch.inference_mode(False):
            other.__setstate__(copy.deepcopy(self.__getstate__(), memo))  # type: ignore[no-untyped-call]
        return other


def _moved(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Applies `fn` to a tensor of integers, but keeps the dtype, which `module.type(dtype)` would change."""
    result = fn(tensor)
    return result if result.dtype == tensor.dtype else tensor.to(result.device)
