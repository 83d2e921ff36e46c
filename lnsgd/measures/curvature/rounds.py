"""What an estimate of the trace is, and when it is good enough."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlockTraces:
    """Traces of the diagonal blocks of the T tensors of θ.

    Attributes:
        values: (T,), float64.
        errors: Their standard errors, (T,).
        total_error: That of the sum of the values.
        probes: What was spent on them; 0 where they are exact.
        samples: Number of examples.
    """

    values: Tensor
    errors: Tensor
    total_error: float
    probes: int
    samples: int

    @classmethod
    def exact(cls, values: Tensor, samples: int) -> "BlockTraces":
        """Without an error."""
        return cls(values, torch.zeros_like(values), 0.0, 0, samples)

    @classmethod
    def from_probes(cls, values: Tensor, samples: int, probes: int) -> "BlockTraces":
        """Mean and error of independent values (K, T)."""
        root = len(values) ** 0.5
        return cls(values.mean(0), values.std(0) / root, values.sum(1).std().item() / root, probes, samples)


@dataclass(frozen=True)
class Budget:
    """How many probes are taken.

    Attributes:
        rtol: Enough when the standard error is at most this part of the estimate.
        min_probes: Never fewer, since the spread of a few says little about the error.
        max_probes: Never more.

    Raises:
        ValueError: a tolerance that is not positive, fewer than two probes, or a maximum below the minimum.
    """

    rtol: float = 0.02
    min_probes: int = 16
    max_probes: int = 1000

    def __post_init__(self) -> None:
        if not self.rtol > 0:
            raise ValueError(f"rtol = {self.rtol}; the relative standard error to be reached must be > 0")
        if self.min_probes < 2:
            raise ValueError(f"min_probes = {self.min_probes}; at least 2 are needed for a standard error")
        if self.max_probes < self.min_probes:
            raise ValueError(f"max_probes = {self.max_probes} is below min_probes = {self.min_probes}")

    def reached(self, value: float, standard_error: float) -> bool:
        """Whether an estimate is good enough."""
        return standard_error <= self.rtol * abs(value)

    def more_probes(self, values: Tensor) -> int:
        """How many to add to independent probes (P, T), whose sum over T is estimated; 0 for none.

        As many again, not one by one: the more often one looks, the likelier one stops at a spread that
        is too small by chance.
        """
        totals = values.sum(1)
        if self.reached(totals.mean().item(), totals.std().item() / len(totals) ** 0.5):
            return 0
        return min(len(totals), self.max_probes - len(totals))
