"""`OnlineLabelSmoothing`, the loss as a module of PyTorch."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Union

import torch
from torch import Tensor

from .. import _abi
from .._core import STATE, Core
from .._report import Report
from .._settings import Settings, name_of
from ..criterion import _DEFAULTS
from . import _checkpoint, _distributed
from ._eager import Loss
from ._eager import apply as apply_loss
from ._engine import NOTHING, Engine, Extras
from ._layout import describe, device_of
from ._operators import TracedLoss, call

if TYPE_CHECKING:
    from typing_extensions import Self

_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
_current_graph_task_id = torch._C._current_graph_task_id
_transforms_active = torch._C._are_functorch_transforms_active
_len_torch_dispatch_stack = torch._C._len_torch_dispatch_stack
# Others, as DTensor or a fake tensor, go through the operators of torch.library.
_PLAIN = (Tensor, torch.nn.Parameter)
Lam = Union[Tensor, float]


class OnlineLabelSmoothing(torch.nn.Module):
    r"""The loss with the soft labels that it learns (C. Zhang et al., "Delving Deep into Label Smoothing", IEEE Transactions on Image Processing
    30, 2021).

    With :math:`p = softmax(z)` and :math:`q = \alpha w_y 1_y + (1-\alpha) w S_y`, the loss of a sample is :math:`-\sum_k q_k \log p_k`. In training mode each
    sample that is classified right adds p to the statistics of its class, whether gradients are computed or not; `next_epoch` makes the soft
    labels S of the next epoch from them. In evaluation mode a call changes nothing.

    Args:
        alpha: weight of the hard label in [0, 1]; the soft label weighs 1 - alpha. 1 is cross entropy, 0 in the first epoch label smoothing.
        n_classes: K, at least 2.
        smoothing: for `init="smoothing"`, in [0, 1]: 1 - smoothing for the class itself, smoothing/(K-1) elsewhere.
        init: soft labels of the first epoch: "smoothing", "uniform", "zero", "one_hot", or a matrix (K, K), a **row** per class.
        empty_class: soft label of a class without `min_count` right samples in an epoch: "keep" its row, "uniform", "initial", "one_hot", "zero".
        min_count: right samples of a class that make it measured, at least 1.
        momentum: share of the old soft label in the new one, in [0, 1).
        freeze_above: a class whose largest soft label is at least this keeps its row for good; None: never. A start of `smoothing=0.1` puts 0.9 on
            the diagonal: 0.88 freezes every class at once.
        weight: class weights (K), finite and >= 0.
        ignore_index: a sample with this target takes no part.
        reduction: "mean" (divides by the sum of the weights of the samples' classes, as `torch.nn.CrossEntropyLoss`; 0 where that is 0), "sum", "none".

    Raises:
        ValueError, TypeError: an option outside of its range, with the library's message.

    State: the buffer `soft_labels` (f32 under every cast), and `sums`, `counts`, `counters` (int64), which are no buffers, so that
    DistributedDataParallel does not overwrite them, but move with the module and are in its state dict.
    """

    soft_labels: Tensor
    sums: Tensor
    counts: Tensor
    counters: Tensor

    def __init__(
        self,
        alpha: float,
        n_classes: int,
        smoothing: float = 0.1,
        *,
        init: Any = "smoothing",
        empty_class: str = "keep",
        min_count: int = 1,
        momentum: float = 0.0,
        freeze_above: Optional[float] = None,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self._settings = Settings(
            n_classes, alpha=alpha, smoothing=smoothing, init=_on_host(init), empty_class=empty_class, min_count=min_count, momentum=momentum,
            freeze_above=freeze_above, weight=_on_host(weight), ignore_index=ignore_index, reduction=reduction,
        )  # fmt: skip
        self._engine: Optional[Engine] = None
        self._epoch = 0
        self._weights: Optional[Tensor] = None
        self._scheduled_alpha: Optional[Tensor] = None
        # The library refuses K < 2 in its words; memory of that size must exist for it.
        shapes = _checkpoint.shapes_of(max(self._settings.num_classes, 1))
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

    @classmethod
    def reference(cls, alpha: float, n_classes: int, **options: Any) -> Self:
        """The options of the published PyTorch package: starts smoothed; a class without a right sample gets zeros, and may never recover."""
        return cls._preset(_abi.Preset.REFERENCE, alpha, n_classes, options)

    @classmethod
    def paper(cls, alpha: float, n_classes: int, **options: Any) -> Self:
        """The options of the authors' released CIFAR code: starts with zeros; a class without a right sample gets 1/K."""
        return cls._preset(_abi.Preset.PAPER, alpha, n_classes, options)

    @classmethod
    def _preset(cls, preset: _abi.Preset, alpha: float, n_classes: int, options: dict[str, Any]) -> Self:
        settings = Settings(2, **_DEFAULTS)
        settings.apply_preset(preset)
        given = {"init": name_of(settings.initial), "smoothing": settings.smoothing, "empty_class": name_of(settings.empty_class)}
        return cls(alpha, n_classes, **{**given, **options})

    # ---- the loss

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        sample_weight: Optional[Tensor] = None,
        target2: Optional[Tensor] = None,
        lam: Optional[Lam] = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, K) or (N, K, d1, ..., dm); f32, f64, bf16 or f16; any strides, read where they lie (what no three strides can walk is copied,
                with a `CopyWarning`).
            target: (N) or (N, d1, ..., dm); int64, int32 or uint8; in [0, K), or the ignore index.
            sample_weight: f32 or f64, the target's shape, finite and >= 0.
            target2: second targets of Mixup and CutMix, as `target`; together with `lam`.
            lam: weight of the first target in [0, 1]: a number, or f32 or f64 of the target's shape.

        Returns:
            f32 (f64 for f64 logits): a scalar, or with `reduction="none"` the target's shape.

        Raises:
            TypeError: a dtype. ValueError: a shape or a value. IndexError: a target. RuntimeError: a device. The state is as before then.
        """
        if _is_compiling() or _len_torch_dispatch_stack() or type(logits) not in _PLAIN:
            return self._traced(logits, target, sample_weight, target2, lam)
        if not isinstance(target, Tensor):
            raise TypeError(f"target is a {type(target).__name__}, not a tensor")
        engine = self._engine
        soft_labels = self._buffers["soft_labels"]
        if engine is None or engine.soft_labels is not soft_labels or engine.pointer != soft_labels.data_ptr():
            engine = self._renewed()
        plain = sample_weight is None and target2 is None and lam is None
        extras = NOTHING if plain else self._extras(logits, sample_weight, target2, lam)
        # A forward within the graph of a backward pass is the recomputation of activation checkpointing: it was counted before.
        flags = 0 if self.training and _current_graph_task_id() == -1 else _abi.BATCH_NO_UPDATE
        if logits.requires_grad and _is_grad_enabled():
            if _transforms_active():
                return Loss.apply(logits, target, engine, extras, flags)  # type: ignore[no-any-return, no-untyped-call]
            return apply_loss(logits, target, engine, extras, flags)  # type: ignore[no-any-return]
        return engine.forward(logits, target, extras, flags, False)[0]

    def _traced(self, logits: Tensor, target: Tensor, sample_weight: Optional[Tensor], target2: Optional[Tensor], lam: Optional[Lam]) -> Tensor:
        """By the operators of torch.library, which torch.compile, torch.export and dispatch modes can see."""
        if not isinstance(logits, Tensor) or not isinstance(target, Tensor):
            raise TypeError(f"logits and target are {type(logits).__name__} and {type(target).__name__}, not tensors")
        extras = self._extras(logits, sample_weight, target2, lam)
        statistics = (self.sums, self.counts, self.counters) if self.training else None
        scheduled = self._scheduled_alpha
        numbers = (self._settings.alpha if scheduled is None else 0.0, self._settings.ignore_index, int(self._settings.reduction))
        if logits.requires_grad and torch.is_grad_enabled():
            return TracedLoss.apply(logits, target, self.soft_labels, statistics, self._weights, extras, scheduled, numbers)  # type: ignore[no-any-return, no-untyped-call]
        return call(logits, target, self.soft_labels, statistics, self._weights, extras, scheduled, numbers, False)[0]

    def loss_and_grad(
        self,
        logits: Tensor,
        target: Tensor,
        sample_weight: Optional[Tensor] = None,
        target2: Optional[Tensor] = None,
        lam: Optional[Lam] = None,
        *,
        grad_loss: Optional[Tensor] = None,
        inplace: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Loss and its gradient with respect to the logits, in one pass and without autograd: hand the gradient on by `logits.backward(gradient)`.

        Args as `forward`, and:
            grad_loss: gradient of the whole with respect to the loss, f32 or f64, a scalar or with `reduction="none"` the target's shape: a loss scale,
                multiplied in before a 16-bit gradient is rounded.
            inplace: the gradient takes the place of the logits; no further memory is used. Nothing else may need the logits then: autograd refuses
                to go back through what saved them, and the batch cannot be retracted.
        """
        engine = self._current_engine()
        _demand_tensors(logits, target)
        extras = self._extras(logits, sample_weight, target2, lam, grad_loss)
        flags = 0 if self.training else _abi.BATCH_NO_UPDATE
        with torch.no_grad():
            if not inplace:
                loss, gradient = engine.forward(logits, target, extras, flags, True)
                assert gradient is not None
                return loss, gradient
            dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
            none = self._settings.reduction == _abi.Reduction.NONE
            loss = torch.empty(target.shape if none else (), dtype=dtype, device=logits.device)
            gradient = logits.detach()
            engine.run_inplace(gradient, target, extras, flags, loss)
            torch.autograd.graph.increment_version(gradient)
            return loss, gradient

    def step(
        self,
        probabilities: Tensor,
        target: Tensor,
        sample_weight: Optional[Tensor] = None,
        target2: Optional[Tensor] = None,
        lam: Optional[Lam] = None,
        *,
        take_back: bool = False,
    ) -> None:
        """Adds to the statistics from given probabilities, in [0, 1], of the shape of logits, in training mode only, as `forward` does by itself; or takes
        them back, in both modes."""
        _demand_tensors(probabilities, target)
        flags = _abi.BATCH_TAKE_BACK if take_back else 0 if self.training else _abi.BATCH_NO_UPDATE
        self._current_engine().accumulate(probabilities, target, self._extras(probabilities, sample_weight, target2, lam), flags)

    def retract(
        self,
        logits: Tensor,
        target: Tensor,
        sample_weight: Optional[Tensor] = None,
        target2: Optional[Tensor] = None,
        lam: Optional[Lam] = None,
    ) -> None:
        """Takes a batch back that was added, exactly: after a step that a GradScaler has skipped, or a second pass over a batch. The arguments must be
        those of the forward. RuntimeError, with nothing changed, where more would be taken back than was added. Works in both modes."""
        _demand_tensors(logits, target)
        self._current_engine().retract(logits, target, self._extras(logits, sample_weight, target2, lam))

    def _extras(
        self,
        logits: Tensor,
        sample_weight: Optional[Tensor],
        target2: Optional[Tensor],
        lam: Optional[Lam],
        grad_loss: Optional[Tensor] = None,
    ) -> Extras:
        if lam is not None and not isinstance(lam, Tensor):
            lam = torch.full((), float(lam), dtype=torch.float64, device=logits.device)
        if sample_weight is None and target2 is None and lam is None and grad_loss is None:
            return NOTHING
        return sample_weight, target2, lam, grad_loss

    # ---- epochs

    def next_epoch(self, *, sync: bool = True, group: Any = None) -> Report:
        """Ends the epoch: makes the soft labels of the next one from the statistics, and clears these.

        With a process group (torch.distributed) of several ranks it is a collective call, and the statistics of all ranks count; `sync=False` leaves
        that out, `group` names another group than the default one. It does not wait for a GPU; the report does, when a number of it is first read.

        Returns:
            What happened: classes measured, samples accumulated and skipped, ...

        Raises:
            RuntimeError: the group cannot reduce tensors of the statistics' device; nothing is changed.
        """
        engine = self._current_engine()
        with torch.inference_mode(False), torch.no_grad():
            if sync and _distributed.several(group):
                _distributed.all_sum((self.sums, self.counts, self.counters), group)
            report = engine.core.next_epoch(engine.stream())
            self._changed()
        return report

    def gather(self, group: Any = None) -> None:
        """Moves the statistics of all ranks to the first rank of the group, for a checkpoint within an epoch: a collective call. The running epoch goes on
        exactly, as `next_epoch` adds the ranks up. Without a process group it does nothing.

        A checkpoint's statistics belong to the rank that saved it: where a process group exists when it is loaded, the other ranks start with none. So
        nothing is counted twice when all ranks load the file of the first one.
        """
        if _distributed.several(group):
            with torch.inference_mode(False), torch.no_grad():
                _distributed.gather_sum((self.sums, self.counts, self.counters), group)

    def reset_parameters(self) -> None:
        """The state of a new criterion: first soft labels, no statistics, epoch 0. After `to_empty`, too."""
        self._drop()
        self._engine = self._new_engine(adopt=False, epoch=0)
        self._mirror()
        self._changed()

    # ---- settings and state, by their names here and in the published package

    @property
    def n_classes(self) -> int:
        """K."""
        return self._settings.num_classes

    @property
    def alpha(self) -> float:
        """Weight of the hard label, in [0, 1]; may be set, for schedules."""
        return self._settings.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        engine = self._current_engine()
        engine.core.set_alpha(alpha)
        engine.generation += 1
        with torch.inference_mode(False), torch.no_grad():
            if self._scheduled_alpha is None:
                self._scheduled_alpha = torch.zeros((), dtype=torch.float64, device="cpu")
            self._mirror()

    @property
    def epoch(self) -> int:
        """Epochs that have ended."""
        return self._epoch if self._engine is None else self._engine.core.epoch

    @property
    def reduction(self) -> str:
        """ "mean", "sum" or "none"."""
        return name_of(self._settings.reduction)

    @property
    def ignore_index(self) -> int:
        """A sample with this target takes no part."""
        return self._settings.ignore_index

    @property
    def supervise(self) -> Tensor:
        """The soft labels with the class in the **column**, f32 (K, K): a view of `soft_labels`."""
        return self.soft_labels.t()

    @property
    def update(self) -> Tensor:
        """The summed probabilities of the running epoch with the class in the **column**, f32 (K, K): computed from the integers `sums`."""
        return (self.sums.t().double() * 2.0**-_abi.FRACTION_BITS).float()

    @property
    def idx_count(self) -> Tensor:
        """Samples of the running epoch that were summed, int64 (K): `counts`."""
        return self.counts

    def set_soft_labels(self, soft_labels: Tensor) -> None:
        """Replaces S by f32 or f64 (K, K), a row per class, finite and >= 0, on the criterion's device."""
        engine = self._current_engine()
        engine.core.set_soft_labels(describe(soft_labels.detach(), "soft_labels"), engine.stream())
        self._changed()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the state to a file that libols reads in every language (safetensors with a checksum), atomically."""
        engine = self._current_engine()
        engine.core.save(path, engine.stream())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replaces state and options that shape the result by what `save` wrote, in any language. On an error nothing has changed."""
        engine = self._current_engine()
        engine.core.load(path, engine.stream())
        self._loaded()

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        engine = self._current_engine()
        return engine.core.save_memory(engine.stream())

    def from_bytes(self, data: bytes) -> None:
        """As `load`."""
        engine = self._current_engine()
        engine.core.load_memory(data, engine.stream())
        self._loaded()

    def extra_repr(self) -> str:
        return self._settings.shown()

    # ---- the library's criterion over the state tensors

    def _current_engine(self) -> Engine:
        engine, soft_labels = self._engine, self.soft_labels
        if engine is None or engine.soft_labels is not soft_labels or engine.pointer != soft_labels.data_ptr():
            engine = self._renewed()
        return engine

    def _renewed(self) -> Engine:
        """A new one, for tensors that were moved or replaced."""
        self._drop()
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


def _on_host(values: Any) -> Any:
    return values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values


def _demand_tensors(*tensors: Any) -> None:
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{type(tensor).__name__} is no tensor")
