"""The conformance vectors as NumPy arrays. The comment in each file of tests/vectors explains them."""

import json
import math

import ml_dtypes
import numpy as np
from conftest import VECTORS

FILES = ("epochs", "errors", "layouts", "options", "sizes", "special", "targets", "weights")
DTYPES = {
    "f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "i64": np.int64, "i32": np.int32, "u8": np.uint8,
}  # fmt: skip
MASK = (1 << 64) - 1


def read(name):
    return json.loads((VECTORS / f"{name}.json").read_text())["cases"]


def splitmix64(seed, j):
    z = (seed + (j + 1) * 0x9E3779B97F4A7C15) & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def real(text):
    return float.fromhex(text)


def reals(texts):
    return np.array([real(text) for text in texts], np.float64)


class Block:
    """A block of memory, and the view of a tensor in it."""

    def __init__(self, dtype, view):
        self.dtype = np.dtype(DTYPES[dtype])
        shape = tuple(view["shape"])
        row_major = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        self.steps = view.get("strides", row_major)
        self.offset = view.get("offset", 0)
        self.memory = np.frombuffer(bytearray(b"\xa5" * view.get("length", math.prod(shape)) * self.dtype.itemsize), self.dtype).copy()
        self.array = np.ndarray(
            shape, self.dtype, self.memory.data if self.memory.size else bytearray(self.dtype.itemsize), self.offset * self.dtype.itemsize,
            [step * self.dtype.itemsize for step in self.steps],
        ) if self.memory.size and self.memory.dtype.kind != "V" else self._of_bytes(shape)  # fmt: skip

    def _of_bytes(self, shape):
        if not self.memory.size:
            return np.empty(shape, self.dtype)
        bits = self.memory.view(np.uint16)
        strides = [2 * step for step in self.steps]
        return np.ndarray(shape, np.uint16, bits.data, 2 * self.offset, strides).view(self.dtype)

    def untouched(self, before, everything):
        """Whether all bytes outside of the view (or all bytes) are unchanged."""
        now, named = self.memory.view(np.uint8).reshape(-1, self.dtype.itemsize), np.zeros(self.memory.size, bool)
        if not everything and self.memory.size:
            flat = np.full(self.array.shape, self.offset)
            for axis, step in enumerate(self.steps):
                flat += np.arange(self.array.shape[axis]).reshape([-1 if a == axis else 1 for a in range(self.array.ndim)]) * step
            named[flat.reshape(-1)] = True
        return np.array_equal(now[~named], before.view(np.uint8).reshape(-1, self.dtype.itemsize)[~named])


def logits(given):
    block = Block(given["dtype"], given["view"])
    shape = block.array.shape
    values = np.empty(math.prod(shape), np.float64)
    raised = set(given.get("raised", []))
    for i, index in enumerate(np.ndindex(*shape)):
        j = 0
        for axis, extent in enumerate(shape):
            j = j * extent + (0 if block.steps[axis] == 0 else index[axis])
        m = (splitmix64(given["seed"], j) >> 33) % 255 - 127
        m = abs(m) if given.get("absolute") else m
        values[i] = (m + 128 if i in raised else m) * 2.0 ** given["exponent"]
    for i, value in given.get("set", []):
        values[i] = real(value)
    block.array[...] = values.reshape(shape)
    return block


def numbers(given):
    block = Block(given["dtype"], given["view"])
    whole = given["dtype"] in ("i64", "i32", "u8")
    values = np.array(given["values"], np.int64) if whole else reals(given["values"])
    block.array[...] = values.reshape(block.array.shape)
    return block


class Batch:
    def __init__(self, given):
        self.logits, self.targets = logits(given["logits"]), numbers(given["targets"])
        self.offset = given["targets"].get("target_offset", given.get("target_offset", 0))
        self.rest = {name: numbers(given[name]) for name in ("sample_weights", "targets2", "lam", "grad_loss") if given.get(name)}


def options(given):
    initial = given["initial"]
    smoothing = real(initial["smoothing"]) if isinstance(initial, dict) and "smoothing" in initial else 0.1
    if isinstance(initial, dict):
        k = max(given["classes"], 1)
        matrix = reals(initial["matrix"]) if "matrix" in initial else None
        # An incomplete matrix: as many rows as there are values for.
        initial = "smoothing" if matrix is None else matrix[: len(matrix) // k * k].reshape(-1, k)
    return {
        "alpha": real(given["alpha"]), "smoothing": smoothing, "init": initial, "empty_class": given["empty_class"], "min_count": given["min_count"],
        "momentum": real(given["momentum"]), "freeze_above": None if given["freeze_above"] is None else real(given["freeze_above"]),
        "weight": None if given["class_weights"] is None else reals(given["class_weights"]), "ignore_index": given["ignore_index"],
        "reduction": given["reduction"],
    }  # fmt: skip


def compare(what, got, expect):
    """Compares `got`, in logical order, with all expected values or those at some places, within their tolerance."""
    got = np.asarray(got).reshape(-1).astype(np.float64)
    want = np.array([real(v) if isinstance(v, str) else float(v) for v in expect["values"]])
    if "at" in expect:
        got = got[expect["at"]]
    assert got.shape == want.shape, f"{what}: {got.shape} for {want.shape}"
    atol, rtol = (real(expect[name]) if isinstance(expect.get(name), str) else float(expect.get(name, 0)) for name in ("atol", "rtol"))
    with np.errstate(invalid="ignore"):
        near = np.abs(got - want) <= atol + rtol * np.abs(want)
    same = np.where(np.isnan(want), np.isnan(got), np.where(np.isinf(want), got == want, near))
    assert same.all(), f"{what}: {got[~same][:5]} for {want[~same][:5]} at {np.flatnonzero(~same)[:5]}"
