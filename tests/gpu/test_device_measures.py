"""Measures on every device against computations on the CPU without lnsgd, in float64 and in half precision."""

import copy

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd
from lnsgd.measuring import MEASURERS, ClassAssociationMeasurer, HessianTraceMeasurer, TopEigenvaluesMeasurer
from lnsgd.models import MLP
from tests.reference.measures import associated_loop, dense_hessian, firings_loop, mean_active_loop

LOSS = nn.CrossEntropyLoss(reduction="none")
CLASSES = 3


def network(convolutional: bool = False) -> nn.Module:
    torch.manual_seed(0)
    if convolutional:
        first = [nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*first, nn.Linear(4, CLASSES)).double().eval()
    return nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, CLASSES)).double().eval()


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    return inputs, inputs[:, :CLASSES].argmax(1)


def measured(net: nn.Module, device: torch.device, measures: list, **options) -> dict[tuple[str, str], float]:
    loader = DataLoader(TensorDataset(*examples()), 13)
    table = lnsgd.measure(net, loader, measures, loss=LOSS, device=device, **options)
    return {(row.measure, row.layer): row.value for row in table.itertuples()}


@pytest.mark.parametrize("convolutional", [False, True], ids=["mlp", "convolutional"])
def test_curvature_is_that_of_the_dense_hessian(device, convolutional):
    net, (inputs, labels) = network(convolutional), examples()
    hessian, _ = dense_hessian(net, LOSS, inputs, labels)
    measures = [HessianTraceMeasurer(rtol=1e-9), TopEigenvaluesMeasurer(count=2, rtol=1e-8, max_products=200)]
    found = measured(net, device, measures)
    assert found["hessian_trace", ""] == pytest.approx(hessian.trace().item(), rel=1e-9)
    assert found["top_eigenvalue_1", ""] == pytest.approx(torch.linalg.eigvalsh(hessian).max().item(), rel=1e-6)


def test_neurons_loss_and_distance_are_those_of_loops(device):
    net, (inputs, labels) = network(), examples()
    init = copy.deepcopy(net)
    with torch.no_grad():
        net[0].weight.add_(0.1)
    association = ClassAssociationMeasurer(1.1, splits=["train"])  # no unit of a random network fires twice as much
    found = measured(net, device, ["performance", "active_neurons", association, "distance_from_init"], init=init)
    before_relu = net[0](inputs).detach()
    assert found["loss", ""] == pytest.approx(LOSS(net(inputs), labels).mean().item(), rel=1e-12)
    assert found["active_count", "1"] == pytest.approx(mean_active_loop(before_relu), rel=1e-12)
    owners = associated_loop(firings_loop(before_relu, labels, CLASSES), 1.1)
    assert found["associated_count", "1"] == sum(owner >= 0 for owner in owners) > 0
    assert found["distance_from_init", ""] == pytest.approx(0.1 * 42**0.5, rel=1e-12)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_curvature_is_in_full_precision_also_of_a_run_in_half_precision(device, precision):
    net, (inputs, labels) = network().float(), examples()
    hessian, _ = dense_hessian(network(), LOSS, inputs, labels)
    loader = DataLoader(TensorDataset(inputs.float(), labels), 13)
    table = lnsgd.measure(net, loader, HessianTraceMeasurer(rtol=1e-9), loss=LOSS, device=device, precision=precision)
    assert table["value"].iloc[0] == pytest.approx(hessian.trace().item(), rel=1e-4)


def test_measuring_changes_neither_weights_nor_random_state(device):
    net = network().to(device)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    measured(net, device, ["performance", "active_neurons", "hessian_trace", "top_eigenvalues"])
    after = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    assert all(torch.equal(one, other) for one, other in zip(states, after))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_every_measure_is_that_of_the_cpu(device):
    """Estimates too, whose random probes are drawn on the CPU."""
    special = {"curve_shape", "sharpness", "recovery_error", "hidden_units"}  # each for one kind of small network
    names = sorted(MEASURERS.keys() - special)
    torch.manual_seed(0)
    net = MLP([6, 7, CLASSES]).double()  # of which all the others can be taken
    init = MLP([6, 7, CLASSES]).double()
    loader = DataLoader(TensorDataset(*examples()), 13)
    here, there = (
        lnsgd.measure(net, loader, names, loss=LOSS, init=init, device=one) for one in (device, torch.device("cpu"))
    )
    assert len(here) > len(names)
    pd.testing.assert_frame_equal(here, there, check_exact=False, rtol=1e-6, atol=1e-9)
