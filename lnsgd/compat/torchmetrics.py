"""Private and version-dependent interfaces of torchmetrics."""

from typing import Any


def metric_states(metric: Any) -> list[str]:
    """Return the names of the states of a ``torchmetrics.Metric``.

    Tried with torchmetrics 1.9.

    Args:
        metric: The metric.
    """
    return list(metric._defaults)
