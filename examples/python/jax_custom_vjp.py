"""Online label smoothing in JAX: `jax.custom_vjp` around `ols.Criterion`, in a jitted training step.

Trains softmax regression on the bundled digits for five epochs: `python jax_custom_vjp.py`.
"""

import csv
import functools
import gzip
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ols

DIGITS = Path(__file__).parents[1] / "data" / "digits.csv.gz"
criterion = ols.Criterion(10, alpha=0.5)


def call(logits, target):
    """Computes loss and gradient on the host, and updates the statistics."""
    loss, gradient = criterion(np.asarray(logits), np.asarray(target))
    return np.asarray(loss), gradient


def loss_and_gradient(logits, target):
    shapes = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct(logits.shape, logits.dtype)
    # The statistics require that the callback runs exactly once, as io_callback does; a pure_callback may be repeated
    # or omitted.
    return jax.experimental.io_callback(call, shapes, logits, target)


@jax.custom_vjp
def online_label_smoothing(logits, target):
    return loss_and_gradient(logits, target)[0]


def forward(logits, target):
    return loss_and_gradient(logits, target)


def backward(gradient, grad_loss):
    return gradient * grad_loss, None


online_label_smoothing.defvjp(forward, backward)


@functools.partial(jax.jit, static_argnames="rate")
def step(weights, x, target, rate=0.5):
    gradient = jax.grad(lambda weights: online_label_smoothing(x @ weights, target))(weights)
    return weights - rate * gradient


def main():
    with gzip.open(DIGITS, "rt") as file:
        table = np.array([[float(value) for value in row] for row in csv.reader(file)], np.float32)
    x, target = jnp.asarray(table[:, :64] / 16), jnp.asarray(table[:, 64], jnp.int32)
    weights = jnp.zeros((64, 10), jnp.float32)
    order = np.random.default_rng(0)
    for epoch in range(5):
        for part in np.array_split(order.permutation(1500), 47):
            weights = step(weights, x[part], target[part])
        weights.block_until_ready()
        report = criterion.next_epoch()
        accuracy = 100 * float((jnp.argmax(x[1500:] @ weights, 1) == target[1500:]).mean())
        print(f"epoch {epoch + 1}: accuracy {accuracy:.1f} % on 297 images, {report.rows_measured} classes measured")


if __name__ == "__main__":
    main()
