"""A criterion of the library with its settings, for the memory of any framework: its handle, epoch and reports."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from ctypes import byref

from . import _abi, _threads
from ._errors import InvalidStateError
from ._library import Handle, check, lib
from ._report import Report
from ._settings import Settings, number, stream_number

STATE = ("soft_labels", "sums", "counts", "counters")


class Core:
    """The handle behind a criterion. `memory` describes the caller's memory for the state, which `keep` owns.

    `lock` makes sure that one thread at a time uses the handle and the prepared calls. The library takes the number of threads at creation, so the
    handle is replaced when that number changes; the state is stored outside of it.

    The epoch is kept here as well: a signal handler that saves a checkpoint may have interrupted a call of its own thread, and would wait forever
    for that call's lock.
    """

    __slots__ = ("_closed", "_counting", "_epoch", "_pending", "default_threads", "device", "handle", "keep", "lock", "memory", "settings", "threads")

    def __init__(
        self,
        settings: Settings,
        memory: dict[str, _abi.Tensor],
        keep: object,
        *,
        device: tuple[int, int] = (_abi.DEVICE_CPU, 0),
        adopt: bool = False,
        epoch: int = 0,
        default_threads: Callable[[], int] = lambda: 0,
    ) -> None:
        self.settings, self.memory, self.keep, self.device = settings, memory, keep, device
        self.default_threads, self.lock, self._closed = default_threads, threading.Lock(), False
        self._pending: weakref.ref[Report] | None = None
        self._counting: int | None = None
        self.handle = self._create(adopt, epoch)
        self._epoch = self.handle.epoch()

    def _create(self, adopt: bool, epoch: int) -> Handle:
        self.threads = _threads.wanted(self.default_threads())
        options = self.settings.options(self.threads)
        options.device_type, options.device_id = self.device
        for name, tensor in self.memory.items():
            setattr(options, name, tensor)
        options.flags = _abi.OPTIONS_ADOPT_STATE if adopt else 0
        handle = Handle(options, self.keep)
        if epoch:
            check(lib.ols_set_epoch(handle.address, epoch))
        return handle

    def current(self) -> int:
        """The handle's address; a new handle if the number of threads has changed. The caller holds the lock."""
        if self.memory and self.threads != _threads.wanted(self.default_threads()) and not self._closed:
            self.settle()
            old, self.handle = self.handle, self._create(True, self._epoch)
            old.close()
        return self.handle.address

    def settle(self, wait: bool = True) -> None:
        """Reads the last report of a device if it is still referenced and unread, since the next call would change what it shows. Without `wait` it
        expires instead."""
        pending = None if self._pending is None else self._pending()
        self._pending = None
        if pending is not None:
            if wait:
                pending.read()
            else:
                pending.expire()

    def call(self, function: Callable[..., int], *arguments: object) -> None:
        """Calls a function of the library with the handle."""
        with self.lock:
            check(function(self.current(), *arguments))

    def next_epoch(self, stream: int | None = None) -> Report:
        stream = stream_number(stream)
        with self.lock:
            address = self.current()
            self.settle(wait=False)
            self._count(lib.ols_next_epoch, address, stream)
            report = Report(self.handle, stream)
            if self.device[0] == _abi.DEVICE_CPU:
                report.read()  # nothing to wait for, and later the memory of the statistics may be gone
            else:
                self._pending = weakref.ref(report)
            return report

    @property
    def epoch(self) -> int:
        """Number of epochs that have ended. Does not take the lock."""
        self.demand_open()
        # A signal handler may run after the library has counted and before `_count` has noted it.
        return self.handle.epoch() if self._counting == threading.get_ident() else self._epoch

    def set_epoch(self, epoch: int) -> None:
        with self.lock:
            self._count(lib.ols_set_epoch, self.current(), epoch)

    def _count(self, function: Callable[..., int], *arguments: object) -> None:
        """A call that changes the epoch. The caller holds the lock."""
        self._counting = threading.get_ident()
        try:
            check(function(*arguments))
        finally:
            # Also after a failure, or an exception from a signal handler: the library knows what was done.
            self._epoch = self.handle.epoch()
            self._counting = None

    def set_alpha(self, alpha: float) -> None:
        alpha = number("alpha", alpha)
        self.call(lib.ols_set_alpha, alpha)
        self.settings.alpha = alpha

    def set_soft_labels(self, tensor: _abi.Tensor, stream: int | None = None) -> None:
        self.call(lib.ols_set_soft_labels, byref(tensor), stream_number(stream))

    def save(self, path: str | os.PathLike[str], stream: int | None = None) -> None:
        self.call(lib.ols_save, encoded(path), stream_number(stream))

    def load(self, path: str | os.PathLike[str], stream: int | None = None) -> None:
        self._load(lib.ols_load, encoded(path), stream_number(stream))

    def save_memory(self, stream: int | None = None) -> bytes:
        stream = stream_number(stream)
        with self.lock:
            self.current()
            return self.handle.save_memory(stream)

    def load_memory(self, data: bytes, stream: int | None = None) -> None:
        try:
            data = bytes(memoryview(data))
        except TypeError as error:
            raise TypeError(f"data must be bytes, not {type(data).__name__}") from error
        self._load(lib.ols_load_memory, data, len(data), stream_number(stream))

    def _load(self, function: Callable[..., int], *arguments: object) -> None:
        with self.lock:
            address = self.current()
            self.settle()
            self._count(function, address, *arguments)
            self.settings.adopt(self.handle)

    def views(self) -> _abi.Statistics:
        """Views of the statistics, on any device."""
        statistics = _abi.Statistics(struct_size=ctypes.sizeof(_abi.Statistics))
        self.call(lib.ols_statistics, byref(statistics))
        return statistics

    def close(self) -> None:
        with self.lock:
            if not self._closed:
                try:
                    self.settle()
                finally:
                    self._closed = True
                    self.handle.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def demand_open(self) -> None:
        if self._closed:
            raise InvalidStateError("the criterion is closed")


def encoded(path: str | os.PathLike[str]) -> bytes:
    """A path as the library takes it. Its strings end at the first NUL."""
    found = os.fsencode(path)
    if b"\0" in found:
        raise ValueError(f"path = {path!r} contains a NUL character")
    return found
