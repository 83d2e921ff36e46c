"""A Monte Carlo estimate with its standard error."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo estimate.

    Attributes:
        value: The estimate.
        standard_error: Standard deviation of the mean over probes; NaN for a single probe.
        probes: Number of independent random probes.
        samples: Number of examples of the data.
    """

    value: float
    standard_error: float
    probes: int
    samples: int

    @classmethod
    def from_probes(cls, values: Tensor, samples: int) -> "Estimate":
        """Make an estimate from the values of P independent probes: their mean and its standard error.

        Args:
            values: Shape (P,).
            samples: Number of examples of the data.

        Example:
            >>> import torch
            >>> estimate = Estimate.from_probes(torch.tensor([1.0, 3.0]), samples=10)
            >>> estimate.value, round(estimate.standard_error, 6), estimate.probes
            (2.0, 1.0, 2)
        """
        probes = len(values)
        error = values.std().item() / probes**0.5 if probes > 1 else math.nan
        return cls(values.mean().item(), error, probes, samples)
