"""The PyTorch modules. `import ols` loads this when `ols.OnlineLabelSmoothing` or `ols.LabelSmoothingLoss` is first used."""

from .module import OnlineLabelSmoothing
from .smoothing import LabelSmoothingLoss

__all__ = ["LabelSmoothingLoss", "OnlineLabelSmoothing"]
