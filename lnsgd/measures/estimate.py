"""A number with its error."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo estimate.

    Attributes:
        value: The estimate.
        standard_error: Standard deviation of the mean over probes; NaN for a single probe.
        probes: Number of independent random probes.
        samples: Number of examples of the data it was taken on.
    """

    value: float
    standard_error: float
    probes: int
    samples: int

    @classmethod
    def from_probes(cls, values: Tensor, samples: int) -> "Estimate":
        """Mean and standard error of independent probes, shape (P,)."""
        probes = len(values)
        error = values.std().item() / probes**0.5 if probes > 1 else float("nan")
        return cls(values.mean().item(), error, probes, samples)
