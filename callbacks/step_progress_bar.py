"""Progress of runs that take many SGD steps at once."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar


class StepProgressBar(TQDMProgressBar):
    """Lightning's bar, counted in SGD steps: how many, of how many, at how many a second, and until when.

    A run with ``max_steps`` has one bar in all, others have one for all epochs that are left.

    Args:
        refresh_rate: Draw after this many batches; 0 for no bar.
        process_position: Lines left above it for other bars.
        leave: Leave the bars of epochs that are over.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the bar where the run stands."""
        super().on_train_start(trainer, pl_module)
        bar = self.train_progress_bar
        bar.unit = "step"
        bar.bar_format = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        bar.total = last_step(trainer)
        bar.initial = bar.n = trainer.global_step
        bar.set_description("Training")

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Nothing: the bar goes on."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Moves the bar to where the run stands."""
        bar = self.train_progress_bar
        if self.is_enabled:
            bar.update(trainer.global_step - bar.n)
            bar.set_postfix(self.get_metrics(trainer, pl_module))


def last_step(trainer: Trainer) -> int | None:
    """The step at which the run ends, where that is known."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    ends = [trainer.max_steps] if trainer.max_steps >= 0 else []
    if trainer.max_epochs not in (None, -1):
        ends.append(trainer.max_epochs * data.steps_per_epoch)
    return min(ends) if ends else None
