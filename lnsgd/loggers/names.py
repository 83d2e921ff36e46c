"""Names of numbers in loggers that do not take every name."""

import re
from collections.abc import Mapping
from typing import Any

from lnsgd import compat

# Loggers that make folders of names, so that no name may be the beginning of another, as a path.
_WITH_FOLDERS = ("MLFlowLogger", "NeptuneLogger")


def named_for(logger: Any, values: Mapping[str, float], leaves: Mapping[str, str]) -> dict[str, float]:
    """Return numbers under the names that a logger takes.

    Args:
        logger: A logger of the Trainer.
        values: Numbers by name.
        leaves: Names for loggers in which no name may be the beginning of another, by the usual name where they
            differ; see `lnsgd.measuring.leaf_names`.
    """
    if not compat.is_logger(logger, *_WITH_FOLDERS):
        return dict(values)
    named = {leaves.get(name, name): value for name, value in values.items()}
    if compat.is_logger(logger, "MLFlowLogger"):
        return {mlflow_name(name): value for name, value in named.items()}
    return named


def mlflow_name(name: str) -> str:
    """Return the name of a number in MLflow.

    MLflow takes letters, digits, and ``_``, ``-``, ``.``, ``/`` and space (since 2.14 also ``:``, but not on Windows),
    and Lightning's ``MLFlowLogger`` drops all other characters, which could make two names equal. Here each other
    character, and each hyphen, becomes its code point in hexadecimal digits between hyphens; `usual_name` undoes it.

    Args:
        name: The usual name.

    Example:
        >>> mlflow_name("active_count/train/layer1.0.relu#1")
        'active_count/train/layer1.0.relu-23-1'
    """
    return re.sub(r"[^A-Za-z0-9_./ ]", lambda found: f"-{ord(found[0]):x}-", name)


def usual_name(name: str) -> str:
    """Return the usual name of a number that MLflow has under the name from `mlflow_name`.

    Args:
        name: The name in MLflow.

    Example:
        >>> usual_name("active_count/train/layer1.0.relu-23-1")
        'active_count/train/layer1.0.relu#1'
    """
    return re.sub("-([0-9a-f]+)-", lambda found: chr(int(found[1], 16)), name)
