"""Numbers to every logger at the exact step."""

from collections.abc import Mapping

from pytorch_lightning import LightningModule, Trainer


def send_scalars(trainer: Trainer, values: Mapping[str, float], step: int, epoch: int) -> None:
    """Sends numbers, the same on all processes, to every logger.

    Args:
        trainer: Whose loggers.
        values: Numbers by name.
        step: Optimizer steps taken.
        epoch: The epoch they belong to, from 0; sent along as ``epoch``.
    """
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": epoch}, step=step)


def log_scalars(
    module: LightningModule,
    values: Mapping[str, float],
    prog_bar: Mapping[str, float] | None = None,
    step: int | None = None,
) -> None:
    """Sends numbers, the same on all processes, to every logger, to callbacks and to the progress bar.

    ``LightningModule.log`` alone stamps epoch-end values with a step counter of its own, one behind.

    Args:
        module: The module in training; call this from its hooks or a callback's.
        values: Numbers by name.
        prog_bar: Numbers shown in the progress bar, by the name shown there.
        step: Optimizer steps taken; by default ``trainer.global_step``.
    """
    trainer = module.trainer
    if trainer.sanity_checking:
        return
    shown = prog_bar or {}
    for name, value in {**values, **shown}.items():
        module.log(name, value, logger=False, prog_bar=name in shown)
    send_scalars(trainer, values, trainer.global_step if step is None else step, trainer.current_epoch)
