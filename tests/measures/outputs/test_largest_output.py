"""The largest output against a loop."""

import math

import pytest
import torch
from torch import nn

from lnsgd.measures import largest_output
from lnsgd.models import MLP
from tests.reference.measures import largest_magnitude_loop
from tests.tolerances import EXACT

N = 23


def batches(inputs: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in inputs.split(size)]


@pytest.mark.parametrize("size", [1, 5, N, 100])
@pytest.mark.parametrize("outputs", [1, 3])
def test_equals_a_loop_however_the_data_is_split(outputs, size):
    torch.manual_seed(0)
    net, inputs = MLP([4, 6, outputs]).double(), torch.randn(N, 4, dtype=torch.float64)
    expected = largest_magnitude_loop(net(inputs).tolist())
    assert largest_output(net, batches(inputs, size)) == pytest.approx(expected, rel=EXACT["rtol"])


@pytest.mark.parametrize(("row", "expected"), [([1.0, -5.0], 5.0), ([4.0, -3.0], 4.0), ([0.0, 0.0], 0.0)])
def test_both_signs_count(row, expected):
    assert largest_output(nn.Identity(), batches(torch.tensor([[0.0, 0.0], row]), 1)) == expected


def test_nan_is_not_hidden():
    values = torch.tensor([[1.0], [float("nan")], [2.0]])
    assert math.isnan(largest_output(nn.Identity(), batches(values, 1)))


def test_processes_take_the_largest_of_their_parts():
    values, seen = torch.tensor([[1.0], [7.0], [2.0]]), []

    def keep(own: torch.Tensor) -> torch.Tensor:
        seen.append(own)
        return own

    largest_output(nn.Identity(), batches(values[:2], 1), reduce=keep)
    rest = largest_output(nn.Identity(), batches(values[2:], 1), reduce=lambda own: torch.maximum(own, seen[0]))
    assert rest == 7.0


def test_an_empty_part_of_a_batch_is_left_out():
    batch = (torch.empty(0, 1), torch.empty(0, dtype=torch.int64))
    assert largest_output(nn.Identity(), [batch, *batches(torch.tensor([[3.0]]), 1), batch]) == 3.0


def test_measured_in_eval_mode_without_a_change():
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9), nn.BatchNorm1d(3))
    inputs = torch.randn(N, 4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    assert largest_output(net, batches(inputs, 5)) == largest_output(net, batches(inputs, 5))
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_empty_data_is_refused():
    with pytest.raises(ValueError, match="no examples to evaluate on"):
        largest_output(MLP([4, 3, 1]), [])
