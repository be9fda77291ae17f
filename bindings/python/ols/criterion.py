"""The criterion without PyTorch: for NumPy, JAX, CuPy and everything else that exports its memory through `__dlpack__`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _abi, _calls
from ._arrays import look, view
from ._calls import Calls
from ._core import Core
from ._errors import InvalidStateError
from ._memory import tensor_of_array
from ._report import Report
from ._settings import EmptyClassName, ReductionName, Settings, int64, name_of, stream_number

if TYPE_CHECKING:
    from typing_extensions import Self


class Criterion:
    """A loss that learns its own soft labels, for NumPy arrays or anything with `__dlpack__` (C. Zhang et al., "Delving Deep into
    Label Smoothing", IEEE Transactions on Image Processing 30, 2021).

    Logits are (N, K), or (N, K, d1, ..., dm) as images have them, in f32, f64, f16 or bf16 (ml_dtypes'); targets (N) or (N, d1, ..., dm) in int64,
    int32 or uint8. They are read in place, whatever their strides; memory that three strides cannot describe is copied, with a `CopyWarning`.

    Args:
        n_classes: K, at least 2.
        alpha: weight of the hard label in [0, 1]; the soft label weighs 1 - alpha.
        smoothing: for `init="smoothing"`, in [0, 1].
        init: soft labels of the first epoch: "smoothing", "uniform", "zero", "one_hot", or a matrix (K, K), a row per class.
        empty_class: new soft label of a class with fewer than `min_count` correctly classified samples: "keep", "uniform", "initial", "one_hot", "zero".
        min_count: correctly classified samples a class needs to get a new soft label, at least 1.
        momentum: share of the old soft label in the new one, in [0, 1).
        freeze_above: a class whose largest soft label reaches this keeps its row for good; None: never. With `smoothing=0.1` the diagonal starts at
            0.9, so 0.88 would freeze every class at once.
        weight: class weights (K), finite and >= 0.
        ignore_index: samples with this target are ignored.
        reduction: "mean" (divides by the sum of the weights of the samples' classes, as PyTorch does), "sum" or "none".
        device: "cpu" or ("cuda", number).

    Raises:
        ValueError, TypeError: an option is out of range; the message is the library's.
        RuntimeError: the library does not have the device.

    On a GPU each call is enqueued on the CUDA stream it is given (`cudaStream_t` as a number), by default the legacy default stream, and does not
    wait unless its documentation says so. Ordering calls on several streams is up to you.

    Any thread may call; calls on the same criterion wait for each other. Do not use the views (`soft_labels`, `sums`, ...) while another thread is
    in a call.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        alpha: float = 0.5,
        smoothing: float = 0.1,
        init: str | Any = "smoothing",
        empty_class: EmptyClassName = "keep",
        min_count: int = 1,
        momentum: float = 0.0,
        freeze_above: float | None = None,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: ReductionName = "mean",
        device: str | tuple[str, int] = "cpu",
    ) -> None:
        self._begin(
            Settings(
                n_classes, alpha=alpha, smoothing=smoothing, init=init, empty_class=empty_class, min_count=min_count, momentum=momentum,
                freeze_above=freeze_above, weight=weight, ignore_index=ignore_index, reduction=reduction,
            ),
            device,
        )  # fmt: skip

    def _begin(self, settings: Settings, device: str | tuple[str, int]) -> None:
        kind, place = device if isinstance(device, (tuple, list)) and len(device) == 2 else (device, 0)
        types = {"cpu": _abi.DEVICE_CPU, "cuda": _abi.DEVICE_CUDA}
        if not isinstance(kind, str) or kind not in types:
            raise (ValueError if isinstance(kind, str) else TypeError)(f"device = {device!r} is neither 'cpu' nor ('cuda', number)")
        if not 0 <= int64("device[1]", place) < 2**31:
            raise ValueError(f"device[1] = {place} is outside [0, 2^31)")
        self.training = True
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        if kind == "cpu" and 2 <= settings.num_classes < 2**31:  # the library rejects others
            classes = settings.num_classes
            shapes = {"soft_labels": (classes, classes), "sums": (classes, classes), "counts": (classes,), "counters": (_abi.COUNTERS,)}
            self._arrays = {name: np.zeros(shape, np.float32 if name == "soft_labels" else np.int64) for name, shape in shapes.items()}
        memory = {name: tensor_of_array(array) for name, array in self._arrays.items()}
        self._core = Core(settings, memory, self._arrays, device=(types[kind], place))
        self._calls = Calls(self._core)

    @classmethod
    def reference(cls, n_classes: int, **options: Any) -> Self:
        """The options of the published PyTorch package: it starts smoothed, and a class without a correctly classified sample gets zeros."""
        return cls._preset(_abi.Preset.REFERENCE, n_classes, options)

    @classmethod
    def paper(cls, n_classes: int, **options: Any) -> Self:
        """The options of the authors' released CIFAR code: it starts with zeros, and a class without a correctly classified sample gets 1/K."""
        return cls._preset(_abi.Preset.PAPER, n_classes, options)

    @classmethod
    def _preset(cls, preset: _abi.Preset, n_classes: int, options: dict[str, Any]) -> Self:
        settings = Settings(2, **_DEFAULTS)
        settings.apply_preset(preset)
        given = {"init": name_of(settings.initial), "smoothing": settings.smoothing, "empty_class": name_of(settings.empty_class)}
        return cls(n_classes, **{**given, **options})

    # ---- the loss

    def __call__(
        self,
        logits: Any,
        target: Any,
        *,
        sample_weight: Any = None,
        target2: Any = None,
        lam: Any = None,
        grad_loss: Any = None,
        target_offset: int = 0,
        update: bool = True,
        out: Any = None,
        stream: int | None = None,
    ) -> tuple[Any, Any]:
        """Loss and gradient of a batch. In training mode, the batch is added to the statistics.

        Args:
            logits: (N, K) or (N, K, d1, ..., dm).
            target: (N) or (N, d1, ..., dm), in [target_offset, target_offset + K), or the ignore index.
            sample_weight: f32 or f64, shaped like the target, finite and >= 0.
            target2: second targets of Mixup and CutMix, like `target`; requires `lam`.
            lam: weight of the first target in [0, 1]: a number, or f32 or f64 shaped like the target.
            grad_loss: gradient of the objective with respect to the loss, a number or (with reduction "none") shaped like the target; it is multiplied in
                before the gradient is rounded to 16 bits.
            target_offset: the number of the first class: 1 for labels that start at 1.
            update: if False, leave the statistics alone, for a second pass over a batch.
            out: array for the gradient, with the shape and dtype of the logits, or the logits themselves.
            stream: the CUDA stream to use, on a GPU.

        Returns:
            The loss, f32 (f64 for f64 logits), a scalar or with reduction "none" shaped like the target; the gradient, with the shape and dtype of the
            logits. Both are NumPy arrays, or on a GPU arrays of the logits' library.

        Raises:
            TypeError: wrong dtype. ValueError: wrong shape or value. IndexError: target out of range. RuntimeError: wrong device. The state is unchanged.
        """
        extras = sample_weight, target2, lam, grad_loss
        flags = 0 if update and self.training else _abi.BATCH_NO_UPDATE
        return self._calls.run(_calls.forward, logits, target, extras, target_offset, flags, stream, True, True, out)

    def loss(
        self, logits: Any, target: Any, *, sample_weight: Any = None, target2: Any = None, lam: Any = None, target_offset: int = 0,
        update: bool = True, stream: int | None = None,
    ) -> Any:  # fmt: skip
        """The loss only. In training mode, the batch is added to the statistics."""
        flags = 0 if update and self.training else _abi.BATCH_NO_UPDATE
        return self._calls.run(_calls.forward, logits, target, (sample_weight, target2, lam, None), target_offset, flags, stream, True)[0]

    def backward(
        self, logits: Any, target: Any, *, grad_loss: Any = None, sample_weight: Any = None, target2: Any = None, lam: Any = None,
        target_offset: int = 0, out: Any = None, stream: int | None = None,
    ) -> Any:  # fmt: skip
        """The gradient only, recomputed. The state does not change."""
        extras = sample_weight, target2, lam, grad_loss
        return self._calls.run(_calls.backward, logits, target, extras, target_offset, 0, stream, False, True, out)[1]

    def accumulate(
        self, probabilities: Any, target: Any, *, sample_weight: Any = None, target2: Any = None, lam: Any = None, target_offset: int = 0,
        take_back: bool = False, stream: int | None = None,
    ) -> None:  # fmt: skip
        """Adds probabilities in [0, 1], shaped like logits, to the statistics, in training mode only; or takes them back, in either mode."""
        flags = _abi.BATCH_TAKE_BACK if take_back else 0 if self.training else _abi.BATCH_NO_UPDATE
        self._calls.run(_calls.accumulate, probabilities, target, (sample_weight, target2, lam, None), target_offset, flags, stream)

    def take_back(
        self, logits: Any, target: Any, *, sample_weight: Any = None, target2: Any = None, lam: Any = None, target_offset: int = 0,
        stream: int | None = None,
    ) -> None:  # fmt: skip
        """Undoes exactly what a call added for this batch; pass the same arguments. RuntimeError if more is taken back than was added."""
        self._calls.run(_calls.forward, logits, target, (sample_weight, target2, lam, None), target_offset, _abi.BATCH_TAKE_BACK, stream)

    retract = take_back

    # ---- epochs, mode, settings

    def next_epoch(self, stream: int | None = None) -> Report:
        """Ends the epoch: computes the soft labels of the next one and clears the statistics. With several processes, all-reduce `sums`, `counts` and
        `counters` first."""
        return self._core.next_epoch(stream)

    def train(self, mode: bool = True) -> Self:
        """Training mode: calls add to the statistics."""
        self._core.demand_open()
        self.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Evaluation mode: calls change no state."""
        return self.train(False)

    @property
    def n_classes(self) -> int:
        """K."""
        return self._core.settings.num_classes

    @property
    def alpha(self) -> float:
        """Weight of the hard label, in [0, 1]. It can be set, for schedules."""
        return self._core.settings.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._core.set_alpha(alpha)

    @property
    def ignore_index(self) -> int:
        """The target of samples that are ignored."""
        return self._core.settings.ignore_index

    @property
    def epoch(self) -> int:
        """Number of epochs that have ended. It can be set, for restoring a state by hand."""
        return self._core.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._core.set_epoch(int64("epoch", epoch))

    # ---- state

    def _array(self, name: str) -> np.ndarray[Any, Any]:
        self._core.demand_open()
        if name not in self._arrays:
            raise InvalidStateError(f"{name} is on a device, where NumPy cannot view it; use save and load")
        return self._arrays[name]

    @property
    def soft_labels(self) -> np.ndarray[Any, Any]:
        """S, f32 (K, K), a row per class: a read-only view; see `set_soft_labels`."""
        view: np.ndarray[Any, Any] = self._array("soft_labels").view()
        view.flags.writeable = False
        return view

    def set_soft_labels(self, soft_labels: Any, stream: int | None = None) -> None:
        """Replaces S with f32 or f64 (K, K), finite and >= 0."""
        layout, address, _owner = look("soft_labels", soft_labels, stream)
        tensor = view("soft_labels", layout, 2)
        tensor.data = address
        self._core.set_soft_labels(tensor, stream)

    @property
    def sums(self) -> np.ndarray[Any, Any]:
        """A, int64 (K, K): summed probabilities of the running epoch in units of 2^-30; a view, for an all-reduce."""
        return self._array("sums")

    @property
    def counts(self) -> np.ndarray[Any, Any]:
        """c, int64 (K): number of samples in the sums; a view, for an all-reduce."""
        return self._array("counts")

    @property
    def counters(self) -> np.ndarray[Any, Any]:
        """int64 (4): other counts, see include/ols.h; a view, for an all-reduce."""
        return self._array("counters")

    def running(self, stream: int | None = None) -> dict[str, int]:
        """Counts of the running epoch: samples accumulated and skipped, classes full, targets out of range. On a GPU, waits for the stream."""
        stream = stream_number(stream)
        with self._core.lock:
            report = self._core.handle.report(stream)
        return {name[8:]: getattr(report, name) for name, *_ in _abi.Report._fields_ if name.startswith("running_")}

    def save(self, path: str | os.PathLike[str], stream: int | None = None) -> None:
        """Saves the state and the options that affect the result, atomically, to a safetensors file that libols can read in every language."""
        self._core.save(path, stream)

    def load(self, path: str | os.PathLike[str], stream: int | None = None) -> None:
        """Loads a file written by `save`. Mode, reduction and device are kept. On an error nothing changes."""
        self._core.load(path, stream)

    def to_bytes(self, stream: int | None = None) -> bytes:
        """The bytes that `save` would write."""
        return self._core.save_memory(stream)

    def load_bytes(self, data: bytes, stream: int | None = None) -> None:
        """Loads the bytes returned by `to_bytes`, as `load` does."""
        self._core.load_memory(data, stream)

    def close(self) -> None:
        """Releases the criterion; closing it again does nothing. Views stay valid. A criterion that is no longer referenced is closed automatically."""
        self._core.close()

    def __enter__(self) -> Self:
        self._core.demand_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._core.device[0] != _abi.DEVICE_CPU:
            raise TypeError("a criterion on a device cannot be pickled; use save and load")
        return {"state": self.to_bytes(), "reduction": name_of(self._core.settings.reduction), "training": self.training, "K": self.n_classes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(Settings(state["K"], **{**_DEFAULTS, "reduction": state["reduction"]}), "cpu")
        self.load_bytes(state["state"])
        self.training = state["training"]

    def __repr__(self) -> str:
        return f"Criterion({'closed' if self._core.closed else self._core.settings.shown()})"


_DEFAULTS = Criterion.__init__.__kwdefaults__ or {}
_DEFAULTS = {name: value for name, value in _DEFAULTS.items() if name != "device"}
