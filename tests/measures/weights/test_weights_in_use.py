"""The weights that a network computes with, against the tensors that its modules have in a forward pass."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from lnsgd.measures import distance_from_init, tensor_statistics, weights_in_use
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}

# How modules get a weight from parameters of other names.
MADE = {
    "weight-norm": parametrizations.weight_norm,
    "spectral-norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "older-weight-norm": weight_norm,
    "older-spectral-norm": spectral_norm,
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "pruned-twice": lambda layer: prune.l1_unstructured(prune.random_unstructured(layer, "weight", 0.3), "weight", 0.3),
}


def network(kind):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older ones are deprecated
        return nn.Sequential(MADE[kind](nn.Linear(4, 4)), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def moved(net):
    """Change the parameters of a network at random."""
    generator = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data += torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return net


@pytest.mark.parametrize("kind", MADE)
def test_they_are_the_tensors_of_a_forward_pass(kind):
    net = moved(network(kind)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = weights_in_use(net)
    assert set(found) == {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)  # also vectors of power iterations
    net.eval()(torch.zeros(1, 4, dtype=torch.float64))
    assert torch.equal(found["0.weight"], net[0].weight.detach())


@pytest.mark.parametrize("kind", MADE)
def test_distance_is_the_same_from_networks_and_state_dicts(kind):
    start, net = network(kind), moved(network(kind))
    initial, final = (weights_in_use(of) for of in (start, net))
    expected = sum((final[name] - initial[name]).square().sum() for name in final).sqrt().item()
    for theta, theta_0 in (
        (net, start),
        (net, start.state_dict()),
        (net, initial),
        (net.state_dict(), start),
        (final, start),
        (final, initial),
    ):
        assert distance_from_init(theta, theta_0).total == pytest.approx(expected, **APPROX)


def test_pruning_and_its_removal_keep_the_name_of_the_weight():
    net = nn.Linear(3, 2).double()
    start = {name: value.clone() for name, value in weights_in_use(net).items()}
    prune.l1_unstructured(net, "weight", 3)
    mask = net.weight_mask.bool()
    expected = start["weight"][~mask].double().norm().item()
    assert distance_from_init(net, start).per_tensor == pytest.approx({"weight": expected, "bias": 0.0}, **APPROX)
    prune.remove(net, "weight")
    assert distance_from_init(net, start).per_tensor == pytest.approx({"weight": expected, "bias": 0.0}, **APPROX)


def test_trainable_only_counts_a_weight_by_the_parameters_that_make_it():
    net = network("weight-norm")
    net[0].parametrizations.weight.original1.requires_grad_(False)
    net[2].requires_grad_(False)
    assert set(weights_in_use(net, trainable_only=True)) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_shared_weights_count_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).double()
    net[1].weight = net[0].weight
    start = {name: value.clone() for name, value in net.state_dict().items()}
    net[0].weight.data += 1
    assert list(weights_in_use(net)) == ["0.weight", "0.bias", "1.bias"]
    assert distance_from_init(net, start).total == pytest.approx(3.0, **APPROX)


def test_names_that_a_compiled_module_inserts_do_not_matter():
    net = nn.Sequential(nn.Linear(3, 2)).double()
    start = {name: value.clone() for name, value in net.state_dict().items()}
    compiled = nn.Sequential(torch.compile(net[0]))
    net[0].weight.data += 1
    assert next(iter(compiled.state_dict())) == "0._orig_mod.weight"
    assert distance_from_init(compiled, start).total == pytest.approx(6**0.5, **APPROX)
    assert distance_from_init(net, compiled).total == 0.0


def test_lazy_modules_are_refused_before_their_first_batch():
    net = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"0\.weight of a lazy module has no value yet; pass a batch"):
        weights_in_use(net)
    assert list(weights_in_use(net, initialized_only=True)) == ["1.weight", "1.bias"]
    net(torch.zeros(1, 5))
    assert weights_in_use(net)["0.weight"].shape == (3, 5)


def test_distance_counts_frozen_weights_and_no_buffers():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    net[0].requires_grad_(False)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    for tensor in net.state_dict().values():
        tensor += 1
    expected = sum(p.numel() for p in net.parameters()) ** 0.5  # buffers have moved too
    for given in ((net, start), (net.state_dict(), start), (dict(net.named_parameters()), start)):
        assert distance_from_init(*given).total == pytest.approx(expected, **APPROX)


def test_a_network_without_weights_has_no_distance():
    with pytest.raises(ValueError, match="there is no weight to measure"):
        distance_from_init(nn.ReLU(), nn.ReLU())


def test_complex_weights_count_with_real_and_imaginary_parts():
    w = torch.tensor([3 + 4j, 1j], dtype=torch.complex64)
    assert distance_from_init({"w": w}, {"w": torch.zeros_like(w)}).total == pytest.approx(26**0.5, **APPROX)
    found = tensor_statistics({"w": w})["w"]
    assert found.norm == pytest.approx(26**0.5, **APPROX)
    assert found.mean != found.mean and found.largest != found.largest


def test_a_tensor_without_entries_has_norm_zero():
    assert tensor_statistics({"w": torch.zeros(0, 3)})["w"].norm == 0.0
