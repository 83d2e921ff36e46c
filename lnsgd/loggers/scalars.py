"""Send numbers to every logger at the exact step."""

from collections.abc import Mapping

import torch
from pytorch_lightning import LightningModule, Trainer

from lnsgd import compat
from lnsgd.loggers.names import named_for


def send_scalars(
    trainer: Trainer, values: Mapping[str, float], step: int, epoch: int, leaves: Mapping[str, str] | None = None
) -> None:
    """Send numbers, which are the same on all processes, to every logger.

    Args:
        trainer: The Trainer with the loggers.
        values: Numbers by name.
        step: Optimizer steps taken.
        epoch: Epoch of the numbers, from 0; also sent, as ``epoch``.
        leaves: Other names for some loggers, see `lnsgd.loggers.named_for`.
    """
    for logger in trainer.loggers:
        logger.log_metrics({**named_for(logger, values, leaves or {}), "epoch": epoch}, step=step)


def show_scalars(
    module: LightningModule, values: Mapping[str, float], prog_bar: Mapping[str, float] | None = None
) -> None:
    """Give numbers to callbacks, as ``trainer.callback_metrics``, and to the progress bar, until there are newer ones.

    ``LightningModule.log`` keeps a number under the hook that has logged it. A number that several hooks log, such as
    one that is measured before the first step and then along training, would be shown with its first value again at the
    end of the first epoch.

    Args:
        module: The module in training; call this from its hooks or a callback's.
        values: Numbers by name.
        prog_bar: Numbers for the progress bar, by the name that it displays.
    """
    trainer, in_bar = module.trainer, prog_bar or {}
    named = {**values, **in_bar}
    trainer.callback_metrics.update({name: torch.tensor(value, device=module.device) for name, value in named.items()})
    trainer.progress_bar_metrics.update(in_bar)


def log_scalars(
    module: LightningModule,
    values: Mapping[str, float],
    prog_bar: Mapping[str, float] | None = None,
    step: int | None = None,
    leaves: Mapping[str, str] | None = None,
) -> None:
    """Send numbers, which are the same on all processes, to every logger, to callbacks and to the progress bar.

    ``LightningModule.log`` alone would log values at the end of an epoch under another step, which is one too small.

    Args:
        module: The module in training; call this from its hooks or a callback's.
        values: Numbers by name.
        prog_bar: Numbers for the progress bar, by the name that it displays.
        step: Optimizer steps taken; by default ``trainer.global_step``.
        leaves: See `send_scalars`.
    """
    trainer = module.trainer
    if trainer.sanity_checking:
        return
    in_bar = prog_bar or {}
    numbers = {**values, **in_bar}
    compat.forget_initial_numbers(trainer, module, numbers)
    for name, value in numbers.items():
        module.log(name, value, logger=False, prog_bar=name in in_bar)
    send_scalars(trainer, values, trainer.global_step if step is None else step, trainer.current_epoch, leaves)
