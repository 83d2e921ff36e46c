"""The output layer that stays fixed: +1, −1, +1, …"""

import pytest
import torch
from torch import nn

from lnsgd.models import MLP, AlternatingSigns, Uniform
from lnsgd.rng import generator


@pytest.mark.parametrize("inputs", [1, 2, 5, 20])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_signs_alternate_along_the_inputs(inputs, outputs, bias):
    layer = nn.Linear(inputs, outputs, bias=bias)
    AlternatingSigns()(layer)
    expected = [1.0 if j % 2 == 0 else -1.0 for j in range(inputs)]
    assert layer.weight.tolist() == [expected] * outputs
    assert not bias or layer.bias.tolist() == [0.0] * outputs
    assert layer.weight.requires_grad


def test_even_numbers_of_neurons_have_balanced_signs():
    layer = nn.Linear(2000, 1)
    AlternatingSigns()(layer)
    assert layer.weight.sum() == 0


def test_draws_nothing():
    key, state = generator(0, "init"), torch.get_rng_state()
    before = key.get_state()
    AlternatingSigns()(nn.utils.skip_init(nn.Linear, 4, 1), key)
    assert torch.equal(key.get_state(), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_hidden_weights_do_not_depend_on_the_output_initializer():
    nets = [MLP([5, 4, 1], init=[Uniform(1.0), output]) for output in (AlternatingSigns(), Uniform(1.0))]
    for net in nets:
        net.reset_parameters(generator(3, "init"))
    assert torch.equal(nets[0].layers[0].weight, nets[1].layers[0].weight)


def test_output_weights_stay_if_only_the_hidden_layer_is_trained():
    torch.manual_seed(0)
    net = MLP([5, 4, 1], bias=False, init=[Uniform(1.0), AlternatingSigns()], train_layers=[0])
    start = net.layers[0].weight.detach().clone()
    sgd = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(5):
        sgd.zero_grad()
        net(torch.randn(8, 5)).square().sum().backward()
        sgd.step()
    assert net.layers[1].weight.tolist() == [[1.0, -1.0, 1.0, -1.0]]
    assert not torch.equal(net.layers[0].weight, start)
