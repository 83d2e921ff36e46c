"""A progress bar for runs that take many SGD steps at once."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer

from lnsgd.callbacks.progress_bar import MeasureProgressBar
from lnsgd.replicas import networks_of


class StepProgressBar(MeasureProgressBar):
    """`MeasureProgressBar`, counted in SGD steps: steps taken, steps in total, steps per second, and time left.

    The whole run has one bar, over all epochs that are left.

    Args:
        refresh_rate: Draw after this many batches; 0 for no bar.
        process_position: Number of lines left above it for other bars.
        leave: Leave the bars of finished epochs on the screen.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the bar at the present step."""
        super().on_train_start(trainer, pl_module)
        bar = self.train_progress_bar
        bar.unit = "step"
        bar.total = networks_of(pl_module).last_step(trainer)
        bar.initial = bar.n = trainer.global_step
        bar.set_description("Training")

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Do nothing: the bar continues over epochs."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Move the bar to the present step."""
        bar = self.train_progress_bar
        if self.is_enabled:
            bar.update(trainer.global_step - bar.n)
            bar.set_postfix(self.get_metrics(trainer, pl_module))
