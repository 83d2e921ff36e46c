"""Sites in networks of torchvision, timm and transformers, against counts by hooks written for each network."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

from lnsgd.measures import activation_sites, active_neurons, class_associated_neurons, dead_neurons, site_firings

EXAMPLES, CLASSES = 7, 3


def images(size=32):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, 3, size, size, generator=generator, dtype=torch.float64)
    return inputs, torch.arange(EXAMPLES) % CLASSES


def sentences():
    generator = torch.Generator().manual_seed(0)
    return {"input_ids": torch.randint(1, 50, (EXAMPLES, 9), generator=generator)}, torch.arange(EXAMPLES) % CLASSES


def halves(inputs, labels):
    """Two batches, of 4 and 3 examples."""
    take = (lambda part: {k: v[part] for k, v in inputs.items()}) if isinstance(inputs, dict) else inputs.__getitem__
    return [(take(part), labels[part]) for part in (slice(4), slice(4, None))]


def fired_by_hand(net, inputs, names):
    """Return the units that fire, (examples, units), at the inputs of named modules, by a hook on each of them."""
    seen = {}
    hooks = [
        net.get_submodule(name).register_forward_pre_hook(
            lambda module, given, name=name: seen.setdefault(name, []).append(given[0].detach().flatten(1) > 0)
        )
        for name in names
    ]
    with torch.no_grad():
        net.eval()(**inputs) if isinstance(inputs, dict) else net.eval()(inputs)
    for hook in hooks:
        hook.remove()
    return {name: calls[0] for name, calls in seen.items() if len(calls) == 1}


def resnet():
    return timm.create_model("resnet18", num_classes=CLASSES), images(), ["act1", "layer4.1.act2"], 17


def convnext():
    net = timm.create_model("convnext_atto", num_classes=CLASSES, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
    return net, images(), [f"stages.{stage}.blocks.0.mlp.act" for stage in range(4)], 4


def timm_vit():
    options = {"img_size": 16, "patch_size": 8, "depth": 2, "embed_dim": 12, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **options)
    return net, images(16), ["blocks.0.mlp.act", "blocks.1.mlp.act"], 2


def efficientnet():
    net = timm.create_model("efficientnet_b0", num_classes=CLASSES)
    return net, images(), ["bn1.act", "blocks.0.0.se.act1", "blocks.0.0.se.gate", "bn2.act"], 65


def mobilenet():
    net = torchvision.models.mobilenet_v3_small(num_classes=CLASSES)
    return net, images(), ["features.0.2", "features.1.block.1.scale_activation", "classifier.1"], 42


def vit():
    options = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    net = ViTForImageClassification(ViTConfig(**options, image_size=16, patch_size=8, num_labels=CLASSES))
    return net, images(16), [name for name, module in net.named_modules() if "Activation" in type(module).__name__], 2


def bert(**others):
    options = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    net = BertForSequenceClassification(BertConfig(vocab_size=50, **options, num_labels=CLASSES, **others))
    layers = [f"bert.encoder.layer.{layer}.intermediate.intermediate_act_fn" for layer in range(2)]
    return net, sentences(), [*layers, "bert.pooler.activation"], 3


def gpt():
    net = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=2, n_head=2, n_positions=16))
    return net, sentences(), ["transformer.h.0.mlp.act", "transformer.h.1.mlp.act"], 2


@pytest.mark.parametrize("make", [resnet, convnext, timm_vit, efficientnet, mobilenet, vit, bert, gpt])
def test_counts_equal_those_of_hooks_written_by_hand(make):
    torch.manual_seed(0)
    net, (inputs, labels), names, sites = make()
    net = net.double().eval()
    by_hand = fired_by_hand(net, inputs, names)
    data = halves(inputs, labels)
    active, dead = active_neurons(net, data), dead_neurons(net, data)
    associated = class_associated_neurons(net, data, threshold=1.5)
    assert len(active.per_site) == sites
    assert set(names) <= set(active.per_site)
    assert by_hand
    for name, fired in by_hand.items():
        assert active.per_site[name].count == pytest.approx(fired.sum(1).double().mean().item(), rel=1e-12)
        assert active.per_site[name].units == fired.shape[1]
        assert dead.per_site[name].count == int((~fired.any(0)).sum())
        by_class = torch.stack([fired[labels == c].sum(0) for c in range(CLASSES)])
        top = by_class.sort(0, descending=True).values
        assert associated.per_site[name].count == int(((top[0] > 0) & (top[0] >= 1.5 * top[1])).sum())
    assert active.total.units == sum(one.units for one in active.per_site.values())
    assert active.total.count == pytest.approx(sum(one.count for one in active.per_site.values()))


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_fast", "quick_gelu", "gelu_10", "mish", "relu2", "silu"])
def test_every_activation_of_transformers_is_a_site(name):
    net, (inputs, labels), names, _ = bert(hidden_act=name)
    assert list(active_neurons(net, [(inputs, labels)]).per_site) == names


def test_the_linear_activation_of_transformers_is_none():
    net, _, names, _ = bert(hidden_act="linear")
    assert list(activation_sites(net)) == names[2:]


class Functions(nn.Module):
    """Activations as functions, methods and modules, twice and in place."""

    def __init__(self, activation=F.relu):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 4)
        self.relu = nn.ReLU()
        self.activation = activation

    def forward(self, x):
        x = self.activation(self.first(x))
        x = self.activation(self.second(x))
        return self.relu(self.third(x))


FUNCTIONS = {
    "relu": [F.relu, torch.relu, torch.Tensor.relu, torch.relu_, lambda x: F.relu(x, inplace=True)],
    "gelu": [F.gelu, lambda x: F.gelu(x, approximate="tanh")],
    "silu": [F.silu, lambda x: F.silu(input=x)],
    "sigmoid": [torch.sigmoid, torch.Tensor.sigmoid_, F.sigmoid, torch.special.expit],
    "tanh": [torch.tanh, torch.Tensor.tanh, F.tanh],
    "clamp": [lambda x: x.clamp(min=0), lambda x: torch.clamp(x, 0, 6), lambda x: x.clamp_min_(0)],
    "leaky_relu": [F.leaky_relu, lambda x: F.leaky_relu_(x, 0.1)],
    "relu6": [F.relu6],
    "hardswish": [F.hardswish],
    "hardsigmoid": [F.hardsigmoid],
    "softplus": [F.softplus, lambda x: x * torch.tanh(F.softplus(x))],
    "elu": [F.elu],
    "selu": [F.selu],
    "mish": [F.mish],
    "logsigmoid": [F.logsigmoid],
    "threshold": [lambda x: F.threshold(x, 0.0, 0.0)],
}


@pytest.mark.parametrize(
    ("name", "function"), [pytest.param(name, f, id=name) for name, choices in FUNCTIONS.items() for f in choices]
)
def test_functions_are_sites_of_the_module_that_calls_them(name, function):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 5), Functions(function)).double(), torch.randn(EXAMPLES, 5).double()
    site = "1.F.relu" if name == "relu" else f"1.{name}"  # 1.relu is a module
    found = site_firings(net, [(x, torch.zeros(EXAMPLES))])
    assert list(found) == [f"{site}#1", f"{site}#2", "1.relu"]
    first = net[1].first(net[0](x)).detach()
    second = net[1].second(function(first.clone()))
    third = net[1].third(function(second.clone()))
    for firings, preactivations in zip(found.values(), (first, second, third)):
        assert firings.fired[0].tolist() == (preactivations > 0).sum(0).tolist()


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layers_of_torch_call_functions_also_where_there_is_a_fused_path(norm_first):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    data = [(torch.randn(EXAMPLES, 4, 8).double(), torch.zeros(EXAMPLES))]
    seen = []
    hook = net.layers[0].linear1.register_forward_hook(lambda m, i, output: seen.append(output.detach() > 0))
    found = active_neurons(net, data)
    hook.remove()
    assert list(found.per_site) == ["layers.0.relu", "layers.1.relu"]
    assert found.per_site["layers.0.relu"].count == pytest.approx(seen[-1].flatten(1).sum(1).double().mean().item())


def test_patterns_choose_functions_and_modules():
    net, data = Functions(torch.tanh), [(torch.randn(EXAMPLES, 5), torch.zeros(EXAMPLES))]
    assert list(active_neurons(net, data, layers=["tanh"]).per_site) == ["tanh#1", "tanh#2"]
    assert list(active_neurons(net, data, layers=["*relu"]).per_site) == ["relu"]
    with pytest.raises(ValueError, match="'gelu' matches no module, and no activation function that is called; the mo"):
        active_neurons(net, data, layers=["gelu", "relu"])
    with pytest.raises(ValueError, match=r"'first\.softmax' matches no module; the modules are: first"):
        active_neurons(net, data, layers=["first.softmax"])


def test_outputs_of_modules_are_sites():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=CLASSES).double()
    inputs, labels = images()
    seen = []
    hook = net.layer2[0].bn1.register_forward_hook(lambda m, i, output: seen.append(output.flatten(1) > 0))
    found = active_neurons(net, [(inputs, labels)], after=["*.bn1"])
    hook.remove()
    assert list(found.per_site) == [f"layer{stage}.{block}.bn1.output" for stage in range(1, 5) for block in range(2)]
    assert found.per_site["layer2.0.bn1.output"].count == seen[-1].sum(1).double().mean().item()
    # The first ReLU of a block comes right after bn1.
    relus = active_neurons(net, [(inputs, labels)]).per_site
    assert found.per_site["layer2.0.bn1.output"] == relus["layer2.0.relu#1"]
    both = active_neurons(net, [(inputs, labels)], layers=["relu"], after=["bn1"]).per_site
    assert both["relu"] == both["bn1.output"]


class Named(nn.Module):
    """A network that calls its modules by keyword."""

    def __init__(self):
        super().__init__()
        self.linear, self.act = nn.Linear(5, 6), nn.GELU()

    def forward(self, x):
        return self.act(input=self.linear(input=x))


def test_modules_called_by_keyword_are_seen():
    net, x = Named(), torch.randn(EXAMPLES, 5)
    found = active_neurons(net, [(x, torch.zeros(EXAMPLES))], layers=["act", "linear"]).per_site
    assert found["act"].count == pytest.approx((net.linear(x) > 0).sum(1).double().mean().item())
    assert found["linear"].count == pytest.approx((x > 0).sum(1).double().mean().item())
