"""Callbacks that an environment variable adds to every Trainer, so that an unchanged program is measured.

The entry points ``lightning.pytorch.callbacks_factory`` and ``pytorch_lightning.callbacks_factory`` of the package name
the function here, which each Trainer of either Lightning calls when it is made.
"""

import os
from typing import Any

VARIABLE = "LNSGD_WATCH"


def callbacks_from_environment() -> list[Any]:
    """Return callbacks with their default settings for the measures that ``LNSGD_WATCH`` names; none if it is not set.

    Nothing is imported if it is not set.

    Raises:
        ValueError: a name that is not that of a measure.

    Example:
        ``LNSGD_WATCH=active_neurons,hessian_trace python train.py`` adds `lnsgd.callbacks.ActiveNeurons` and
        `lnsgd.callbacks.HessianTrace` to the Trainer of ``train.py``.
    """
    value = os.environ.get(VARIABLE, "")
    names = [name for part in value.split(",") if (name := part.strip())]
    if not names:
        return []
    from lnsgd import callbacks
    from lnsgd.measuring import callback_class_name

    try:
        return [getattr(callbacks, callback_class_name(name))() for name in dict.fromkeys(names)]
    except ValueError as error:
        raise ValueError(f"{VARIABLE}={value}: {error}") from None
