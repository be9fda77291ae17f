"""The state of the module: tensors that PyTorch moves, copies, saves and loads, and the library's criterion over them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._core import STATE, Core
from .._settings import Settings
from . import _checkpoint, _distributed
from ._engine import Engine
from ._layout import describe, device_of

if TYPE_CHECKING:
    from typing_extensions import Self


# Two criteria of the library's over the same tensors would not wait for each other.
_RENEWAL = threading.Lock()


class Stateful(torch.nn.Module):
    """S is a buffer; sums, counts and counters are none, so that nobody broadcasts them, but go wherever S goes and are in the state dict.

    The library's criterion is made when it is first needed, and again for tensors that were moved or replaced; what it knows beside the tensors, the
    epoch's number, is kept here meanwhile.
    """

    soft_labels: Tensor
    sums: Tensor
    counts: Tensor
    counters: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._engine: Engine | None = None
        self._epoch = 0
        # Options that the operators take as tensors on the host: class weights f64 (K); alpha f64, once it was set.
        self._weights: Tensor | None = None
        self._scheduled_alpha: Tensor | None = None
        # The library refuses K < 2 in its words; memory of that size must exist for it.
        shapes = _checkpoint.shapes_of(max(settings.num_classes, 1))
        # Tensors made in inference mode could not be changed outside of it.
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
        """The state of a new criterion: first soft labels, no statistics, epoch 0. After `to_empty`, too."""
        self._drop()
        self._engine = self._new_engine(adopt=False, epoch=0)
        self._mirror()
        self._changed()

    @property
    def epoch(self) -> int:
        """Epochs that have ended."""
        return self._epoch if self._engine is None else self._engine.core.epoch

    def _current_engine(self) -> Engine:
        engine, soft_labels = self._engine, self._buffers["soft_labels"]
        if engine is None or soft_labels is None or engine.soft_labels is not soft_labels or engine.pointer != soft_labels.data_ptr():
            engine = self._renewed()
        return engine

    def _renewed(self) -> Engine:
        """A new one, for tensors that were moved or replaced."""
        with _RENEWAL:
            engine, soft_labels = self._engine, self.soft_labels
            if engine is not None and engine.soft_labels is soft_labels and engine.pointer == soft_labels.data_ptr():
                return engine  # another thread was here first
            self._drop()
            # FullyShardedDataParallel moves the buffers that it finds, without asking the module.
            for name in ("sums", "counts", "counters"):
                setattr(self, name, getattr(self, name).to(soft_labels.device))
            self._engine = self._new_engine(adopt=True, epoch=self._epoch)
            return self._engine

    def _new_engine(self, adopt: bool, epoch: int) -> Engine:
        state = {name: getattr(self, name) for name in STATE}
        memory = {name: describe(tensor, name) for name, tensor in state.items()}
        device = device_of(self.soft_labels, "soft_labels")
        core = Core(self._settings, memory, state, device=device, adopt=adopt, epoch=epoch, default_threads=torch.get_num_threads)
        return Engine(core, self.soft_labels)

    def _drop(self) -> None:
        """Lets the library's criterion go; the state stays in the tensors, the epoch's number here."""
        engine = self._engine
        if engine is not None:
            engine.core.settle()
            self._epoch, self._engine = engine.core.epoch, None
            engine.generation += 1

    def _changed(self) -> None:
        """The library has written S: autograd is told, so that a saved S is not used for what it no longer is."""
        torch.autograd.graph.increment_version(self.soft_labels)
        if self._engine is not None:
            self._engine.generation += 1

    def _loaded(self) -> None:
        self._mirror()
        self._changed()

    def _mirror(self) -> None:
        """Puts the options that the operators take as tensors to what the settings say."""
        self._weights = None if self._settings.class_weights is None else torch.from_numpy(self._settings.class_weights)
        if self._scheduled_alpha is not None:
            self._scheduled_alpha.fill_(self._settings.alpha)

    # ---- PyTorch's machinery

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._drop()
        soft_labels = self._buffers.pop("soft_labels")
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            assert soft_labels is not None
            # Seen as integers, S is moved and shared by what moves and shares, and left alone by what casts.
            moved = _moved(fn, soft_labels.view(torch.int32))
            statistics = {name: _moved(fn, getattr(self, name)) for name in ("sums", "counts", "counters")}
        finally:
            self._buffers["soft_labels"] = soft_labels
        if moved.data_ptr() != soft_labels.data_ptr() or moved.device != soft_labels.device:
            self._buffers["soft_labels"] = moved.view(torch.float32)
        for name, tensor in statistics.items():
            setattr(self, name, tensor)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("sums", "counts", "counters"):
            destination[prefix + name] = getattr(self, name)
        destination[prefix + _checkpoint.SETTINGS] = _checkpoint.settings_tensor(self._settings, self.epoch, _distributed.rank())
        for name, tensor in _checkpoint.optional_tensors(self._settings).items():
            destination[prefix + name] = tensor

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: Any, unexpected_keys: Any, error_msgs: Any
    ) -> None:
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        published = any(name in given for name in _checkpoint.PUBLISHED)
        needed = _checkpoint.PUBLISHED if published else (*_checkpoint.STATE, _checkpoint.SETTINGS)
        known = {*needed, *(() if published else _checkpoint.OPTIONAL)}
        missing = [prefix + name for name in needed if name not in given]
        missing_keys.extend(missing if strict else [])
        unexpected = [prefix + name for name in given if name not in known]
        unexpected_keys.extend(unexpected if strict else [])
        # Of this module all is loaded or nothing. Whether others' loading is strict is not told here (`strict` is always true).
        if missing or (unexpected and self.__dict__.get("_strictly", False)):
            return
        # A checkpoint without values can only become a criterion without values, as PyTorch's deferred initialisation makes them.
        empty = [name for name in needed if isinstance(given[name], Tensor) and given[name].is_meta]
        if empty and (published or not self.soft_labels.is_meta):
            error_msgs.append(f"{prefix}{empty[0]} is on the meta device, which holds no values")
            return
        try:
            loaded = _checkpoint.read(given, self._settings)
        except _checkpoint.RefusedError as refused:
            error_msgs.append(f"{prefix}{refused}")
            return
        self._take(loaded, bool(local_metadata.get("assign_to_params_buffers", False)))

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        self.__dict__["_strictly"] = strict
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            del self.__dict__["_strictly"]

    def _take(self, loaded: _checkpoint.Loaded, assign: bool) -> None:
        # A state that another rank has saved is counted there.
        elsewhere = loaded.rank is not None and _distributed.several() and loaded.rank != _distributed.rank()
        self._drop()
        with torch.inference_mode(False), torch.no_grad():
            for name, value in loaded.state.items():
                own = getattr(self, name)
                if assign:
                    own = torch.empty_like(own, device=value.device)
                    setattr(self, name, own)
                own.copy_(torch.zeros_like(own) if elsewhere and name != "soft_labels" else value)
            if loaded.settings is not None and loaded.epoch is not None:
                self._settings, self._epoch = loaded.settings, loaded.epoch
            self._mirror()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None, "_epoch": self.epoch}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))  # type: ignore[no-untyped-call]
        return other


def _moved(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """What `fn` does to a tensor of integers, but for a change of its dtype (`module.type(dtype)` asks for that)."""
    result = fn(tensor)
    return result if result.dtype == tensor.dtype else tensor.to(result.device)
