"""How many threads a call may use. Results do not depend on it."""

from __future__ import annotations

import operator

# The library's limit.
_MOST = 65536
_number: int | None = None


def set_num_threads(n: int | None) -> None:
    """Sets the maximum number of threads that a call may use, for all criteria from their next call on. 0 means all CPUs that the process may run on.

    With None, the default, modules follow `torch.get_num_threads()`, and criteria without a framework use all CPUs that the process may run on.
    """
    global _number
    if n is not None:
        try:
            n = operator.index(n)
        except TypeError as error:
            raise TypeError(f"n = {n!r} is not an integer") from error
        if not 0 <= n <= _MOST:
            raise ValueError(f"n = {n} is outside [0, {_MOST}]")
    _number = n


def get_num_threads() -> int | None:
    """The value last passed to `set_num_threads`."""
    return _number


def wanted(default: int = 0) -> int:
    """The number that is passed to the library."""
    return default if _number is None else _number
