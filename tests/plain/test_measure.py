"""`lnsgd.measure`: a table of any network's measures, whoever trains it."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lnsgd
from lnsgd import callbacks
from lnsgd.measuring import ActiveNeuronsMeasurer, HessianTraceMeasurer, PerformanceMeasurer
from lnsgd.untrusted.checkpoint import save_safetensors
from tests.plain.networks import LOSS, dataset, loaders, network

NAMES = ["performance", "active_neurons", "hessian_trace", "distance_from_init"]


def values(table, measure):
    """Return the values of a measure by split and layer."""
    rows = table[table["measure"] == measure]
    return {(split, layer): value for split, layer, value in zip(rows["split"], rows["layer"], rows["value"])}


def test_numbers_are_those_of_a_computation_by_hand():
    """Loss, error, active neurons and distance in a loop over the examples; the trace from the whole Hessian."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    init = copy.deepcopy(net)
    with torch.no_grad():
        net[0].weight.add_(0.1)
    inputs, labels = torch.randn(30, 4, dtype=torch.float64), torch.randint(3, (30,))
    found = lnsgd.measure(net, DataLoader(TensorDataset(inputs, labels), 7), NAMES, loss=LOSS, init=init)

    outputs, fired = net(inputs), net[0](inputs) > 0
    parameters = dict(net.named_parameters())
    names, sizes = list(parameters), [p.numel() for p in parameters.values()]

    def mean_loss(flat):
        pieces = {name: part.view_as(parameters[name]) for name, part in zip(names, flat.split(sizes))}
        return nn.functional.cross_entropy(torch.func.functional_call(net, pieces, inputs), labels)

    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    trace = torch.autograd.functional.hessian(mean_loss, flat).trace()
    assert values(found, "loss") == {("train", ""): pytest.approx(LOSS(outputs, labels).mean().item())}
    assert values(found, "error") == {("train", ""): (outputs.argmax(1) != labels).double().mean().item()}
    assert values(found, "active_count")["train", "1"] == pytest.approx(fired.sum(1).double().mean().item())
    assert values(found, "hessian_trace")["train", ""] == pytest.approx(trace.item(), rel=1e-10)
    assert values(found, "distance_from_init")["", ""] == pytest.approx(0.1 * 20**0.5)


def test_table_has_the_columns_of_the_record():
    found = lnsgd.measure(network(), loaders(), NAMES, loss=LOSS, init=network(1))
    assert list(found) == ["measure", "split", "layer", "value", "stderr"]
    assert [str(kind) for kind in found.dtypes[-2:]] == ["float64", "float64"]
    assert set(values(found, "loss")) == {("train", ""), ("val", "")}
    estimates = found[found["measure"] == "hessian_trace"]["stderr"]
    assert len(estimates) > 1
    assert estimates.notna().all()
    assert found[found["measure"] == "loss"]["stderr"].isna().all()


def test_objects_have_settings_of_their_own():
    objects = [ActiveNeuronsMeasurer(["val"]), callbacks.Performance(splits=["val"], examples=5)]
    found = lnsgd.measure(network(), loaders(), [*objects, "weight_norms"], loss=LOSS)
    assert set(found["split"]) == {"val", ""}
    assert "norm" in set(found["measure"])


def test_a_loss_is_for_the_measures_that_have_none():
    def own(outputs, labels):
        return torch.full((len(labels),), 7.0)

    given = [PerformanceMeasurer(["train"], loss=own), PerformanceMeasurer(["val"])]
    found = values(lnsgd.measure(network(), loaders(), given, loss=LOSS), "loss")
    assert found["train", ""] == 7.0
    assert found["val", ""] != 7.0
    with pytest.raises(ValueError, match="has no attribute `loss`; give a per-example loss="):
        lnsgd.measure(network(), loaders(), ["performance"])


KINDS = {
    "module": lambda net, path: net,
    "state-dict": lambda net, path: net.state_dict(),
    "state-dict-of-wrapper": lambda net, path: nn.DataParallel(net).state_dict(),
    "parameters": lambda net, path: dict(net.named_parameters()),
    "compiled": lambda net, path: torch.compile(net),
    "file": lambda net, path: path,
    "file-by-name": lambda net, path: str(path),
}


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_can_be_given_in_many_ways(kind, tmp_path):
    net, init = network(), network(1)
    path = tmp_path / "init.safetensors"
    save_safetensors(init.state_dict(), path)
    expected = sum((p - q).square().sum().item() for p, q in zip(net.parameters(), init.parameters())) ** 0.5
    found = lnsgd.measure(net, measures=["distance_from_init"], init=KINDS[kind](init, path))
    assert values(found, "distance_from_init")["", ""] == pytest.approx(expected, rel=1e-6)


def test_initial_weights_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs the initial weights θ₀; give init="):
        lnsgd.measure(network(), measures="distance_from_init")
    with pytest.raises(ValueError, match="init is a list; give a module"):
        lnsgd.measure(network(), measures="distance_from_init", init=[1, 2])
    with pytest.raises(ValueError, match="does not exist"):
        lnsgd.measure(network(), measures="distance_from_init", init=tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"have no tensor 'conv.weight'; they belong to another model"):
        lnsgd.measure(network(), measures="distance_from_init", init=nn.Linear(2, 2))


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="its keys must be train, val or test"):
        lnsgd.measure(network(), {"training": loaders()["train"]}, "active_neurons")


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_network_is_measured_itself(wrap):
    net = network()
    of = {
        name: lnsgd.measure(each, loaders(), NAMES, loss=LOSS, init=net)
        for name, each in [("a", net), ("b", wrap(net))]
    }
    assert of["a"].equals(of["b"])


CONTEXTS = {
    "no-grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_context_of_the_call_does_not_matter(context):
    expected = lnsgd.measure(network(), loaders(), NAMES, loss=LOSS, init=network(1))
    net, init = network(), network(1)
    with CONTEXTS[context]():
        assert lnsgd.measure(net, loaders(), NAMES, loss=LOSS, init=init).equals(expected)


def test_nothing_is_moved():
    net, given = network(), loaders()
    net(dataset().tensors[0]).sum().backward()
    net.drop.eval()
    before, gradients = copy.deepcopy(net), [p.grad.clone() for p in net.parameters()]
    modes = [module.training for module in net.modules()]
    order = torch.get_rng_state()
    lnsgd.measure(net, given, [*NAMES, "class_association", "gradient_norm", "top_eigenvalues"], loss=LOSS, init=before)
    assert torch.equal(torch.get_rng_state(), order)
    assert [module.training for module in net.modules()] == modes
    for (name, now), (_, then) in zip(net.state_dict().items(), before.state_dict().items()):
        assert torch.equal(now, then), name
    for parameter, gradient in zip(net.parameters(), gradients):
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_have_the_number_format_of_the_weights(dtype):
    found = lnsgd.measure(
        network().to(dtype), loaders(), ["active_neurons", HessianTraceMeasurer(examples=8)], loss=LOSS
    )
    assert found["value"].notna().all()


def test_a_device_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(ValueError, match="cannot be used") as caught:
        lnsgd.measure(network(), measures="weight_norms", device="cuda:93")
    assert "\n" not in str(caught.value)
    assert lnsgd.measure(network(), measures="weight_norms", device="cpu")["value"].notna().all()
