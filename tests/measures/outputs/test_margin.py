"""Margins against a loop over the examples, in float64."""

import math
import statistics

import pytest
import torch
from torch import nn

from lnsgd.measures import Share, margins
from lnsgd.models import MLP
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}
N = 23
OUTPUTS = pytest.mark.parametrize("outputs", [1, 2, 3])


def problem(outputs: int) -> tuple[MLP, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = MLP([4, 6, outputs]).double()
    return net, torch.randn(N, 4, dtype=torch.float64), torch.randint(max(2, outputs), (N,))


def batches(inputs: torch.Tensor, labels: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(inputs.split(size), labels.split(size)))


def loop(outputs: list[list[float]], labels: list[int]) -> list[float]:
    """Margins by their definition; y = ±1 of a single output."""
    found = []
    for own, label in zip(outputs, labels):
        if len(own) == 1:
            found.append(own[0] if label == 1 else -own[0])
        else:
            found.append(own[label] - max(o for c, o in enumerate(own) if c != label))
    return found


@OUTPUTS
@pytest.mark.parametrize("batch", [1, 5, N, 100])
def test_equal_a_loop_over_the_examples(outputs, batch):
    net, inputs, labels = problem(outputs)
    found = margins(net, batches(inputs, labels, batch))
    expected = sorted(loop(net(inputs).tolist(), labels.tolist()))
    assert found.values.tolist() == pytest.approx(expected, **APPROX)
    assert expected[0] < 0 < expected[-1]
    between = (expected[6] + expected[7]) / 2
    assert found.fraction(between) == (N - 7) / N
    assert found.quantile(0.5) == pytest.approx(statistics.median(expected), **APPROX)
    assert found.quantile(0.0) == pytest.approx(expected[0], **APPROX)
    assert found.quantile(0.25) == pytest.approx((expected[5] + expected[6]) / 2, **APPROX)  # at place 22/4


def test_a_margin_that_is_just_reached_counts():
    outputs = torch.tensor([[10.0, 0.0], [9.5, 0.0], [0.0, 10.0]])
    found = margins(nn.Identity(), [(outputs, torch.tensor([0, 0, 0]))])
    assert found.fraction(10.0) == 1 / 3
    assert found.fraction(-10.0) == 1


def test_zero_margins_of_an_untrained_network():
    """Equal outputs are no correct classification, though the first of them would be predicted."""
    found = margins(nn.Identity(), [(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))])
    assert found.values.tolist() == [0] * 4


def test_differences_of_float32_are_not_rounded():
    outputs = torch.tensor([[2.0**25, 1.0]])
    assert margins(nn.Identity(), [(outputs, torch.tensor([0]))]).values.item() == 2**25 - 1


@pytest.mark.parametrize("outputs", [[[math.nan, 1.0]], [[math.inf, 1.0]], [[0.0, -math.inf]], [[math.nan]]], ids=str)
def test_outputs_that_are_not_finite_have_margin_nan(outputs):
    data = [(torch.tensor(outputs), torch.tensor([0])), (torch.zeros(1, len(outputs[0])), torch.tensor([0]))]
    found = margins(nn.Identity(), data)
    assert math.isnan(found.fraction(-1e9)) and math.isnan(found.quantile(0.0))


@OUTPUTS
def test_processes_collect_their_examples(outputs):
    """Process r of two holds the examples r, r + 2 and so on; what each hands in is taken down first."""
    net, inputs, labels = problem(outputs)
    whole = margins(net, batches(inputs, labels, 5))
    parts = [margins(net, [(inputs[rank::2], labels[rank::2])]).values for rank in (0, 1)]
    for rank in (0, 1):
        handed_in = []

        def reduce(own, rank=rank, handed_in=handed_in):
            """The other's counts, then the other's numbers, in no particular order."""
            handed_in.append(own)
            if len(handed_in) == 1:
                return torch.tensor([float(len(part)) for part in parts])
            other = own.clone()
            start = 0 if rank == 1 else len(parts[0])
            assert (own[start : start + len(parts[1 - rank])] == 0).all()
            other[start : start + len(parts[1 - rank])] = parts[1 - rank]
            return other

        found = margins(net, [(inputs[rank::2], labels[rank::2])], share=Share(rank, 2, reduce))
        assert handed_in[0].tolist() == [len(part) if r == rank else 0 for r, part in enumerate(parts)]
        torch.testing.assert_close(found.values, whole.values, **EXACT)


def test_the_network_is_not_changed():
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9), nn.BatchNorm1d(3))
    inputs, labels = torch.randn(N, 4), torch.randint(3, (N,))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (margins(net, batches(inputs, labels, 5)) for _ in range(2))
    assert torch.equal(first.values, second.values)
    assert net.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_real_targets_are_refused():
    with pytest.raises(ValueError, match="margins need class labels"):
        margins(nn.Identity(), [(torch.zeros(2, 1), torch.zeros(2, 1))])


def test_empty_data_is_refused():
    with pytest.raises(ValueError, match="no examples to take margins of"):
        margins(nn.Identity(), [])
