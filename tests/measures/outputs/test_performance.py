"""Loss and error against loops over the examples."""

import math

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.measures import performance
from lnsgd.models import MLP
from tests.reference import losses
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}
N = 23

# Loss, outputs of the network, the loss of one example.
CLASSES = {
    "cross-entropy": (CrossEntropy(), 3, losses.cross_entropy),
    "logistic": (LogisticLoss(), 3, losses.logistic),
    "logistic-one-output": (LogisticLoss(), 1, losses.logistic),
    "hinge": (HingeLoss(), 3, lambda o, t: losses.hinge(o, t, 1.0)),
    "squared": (SquaredLoss(), 3, lambda o, t: losses.squared(o, t, "mean")),
}
BATCHES = pytest.mark.parametrize("batch", [1, 5, N, 100])


def network(outputs: int) -> MLP:
    torch.manual_seed(0)
    return MLP([4, 6, outputs]).double()


def batches(inputs: torch.Tensor, labels: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(inputs.split(size), labels.split(size)))


def error_loop(outputs: list[list[float]], labels: list[int]) -> float:
    """The class of a single output is its sign."""
    wrong = 0
    for own, label in zip(outputs, labels):
        predicted = own.index(max(own)) if len(own) > 1 else int(own[0] > 0)
        wrong += predicted != label
    return wrong / len(labels)


@BATCHES
@pytest.mark.parametrize(("loss", "outputs", "reference"), CLASSES.values(), ids=CLASSES)
def test_class_labels_equal_a_loop(loss, outputs, reference, batch):
    net = network(outputs)
    inputs, labels = torch.randn(N, 4, dtype=torch.float64), torch.randint(max(2, outputs), (N,))
    found = performance(net, loss, batches(inputs, labels, batch))
    own = net(inputs).tolist()
    expected = sum(reference(o, label) for o, label in zip(own, labels.tolist())) / N
    assert found.loss == pytest.approx(expected, **APPROX)
    assert found.error == error_loop(own, labels.tolist())
    assert 0 < found.error < 1


@BATCHES
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_real_targets_have_no_error(reduction, batch):
    net = network(3)
    inputs, targets = torch.randn(N, 4, dtype=torch.float64), torch.randn(N, 3, dtype=torch.float64)
    found = performance(net, SquaredLoss(reduction), batches(inputs, targets, batch))
    own = net(inputs).tolist()
    expected = sum(losses.squared_to(o, t, reduction) for o, t in zip(own, targets.tolist())) / N
    assert found.loss == pytest.approx(expected, **APPROX)
    assert math.isnan(found.error)


def test_float32_losses_are_summed_in_float64():
    class Constant(nn.Module):
        def forward(self, x):
            return x

    # In float32, 2²⁴ + 1 is 2²⁴.
    inputs = torch.tensor([[2.0**12], [1.0], [1.0]])
    found = performance(Constant(), SquaredLoss(), [(inputs, torch.zeros(3, 1))])
    assert found.loss == (2**24 + 2) / 3


def test_processes_sum_their_parts():
    net = network(3)
    inputs, labels = torch.randn(N, 4, dtype=torch.float64), torch.randint(3, (N,))
    whole = performance(net, CrossEntropy(), batches(inputs, labels, 5))
    sums = []

    def keep(own: torch.Tensor) -> torch.Tensor:
        sums.append(own)
        return own

    performance(net, CrossEntropy(), batches(inputs[:9], labels[:9], 5), reduce=keep)
    rest = performance(net, CrossEntropy(), batches(inputs[9:], labels[9:], 5), reduce=lambda own: own + sums[0])
    assert rest.loss == pytest.approx(whole.loss, **APPROX)
    assert rest.error == whole.error


def test_measured_in_eval_mode_without_a_change():
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9), nn.BatchNorm1d(3))
    inputs, labels = torch.randn(N, 4), torch.randint(3, (N,))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (performance(net, CrossEntropy(), batches(inputs, labels, 5)) for _ in range(2))
    assert first == second
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_nan_outputs_are_not_hidden():
    found = performance(nn.Identity(), SquaredLoss(), [(torch.tensor([[float("nan")]]), torch.tensor([1]))])
    assert math.isnan(found.loss)


def test_empty_data_is_refused():
    with pytest.raises(ValueError, match="no examples to evaluate on"):
        performance(network(3), CrossEntropy(), [])
