"""The modules of PyTorch. `import ols` loads this when `ols.OnlineLabelSmoothing` or `ols.LabelSmoothingLoss` is first asked for."""

from .module import OnlineLabelSmoothing
from .smoothing import LabelSmoothingLoss

__all__ = ["LabelSmoothingLoss", "OnlineLabelSmoothing"]
