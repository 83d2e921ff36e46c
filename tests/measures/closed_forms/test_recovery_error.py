"""The recovery error entry by entry, and against the mean over random measurements."""

import pytest
import torch

from lnsgd.measures.closed_forms import recovery_error
from tests.tolerances import STANDARD_ERRORS


def drawn(rank: int = 3, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(4, rank, dtype=dtype, generator=generator)
    return factor, torch.randn(4, 4, dtype=dtype, generator=generator)


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_is_the_sum_of_squared_differences(rank):
    factor, target = drawn(rank)
    difference = [
        (sum(factor[i, k] * factor[j, k] for k in range(rank)) - target[i, j]).item()
        for i in range(4)
        for j in range(4)
    ]
    assert recovery_error(factor, target) == pytest.approx(sum(d**2 for d in difference), rel=1e-12)


def test_is_the_mean_squared_error_on_fresh_measurements():
    factor, target = drawn()
    matrices = torch.randn(100_000, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    squares = (matrices @ (factor @ factor.T - target).flatten()).square()
    error = squares.std() / len(squares) ** 0.5
    assert abs(squares.mean() - recovery_error(factor, target)) < STANDARD_ERRORS * error


def test_is_zero_for_a_recovered_matrix():
    factor, _ = drawn()
    assert recovery_error(factor, factor @ factor.T) == 0


def test_single_precision_is_summed_in_double():
    factor, target = drawn(dtype=torch.float32)
    assert recovery_error(factor, target) == recovery_error(factor.double(), target.double())


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (4,)], ids=str)
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="recovery_error: a factor of shape"):
        recovery_error(drawn()[0], torch.zeros(shape))
