"""Numbers to every logger at the exact step."""

from collections.abc import Mapping

from pytorch_lightning import LightningModule


def log_scalars(
    module: LightningModule, values: Mapping[str, float], prog_bar: Mapping[str, float] | None = None
) -> None:
    """Sends numbers to every logger at ``trainer.global_step``, and to callbacks and the progress bar.

    ``LightningModule.log`` alone stamps epoch-end values with a step counter of its own, one behind.
    Values must be the same on all processes.

    Args:
        module: The module in training; call this from its hooks or a callback's.
        values: Numbers by name.
        prog_bar: Numbers shown in the progress bar, by the name shown there.
    """
    trainer = module.trainer
    if trainer.sanity_checking:
        return
    shown = prog_bar or {}
    for name, value in {**values, **shown}.items():
        module.log(name, value, logger=False, prog_bar=name in shown)
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=trainer.global_step)
