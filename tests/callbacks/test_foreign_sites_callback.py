"""Units and examples at activation sites of foreign networks."""

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
    """Return the pre-activations of every call of the named modules, examples first."""
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


def test_relu_of_a_resnet_block_is_two_sites(tmp_path):
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
    assert counts.pop("total") == pytest.approx(sum(expected.values()), rel=1e-3)
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
    """A network whose activation gets (tokens, images, features)."""

    def __init__(self):
        super().__init__()
        self.act, self.head = nn.GELU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.act(x.expand(5, *x.shape)).mean(0))


class Linear(TokensFirst):
    def __init__(self):
        super().__init__()
        del self.act

    def forward(self, x):
        return self.head(x)


class Unused(TokensFirst):
    def forward(self, x):
        return self.head(x)


class Unsteady(TokensFirst):
    """A network that calls its activation once per example, without another output for that."""

    def forward(self, x):
        for _ in x:
            active = self.act(x)
        return self.head(active)


class Deeper(TokensFirst):
    """A network that activates as often as its batch has examples."""

    def forward(self, x):
        for _ in x:
            x = self.act(x)
        return self.head(x)


DEEPER = "the outputs of Project for an example depend on the other examples of its batch, or .* called after net.act"


@pytest.mark.parametrize(
    ("net", "message"),
    [
        pytest.param(TokensFirst, r"counted: net.act gets shape \(5, 2, 6\) for 2 examples; its f", id="tokens-first"),
        pytest.param(Linear, "Project calls no activation that can be seen; name sites by patterns", id="linear"),
        pytest.param(Unused, "none of the activation sites is called in a forward pass: net.act", id="unused"),
        pytest.param(Unsteady, "net.act is not called [0-9] times for every batch", id="unsteady"),
        pytest.param(Deeper, DEEPER, id="deeper"),
    ],
)
@pytest.mark.parametrize("make", [ActiveNeurons, ClassAssociation])
def test_sites_that_cannot_be_counted_are_refused(tmp_path, net, message, make):
    with pytest.raises(ValueError, match=message) as error:
        trainer_in(tmp_path, [make(splits=["train"])]).fit(Project(net()), loader())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("net", "message"),
    [(Unused, "none of the"), (Unsteady, "net.act is not called as often"), (Deeper, DEEPER)],
)
def test_features_of_such_sites_are_refused(tmp_path, net, message):
    with pytest.raises(ValueError, match=message):
        trainer_in(tmp_path, [SingularValues()]).fit(Project(net()), loader())


def test_network_made_by_configure_model_is_measured(tmp_path):
    """Lightning's ``configure_model`` comes after the callbacks' ``setup``."""

    class Late(Project):
        def __init__(self):
            super().__init__()
            self.net = None

        def configure_model(self):
            self.net = self.net or Network()

    trainer_in(tmp_path, [ActiveNeurons(splits=["train"])]).fit(Late(), loader())
    assert (0, "active_count", "train", "net.layers.1") in rows(tmp_path)
