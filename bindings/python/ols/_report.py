"""What happened in an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _abi
from ._errors import InvalidStateError
from ._library import Handle

_FIELDS = tuple(name for name, *_ in _abi.Report._fields_ if name != "struct_size" and not name.startswith("running_"))


class Report:
    """What happened in the epoch that `next_epoch` ended, over all ranks if it synchronised them.

    On a GPU the numbers are read from the library on first access. That access waits, instead of `next_epoch`, and must come before the next
    `next_epoch`, which would otherwise have to wait. All numbers are counts; `rows_measured` and the other `rows_` fields add up to the number of
    classes.
    """

    #: Number of the epoch that ended, starting at 1.
    epoch: int
    #: Classes whose new soft label comes from the statistics.
    rows_measured: int
    #: Classes that kept their row, by `empty_class="keep"` or because nothing at all was accumulated.
    rows_kept: int
    #: Classes with a uniform row by `empty_class="uniform"`.
    rows_uniform: int
    #: Classes back at their first row by `empty_class="initial"`.
    rows_initial: int
    #: Classes with a one-hot row by `empty_class="one_hot"`.
    rows_one_hot: int
    #: Classes with a row of zeros by `empty_class="zero"`.
    rows_zero: int
    #: Classes that are frozen by `freeze_above`.
    rows_frozen: int
    #: Samples that were accumulated: those classified correctly.
    samples_accumulated: int
    #: Samples that were left out because their logits contain NaN or +inf, or are all -inf.
    samples_skipped: int
    #: Classes that were full and took no more samples.
    classes_full: int
    #: Targets that are neither a class nor the ignore index (on a GPU; on the CPU they are an error).
    targets_out_of_range: int

    def __init__(self, handle: Handle, stream: int | None = None) -> None:
        self._source: tuple[Handle, int | None] | None = (handle, stream)
        self._expired = False

    def expire(self) -> None:
        """Called before the library replaces the numbers: if unread, they are lost."""
        self._expired = self._source is not None
        self._source = None

    def read(self) -> None:
        """Reads the numbers now, if they have not been read. On a GPU, waits for the stream."""
        if self._expired:
            raise InvalidStateError("this report was not read before the next epoch ended")
        if self._source is not None:
            handle, stream = self._source
            values = handle.report(stream)
            self.__dict__.update((name, getattr(values, name)) for name in _FIELDS)
            self._source = None

    if not TYPE_CHECKING:  # or type checkers would accept any name

        def __getattr__(self, name):
            if name in _FIELDS and "_expired" in self.__dict__:
                self.read()
                return self.__dict__[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def as_dict(self) -> dict[str, int]:
        """All numbers by name, for logging."""
        self.read()
        return {name: self.__dict__[name] for name in _FIELDS}

    def __eq__(self, other: object) -> bool:
        return self.as_dict() == other.as_dict() if isinstance(other, Report) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.as_dict(), "_source": None, "_expired": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value}" for name, value in self.as_dict().items() if value or name in ("epoch", "rows_measured"))
        return f"Report({shown})"
