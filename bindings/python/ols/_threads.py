"""How many threads a call may use. Results never depend on it."""

from __future__ import annotations

import operator

_number: int | None = None


def set_num_threads(n: int | None) -> None:
    """Sets the most threads that a call may use, for all criteria from their next call on; 0: as many as the process may run on.

    None, the start: modules follow `torch.get_num_threads()`, criteria without a framework take as many as the process may run on.
    """
    global _number
    if n is not None and not 0 <= operator.index(n) < 2**31:
        raise ValueError(f"n = {n} is outside [0, 2^31)")
    _number = n


def get_num_threads() -> int | None:
    """What `set_num_threads` was given last."""
    return _number


def wanted(default: int = 0) -> int:
    """What the library is told."""
    return default if _number is None else _number
