"""A small convolutional network with online label smoothing in PyTorch, on Fashion-MNIST or on the bundled digits.

    python train.py                                                     # 1,797 digits of 8x8, in seconds
    python train.py --data /usr/share/datasets/fashion-mnist            # Debian's dataset-fashion-mnist, or other IDX files
    python train.py --lightning                                         # the same with Lightning's Trainer

Requires libols, torch, tqdm and matplotlib (and lightning). Saves the learned soft labels as a heatmap in soft_labels.png.
"""

import argparse
import csv
import gzip
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from ols import OnlineLabelSmoothing

DIGITS = Path(__file__).resolve().parents[1] / "data" / "digits.csv.gz"
CLOTHES = "T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Boot".split()


def idx(folder, name):
    """Reads an IDX file: two zero bytes, the type (8: u8), the number of dimensions, their sizes, and the values."""
    path = next((path for path in (Path(folder) / name, Path(folder) / f"{name}.gz") if path.exists()), None)
    if path is None:
        raise SystemExit(f"{folder} holds neither {name} nor {name}.gz")
    data = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is no IDX file of bytes")
    shape = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, math.prod(shape.tolist()), 4 + 4 * len(shape)).reshape(shape)


def datasets(folder):
    """Returns training and test images in [0, 1], and the names of the classes."""
    if folder is None:
        with gzip.open(DIGITS, "rt") as file:
            table = np.array([[int(value) for value in row] for row in csv.reader(file)])
        images, labels = table[:, :64].reshape(-1, 8, 8) / 16, table[:, 64]
        # The last fifth was written by other people.
        parts = [(images[:1437], labels[:1437]), (images[1437:], labels[1437:])]
        names = [str(digit) for digit in range(10)]
    else:
        parts = [(idx(folder, f"{part}-images-idx3-ubyte") / 255, idx(folder, f"{part}-labels-idx1-ubyte")) for part in ("train", "t10k")]
        names = CLOTHES if "fashion" in str(folder) else [str(label) for label in range(10)]
    sets = [TensorDataset(torch.from_numpy(x).float().unsqueeze(1), torch.from_numpy(y.astype(np.int64))) for x, y in parts]
    return *sets, names


def network(size):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def train(model, criterion, training, test, epochs, rate):
    """Trains with a loop of its own. Online label smoothing adds `criterion.train()` and `criterion.eval()` around
    validation, and `next_epoch()` at the end of an epoch.
    """
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    accuracy = 0.0
    for epoch in range(epochs):
        model.train()
        criterion.train()
        for images, labels in tqdm(training, desc=f"epoch {epoch + 1}", leave=False):
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        criterion.eval()
        right = total = losses = 0
        with torch.inference_mode():
            for images, labels in test:
                logits = model(images)
                losses += criterion(logits, labels).item() * len(labels)
                right += (logits.argmax(1) == labels).sum().item()
                total += len(labels)
        accuracy = right / total
        report = criterion.next_epoch()
        print(
            f"epoch {epoch + 1}: test accuracy {accuracy:.2%}, loss {losses / total:.4f}; {report.rows_measured} classes measured by "
            f"{report.samples_accumulated} samples"
        )
    return accuracy


def train_with_lightning(model, criterion, training, test, epochs, rate):
    """Trains with Lightning's Trainer. The callback ends the epochs; Lightning sets the mode of the criterion, which is
    part of the module.
    """
    import lightning.pytorch as pl

    from ols.lightning import OnlineLabelSmoothingCallback

    class Classifier(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.criterion = model, criterion

        def training_step(self, batch, _):
            images, labels = batch
            return self.criterion(self.model(images), labels)

        def validation_step(self, batch, _):
            images, labels = batch
            self.log("accuracy", (self.model(images).argmax(1) == labels).float().mean(), prog_bar=True, batch_size=len(labels))

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), rate)

    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        callbacks=[OnlineLabelSmoothingCallback()],
    )  # fmt: skip
    trainer.fit(Classifier(), training, test)
    found = trainer.callback_metrics
    print(
        f"test accuracy {found['accuracy']:.2%}; {found['ols/rows_measured']:.0f} classes measured by {found['ols/samples_accumulated']:.0f} samples"
    )
    return float(found["accuracy"])


def heatmap(soft_labels, names, path):
    """Draws the similarities of the classes, one row per class, in colours on a logarithmic scale."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 5.5), layout="constrained")
    image = axes.imshow(soft_labels.clamp(min=1e-5), norm=matplotlib.colors.LogNorm(1e-4, 1), cmap="magma")
    axes.set(xticks=range(len(names)), yticks=range(len(names)), ylabel="class", title="soft labels")
    axes.set_xticklabels(names, rotation=45, ha="right")
    axes.set_yticklabels(names)
    figure.colorbar(image, label="probability")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of IDX files; the bundled digits if not given")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--lightning", action="store_true", help="train by Lightning's Trainer")
    parser.add_argument("--output", default="soft_labels.png")
    options = parser.parse_args()

    torch.manual_seed(0)
    training, test, names = datasets(options.data)
    model = network(training.tensors[0].shape[-1])
    criterion = OnlineLabelSmoothing(options.alpha, len(names))
    loaders = DataLoader(training, options.batch, shuffle=True), DataLoader(test, 1000)
    (train_with_lightning if options.lightning else train)(model, criterion, *loaders, options.epochs, options.rate)
    heatmap(criterion.soft_labels, names, options.output)
    print(options.output)


if __name__ == "__main__":
    main()
