"""A Lightning callback that ends the criterion's epochs and logs their reports.

It is a convenience: a module that calls `self.criterion.next_epoch()` in its own `on_train_epoch_end` does not need it.
"""

from __future__ import annotations

from typing import Any

try:
    import lightning.pytorch as pl
except ImportError:  # the old name of the package
    import pytorch_lightning as pl  # type: ignore[no-redef]

from .torch import OnlineLabelSmoothing

_LOGGED = ("rows_measured", "rows_frozen", "samples_accumulated", "samples_skipped", "classes_full", "targets_out_of_range")


class OnlineLabelSmoothingCallback(pl.Callback):
    """Calls `next_epoch` at the end of every training epoch, over all ranks, and logs the report.

    Args:
        criterion: the criterion whose epochs to end; None: every `OnlineLabelSmoothing` in the LightningModule. Those that are attributes of the module
            are saved in its checkpoints and move with it.
        log: whether to log `ols/rows_measured`, `ols/samples_accumulated` and the like (with several criteria: with their names in the module).
        gather: before a checkpoint within an epoch, move the statistics of all ranks to the first one, so that the checkpoint is exact; see
            `OnlineLabelSmoothing.gather`. It does nothing if one process trains. Lightning does not call callbacks before it saves weights only
            (`save_weights_only=True`): such a file has the statistics of one rank.

    Raises:
        ValueError: at the start of training, if the module contains no criterion and none was given.
    """

    def __init__(self, criterion: OnlineLabelSmoothing | None = None, *, log: bool = True, gather: bool = True) -> None:
        self.criterion, self.log, self.gather = criterion, log, gather

    def criteria(self, module: Any) -> dict[str, OnlineLabelSmoothing]:
        """The criteria whose epochs to end, by name."""
        if self.criterion is not None:
            return {"": self.criterion}
        return {name: one for name, one in module.named_modules() if isinstance(one, OnlineLabelSmoothing)}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not self.criteria(pl_module):
            raise ValueError(f"{type(pl_module).__name__} contains no OnlineLabelSmoothing; make it an attribute, or pass it to the callback")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        criteria = self.criteria(pl_module)
        for name, criterion in criteria.items():
            report = criterion.next_epoch()
            if self.log:
                place = "ols" if len(criteria) == 1 else f"ols/{name}"
                numbers = report.as_dict()
                # The numbers are the same on every rank: nothing to reduce.
                pl_module.log_dict({f"{place}/{field}": float(numbers[field]) for field in _LOGGED}, on_step=False, on_epoch=True)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if not self.gather:
            return
        criteria = list(self.criteria(pl_module).values())
        for criterion in criteria:
            criterion.gather()
        # The state dict was made earlier, from live tensors or copies; on the other ranks it differs from what they save after `gather`.
        state = checkpoint["state_dict"]
        for name, module in pl_module.named_modules():
            if any(module is criterion for criterion in criteria):
                for key, value in module.state_dict(prefix=f"{name}.").items():
                    if key in state:
                        state[key] = value.to(state[key].device)
