"""What a unit and an example are in networks that are not lnsgd's."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import VisionTransformer, resnet18

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, SingularValues
from tests.callbacks.foreign_project import Network, Project, loader, rows, trainer_in

IMAGES = 6


def images(size):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(IMAGES) % 2
    return DataLoader(TensorDataset(torch.randn(IMAGES, 3, size, size, generator=generator), labels), 4)


def measured(folder, net, callback, data):
    trainer_in(folder, [callback], max_steps=1).fit(Project(net, lr=0.0), data)
    return rows(folder, 0)


def inputs_of(net, sites, data):
    """Pre-activations of the modules of these names by hand: every call's, images first."""
    seen = {name: [] for name in sites}
    hooks = [
        net.get_submodule(name).register_forward_pre_hook(lambda m, x, name=name: seen[name].append(x[0].clone()))
        for name in sites
    ]
    net.eval()
    with torch.no_grad():
        net(data.dataset.tensors[0])
    for hook in hooks:
        hook.remove()
    net.train()
    return seen


def active(preactivations):
    return (preactivations > 0).flatten(1).sum(1).double().mean().item()


def test_one_relu_of_a_resnet_block_is_two_sites(tmp_path):
    torch.manual_seed(0)
    net, data = resnet18(num_classes=2), images(16)
    expected = {}
    blocks = [f"layer{layer}.{block}.relu" for layer in range(1, 5) for block in range(2)]
    for name, calls in inputs_of(net, ["relu", *blocks], data).items():
        assert len(calls) == (1 if name == "relu" else 2)
        names = [f"net.{name}"] if len(calls) == 1 else [f"net.{name}#{call}" for call in (1, 2)]
        expected |= dict(zip(names, map(active, calls)))
    found = measured(tmp_path, net, ActiveNeurons(splits=["train"]), data)
    counts = {layer: value for (_, measure, _, layer), value in found.items() if measure == "active_count"}
    # Images in batches of four and all at once give sums in another order, which may move a pre-activation at zero.
    assert counts == pytest.approx(expected, rel=1e-3)
    assert list(counts) == list(expected)


def test_units_of_a_transformer_are_tokens_times_features(tmp_path):
    torch.manual_seed(0)
    net, data = VisionTransformer(16, 8, 2, 2, 12, 24, num_classes=2), images(16)
    sites = [f"encoder.layers.encoder_layer_{block}.mlp.1" for block in range(2)]
    found = measured(tmp_path, net, ActiveNeurons(splits=["train"], layers=["*.mlp.1"]), data)
    tokens = 1 + (16 // 8) ** 2
    for name, (preactivations,) in inputs_of(net, sites, data).items():
        assert preactivations.shape == (IMAGES, tokens, 24)
        count, fraction = (found[0, f"active_{of}", "train", f"net.{name}"] for of in ("count", "fraction"))
        assert count == pytest.approx(active(preactivations), rel=1e-3)
        assert fraction == pytest.approx(count / (tokens * 24))


class TokensFirst(nn.Module):
    """Gives its activation (tokens, images, features)."""

    def __init__(self):
        super().__init__()
        self.act, self.head = nn.GELU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.act(x.expand(5, *x.shape)).mean(0))


class Functional(TokensFirst):
    def __init__(self):
        super().__init__()
        del self.act

    def forward(self, x):
        return self.head(torch.relu(x))


class Unused(TokensFirst):
    def forward(self, x):
        return self.head(x)


class Unsteady(TokensFirst):
    """Calls its activation as often as it has examples."""

    def forward(self, x):
        for _ in x:
            x = self.act(x)
        return self.head(x)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        pytest.param(TokensFirst, r"net.act gets shape \(5, 8, 6\) for 8 examples; its first dim", id="tokens-first"),
        pytest.param(Functional, r"no activation module in Project \(functions such as F.relu", id="functional"),
        pytest.param(Unused, "none of the activation sites is called in a forward pass: net.act", id="unused"),
        pytest.param(Unsteady, "net.act is not called [0-9] times for every batch", id="unsteady"),
    ],
)
@pytest.mark.parametrize("make", [ActiveNeurons, ClassAssociation])
def test_sites_that_cannot_be_counted_are_refused(tmp_path, net, message, make):
    with pytest.raises(ValueError, match=message) as error:
        trainer_in(tmp_path, [make(splits=["train"])]).fit(Project(net()), loader())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("net", "message"), [(Unused, "none of the"), (Unsteady, "net.act is not called as often")])
def test_features_of_such_sites_are_refused(tmp_path, net, message):
    with pytest.raises(ValueError, match=message):
        trainer_in(tmp_path, [SingularValues()]).fit(Project(net()), loader())


def test_a_network_that_is_made_late(tmp_path):
    """Lightning's ``configure_model`` comes after the callbacks' ``setup``."""

    class Late(Project):
        def __init__(self):
            super().__init__()
            self.net = None

        def configure_model(self):
            self.net = self.net or Network()

    trainer_in(tmp_path, [ActiveNeurons(splits=["train"])]).fit(Late(), loader())
    assert (0, "active_count", "train", "net.layers.1") in rows(tmp_path)
