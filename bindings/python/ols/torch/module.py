"""`OnlineLabelSmoothing`: the loss as a PyTorch module."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _abi
from .._report import Report
from .._settings import EmptyClassName, ReductionName, Settings, name_of, number
from ..criterion import _DEFAULTS
from . import _distributed
from ._eager import apply as apply_loss
from ._engine import NOTHING, Extras
from ._layout import describe
from ._operators import TracedLoss, call
from ._private import current_graph_task_id, has_tangent, len_torch_dispatch_stack, refusing_traces, transforms_active
from ._state import Stateful

if TYPE_CHECKING:
    from typing_extensions import Self

_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
# Other types, such as DTensor and fake tensors, go through the operators of torch.library.
_PLAIN = (Tensor, torch.nn.Parameter)
Lam = Tensor | float
_NO_TANGENTS = "logits have a tangent, but this loss has no forward-mode differentiation"
_NO_TRANSFORMS = "torch.func transforms are not supported: use autograd"


@refusing_traces
class OnlineLabelSmoothing(Stateful):
    r"""A loss that learns its own soft labels (C. Zhang et al., "Delving Deep into Label Smoothing", IEEE Transactions on Image Processing
    30, 2021).

    With :math:`p = softmax(z)` and :math:`q = \alpha w_y 1_y + (1-\alpha) w S_y`, the loss of a sample is :math:`-\sum_k q_k \log p_k`. In training mode
    every correctly classified sample adds p to the statistics of its class, whether or not gradients are computed; `next_epoch` turns the statistics
    into the soft labels S of the next epoch. In evaluation mode a call changes nothing.

    Args:
        alpha: weight of the hard label in [0, 1]; the soft label weighs 1 - alpha. 1 is cross entropy; 0 is label smoothing in the first epoch.
        n_classes: K, at least 2.
        smoothing: for `init="smoothing"`, in [0, 1]: 1 - smoothing for the class itself, smoothing/(K-1) elsewhere.
        init: soft labels of the first epoch: "smoothing", "uniform", "zero", "one_hot", or a matrix (K, K), a **row** per class.
        empty_class: new soft label of a class with fewer than `min_count` correctly classified samples: "keep" (its row), "uniform", "initial",
            "one_hot", "zero".
        min_count: correctly classified samples a class needs to get a new soft label, at least 1.
        momentum: share of the old soft label in the new one, in [0, 1).
        freeze_above: a class whose largest soft label reaches this keeps its row for good; None: never. With `smoothing=0.1` the diagonal starts at
            0.9, so 0.88 would freeze every class at once.
        weight: class weights (K), finite and >= 0.
        ignore_index: samples with this target are ignored.
        reduction: "mean" (divides by the sum of the weights of the samples' classes, like `torch.nn.CrossEntropyLoss`; 0 if that sum is 0), "sum", "none".

    Raises:
        ValueError, TypeError: an option is out of range; the message is the library's.

    The state is the buffer `soft_labels` (which stays f32 under every cast), and `sums`, `counts` and `counters` (int64). Those are not buffers, so that
    DistributedDataParallel does not overwrite them, but they move with the module and are in its state dict. They can be written, or replaced by
    assignment. Calling a replica made by `torch.nn.DataParallel` is an error.
    """

    def __init__(
        self,
        alpha: float,
        n_classes: int,
        smoothing: float = 0.1,
        *,
        init: Any = "smoothing",
        empty_class: EmptyClassName = "keep",
        min_count: int = 1,
        momentum: float = 0.0,
        freeze_above: float | None = None,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: ReductionName = "mean",
    ) -> None:
        settings = Settings(
            n_classes, alpha=alpha, smoothing=smoothing, init=_on_host(init), empty_class=empty_class, min_count=min_count, momentum=momentum,
            freeze_above=freeze_above, weight=_on_host(weight), ignore_index=ignore_index, reduction=reduction,
        )  # fmt: skip
        super().__init__(settings)

    @classmethod
    def reference(cls, alpha: float, n_classes: int, **options: Any) -> Self:
        """The options of the published PyTorch package: it starts smoothed; a class without a correctly classified sample gets zeros."""
        return cls._preset(_abi.Preset.REFERENCE, alpha, n_classes, options)

    @classmethod
    def paper(cls, alpha: float, n_classes: int, **options: Any) -> Self:
        """The options of the authors' released CIFAR code: it starts with zeros; a class without a correctly classified sample gets 1/K."""
        return cls._preset(_abi.Preset.PAPER, alpha, n_classes, options)

    @classmethod
    def _preset(cls, preset: _abi.Preset, alpha: float, n_classes: int, options: dict[str, Any]) -> Self:
        settings = Settings(2, **_DEFAULTS)
        settings.apply_preset(preset)
        given = {"init": name_of(settings.initial), "smoothing": settings.smoothing, "empty_class": name_of(settings.empty_class)}
        return cls(alpha, n_classes, **{**given, **options})

    # ---- the loss

    def forward(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None, target2: Tensor | None = None, lam: Lam | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, K) or (N, K, d1, ..., dm); f32, f64, bf16 or f16; any strides, read in place (memory that three strides cannot describe is
                copied, with a `CopyWarning`).
            target: (N) or (N, d1, ..., dm); int64, int32 or uint8; in [0, K), or the ignore index.
            sample_weight: f32 or f64, shaped like the target, finite and >= 0.
            target2: second targets of Mixup and CutMix, like `target`; requires `lam`.
            lam: weight of the first target in [0, 1]: a number, or f32 or f64 shaped like the target.

        The loss is differentiable with respect to the logits only.

        Returns:
            f32 (f64 for f64 logits): a scalar, or with `reduction="none"` shaped like the target.

        Raises:
            TypeError: wrong dtype. ValueError: wrong shape or value. IndexError: target out of range. RuntimeError: wrong device, a `sample_weight` or `lam`
            that requires a gradient, a transform of torch.func, torch.jit.trace. The state is unchanged.
        """
        if _is_compiling() or len_torch_dispatch_stack() or type(logits) not in _PLAIN:
            return self._traced(logits, target, sample_weight, target2, lam)
        if not isinstance(target, Tensor):
            raise TypeError(f"target must be a tensor, not {type(target).__name__}")
        if has_tangent(logits):
            raise RuntimeError(_NO_TANGENTS)
        engine = self._engine
        if engine is None or not self._is_current(engine):
            engine = self._renewed()
        plain = sample_weight is None and target2 is None and lam is None
        extras = NOTHING if plain else self._extras(logits, sample_weight, target2, lam)
        # A forward within a backward pass is the recomputation of activation checkpointing, which was counted before.
        flags = 0 if self.training and current_graph_task_id() == -1 else _abi.BATCH_NO_UPDATE
        if logits.requires_grad and _is_grad_enabled():
            if transforms_active():
                raise RuntimeError(_NO_TRANSFORMS)
            return apply_loss(logits, (target, engine, extras, flags))  # type: ignore[no-any-return]
        try:
            return engine.forward(logits, target, extras, flags, False)[0]
        except RuntimeError as error:
            _demand_no_transform(error)
            raise

    def _traced(self, logits: Tensor, target: Tensor, sample_weight: Tensor | None, target2: Tensor | None, lam: Lam | None) -> Tensor:
        """The loss by the operators of torch.library, which torch.compile, torch.export and dispatch modes can see."""
        _demand_tensors(logits=logits, target=target)
        if not _is_compiling() and has_tangent(logits):
            raise RuntimeError(_NO_TANGENTS)
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
        sample_weight: Tensor | None = None,
        target2: Tensor | None = None,
        lam: Lam | None = None,
        *,
        grad_loss: Tensor | None = None,
        inplace: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The loss and its gradient with respect to the logits, in one pass and without autograd; continue with `logits.backward(gradient)`.

        Args: those of `forward`, and
            grad_loss: gradient of the objective with respect to the loss (a loss scale), f32 or f64, a scalar or with `reduction="none"` shaped like the
                target. It is multiplied in before a 16-bit gradient is rounded.
            inplace: write the gradient over the logits, without allocating memory. The logits must not be needed elsewhere: autograd refuses to go
                back through operations that saved them, and the batch cannot be taken back.
        """
        engine = self._current_engine()
        _demand_tensors(logits=logits, target=target)
        extras = self._extras(logits, sample_weight, target2, lam, grad_loss)
        flags = 0 if self.training else _abi.BATCH_NO_UPDATE
        try:
            if not inplace:
                loss, gradient = engine.forward(logits, target, extras, flags, True)
                assert gradient is not None
                return loss, gradient
            dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
            loss = torch.empty(target.shape if engine.each else (), dtype=dtype, device=logits.device)
            gradient = logits.detach()
            engine.run_inplace(gradient, target, extras, flags, loss)
        except RuntimeError as error:
            _demand_no_transform(error)
            raise
        torch.autograd.graph.increment_version(gradient)
        return loss, gradient

    def step(
        self,
        probabilities: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        target2: Tensor | None = None,
        lam: Lam | None = None,
        *,
        take_back: bool = False,
    ) -> None:
        """Adds probabilities in [0, 1], shaped like logits, to the statistics, in training mode only, as `forward` does by itself; or takes them back, in
        either mode."""
        _demand_tensors(probabilities=probabilities, target=target)
        flags = _abi.BATCH_TAKE_BACK if take_back else 0 if self.training else _abi.BATCH_NO_UPDATE
        extras = self._extras(probabilities, sample_weight, target2, lam, differentiable=False)
        try:
            self._current_engine().accumulate(probabilities, target, extras, flags)
        except RuntimeError as error:
            _demand_no_transform(error)
            raise

    def take_back(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None, target2: Tensor | None = None, lam: Lam | None = None
    ) -> None:
        """Undoes exactly what a forward added for this batch, after a step that a GradScaler skipped or a second pass over a batch. Pass the same arguments.
        RuntimeError, with nothing changed, if more would be taken back than was added. Works in either mode."""
        _demand_tensors(logits=logits, target=target)
        extras = self._extras(logits, sample_weight, target2, lam, differentiable=False)
        try:
            self._current_engine().take_back(logits, target, extras)
        except RuntimeError as error:
            _demand_no_transform(error)
            raise

    retract = take_back

    def _extras(
        self, logits: Tensor, sample_weight: Tensor | None, target2: Tensor | None, lam: Lam | None, grad_loss: Tensor | None = None,
        differentiable: bool = True,
    ) -> Extras:  # fmt: skip
        if sample_weight is None and target2 is None and lam is None and grad_loss is None:
            return NOTHING
        if lam is not None and not isinstance(lam, Tensor):
            if _is_compiling() and isinstance(lam, (int, float)):
                # A fill value is a constant of the graph, and every new number would recompile it; a factor is an input.
                lam = torch.ones((), dtype=torch.float64, device=logits.device) * lam
            else:
                try:
                    lam = torch.full((), number("lam", lam), dtype=torch.float64, device=logits.device)
                except TypeError as error:
                    raise TypeError(f"lam must be a number or a tensor, not {type(lam).__name__}") from error
        for name, value in (("sample_weight", sample_weight), ("target2", target2), ("lam", lam), ("grad_loss", grad_loss)):
            if value is None:
                continue
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be a tensor, not {type(value).__name__}")
            if differentiable and value.requires_grad and _is_grad_enabled():
                raise RuntimeError(
                    f"{name} requires a gradient, but the loss is differentiable with respect to the logits only: detach it, or weight the losses of "
                    'reduction="none" with it'
                )
        return sample_weight, target2, lam, grad_loss

    # ---- epochs

    def next_epoch(self, *, sync: bool = True, group: Any = None) -> Report:
        """Ends the epoch: computes the soft labels of the next one from the statistics, and clears them.

        With a process group (torch.distributed) of several ranks it is a collective call, and the statistics of all ranks count. `sync=False` skips that;
        `group` is the group to use instead of the default one. It does not wait for a GPU; the report does, when it is first read.

        Returns:
            What happened: classes measured, samples accumulated and skipped, ...

        Raises:
            RuntimeError: the group cannot reduce tensors on the statistics' device, or this process is not in it. Nothing is changed.
        """
        engine = self._current_engine()
        with torch.inference_mode(False), torch.no_grad():
            if sync and _distributed.several(group):
                _distributed.all_sum((self.sums, self.counts, self.counters), group)
            report = engine.core.next_epoch(engine.stream())
            self._gathered = None
            self._changed()
        return report

    def gather(self, group: Any = None) -> None:
        """Moves the statistics of all ranks to the first rank of the group, for a checkpoint within an epoch. It is a collective call. The running epoch
        continues exactly, as `next_epoch` adds up the ranks. Without a process group it does nothing.

        Afterwards the state dicts of all ranks contain the first rank's statistics, until a rank counts again, because a distributed checkpoint may keep
        any rank's copy. Take the state dicts after this call. The other ranks' own statistics are 0, which is what `save` and `to_bytes` write.

        The statistics in a checkpoint belong to the rank that had them: if a process group exists when it is loaded, the other ranks start with none.
        So nothing is counted twice when all ranks load the state of the first one.

        Raises:
            RuntimeError: see `next_epoch`.
        """
        if _distributed.several(group):
            with torch.inference_mode(False), torch.no_grad():
                self._gathered = _distributed.gather_sum((self.sums, self.counts, self.counters), group)

    # ---- settings and state, under their names here and in the published package

    @property
    def n_classes(self) -> int:
        """K."""
        return self._settings.num_classes

    @property
    def alpha(self) -> float:
        """Weight of the hard label, in [0, 1]. It can be set, for schedules."""
        return self._settings.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        engine = self._current_engine()
        engine.core.set_alpha(alpha)
        engine.generation += 1
        with torch.inference_mode(False), torch.no_grad():
            if self._scheduled_alpha is None:
                # Not a scalar: PyTorch 2.13 loses what a compiled function writes into a scalar f64 tensor.
                self._scheduled_alpha = torch.zeros(1, dtype=torch.float64, device="cpu")
            self._mirror()

    @property
    def reduction(self) -> str:
        """ "mean", "sum" or "none"."""
        return name_of(self._settings.reduction)

    @property
    def ignore_index(self) -> int:
        """The target of samples that are ignored."""
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
        """Number of samples in the sums of the running epoch, int64 (K): `counts`."""
        return self.counts

    def set_soft_labels(self, soft_labels: Tensor) -> None:
        """Replaces S with f32 or f64 (K, K), a row per class, finite and >= 0, on the criterion's device."""
        _demand_tensors(soft_labels=soft_labels)
        engine = self._current_engine()
        engine.core.set_soft_labels(describe(soft_labels.detach(), "soft_labels"), engine.stream())
        self._changed()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the state, atomically, to a file that libols can read in every language (safetensors with a checksum)."""
        engine = self._current_engine()
        engine.core.save(path, engine.stream())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Loads the state and the options that affect the result from a file saved in any language. On an error nothing changes."""
        engine = self._current_engine()
        engine.core.load(path, engine.stream())
        self._loaded()

    def to_bytes(self) -> bytes:
        """The bytes that `save` would write."""
        engine = self._current_engine()
        return engine.core.save_memory(engine.stream())

    def load_bytes(self, data: bytes) -> None:
        """Loads the bytes returned by `to_bytes`, as `load` does."""
        engine = self._current_engine()
        engine.core.load_memory(data, engine.stream())
        self._loaded()

    def extra_repr(self) -> str:
        return self._settings.shown()


def _on_host(values: Any) -> Any:
    return values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values


def _demand_tensors(**tensors: Any) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")


def _demand_no_transform(error: RuntimeError) -> None:
    """Explains a call that has failed: tensors that a transform has batched have no memory to read. Those that it has not are none of its business."""
    if transforms_active():
        raise RuntimeError(_NO_TRANSFORMS) from error
