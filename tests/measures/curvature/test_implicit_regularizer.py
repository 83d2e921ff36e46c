"""The implicit regularizer against one gradient after another."""

import copy
import math

import pytest
import torch
from torch import nn

from lnsgd.measures import NonFiniteError, implicit_regularizer
from lnsgd.models import MatrixFactorization
from tests.measures.small_problems import (
    CLASSES,
    Net,
    Noisy,
    assert_same,
    conv_net,
    generator,
    images,
    in_processes,
    mlp,
    part,
    snapshot,
    vectors,
)
from tests.reference.curvature import example_norms_loop
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}


def seeded(make):
    def build():
        torch.manual_seed(0)
        return make().double()

    return build


def matrices():
    return torch.randn(6, 4, 4, generator=generator(1), dtype=torch.float64), torch.zeros(6)


CASES = {
    "relu": (mlp, vectors),
    "tanh": (lambda: mlp("tanh"), vectors),
    "frozen-head": (lambda: mlp("cubic", train_layers=[0]), vectors),
    "conv-batchnorm": (conv_net, images),
    "layernorm": (seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 1))), vectors),
    "matrix-factorization": (seeded(lambda: MatrixFactorization(4)), matrices),
    "one-number": (seeded(lambda: Net(lambda net, x: net.fc(x)[:, 0], fc=nn.Linear(4, 1))), vectors),
    "maps": (seeded(lambda: nn.Conv2d(1, 2, 3)), images),
    "channels-last": (
        seeded(lambda: Net(lambda net, x: net.conv(x).permute(0, 2, 3, 1), conv=nn.Conv2d(1, 2, 3))),
        images,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_mean_squared_norm_of_the_gradients_of_all_outputs(case):
    make, data = CASES[case]
    model, (inputs, labels) = make().eval(), data()
    outputs = model(inputs)[0].numel()
    units = torch.eye(outputs, dtype=torch.float64)
    squares = sum(example_norms_loop(model, inputs, unit.expand(len(inputs), -1)).sum().item() for unit in units)
    assert squares > 0
    assert implicit_regularizer(model, [(inputs, labels)]) == pytest.approx(squares / len(inputs), **APPROX)


def test_batches_of_any_size_count_by_their_examples():
    inputs, labels = vectors(140)
    whole = implicit_regularizer(mlp(), [(inputs, labels)])
    sizes = [1, 0, 100, 39]
    assert implicit_regularizer(mlp(), list(zip(inputs.split(sizes), labels.split(sizes)))) == pytest.approx(
        whole, **APPROX
    )


def test_two_processes_give_the_number_of_one():
    model, (inputs, labels) = conv_net(), images()
    batches = list(zip(inputs.split([5, 4, 1]), labels.split([5, 4, 1])))
    one = implicit_regularizer(model, batches)
    found = in_processes(lambda share: implicit_regularizer(copy.deepcopy(model), part(batches, share), share=share))
    assert found == [pytest.approx(one, **APPROX)] * 2


def test_model_and_random_state_are_not_changed():
    torch.manual_seed(0)
    model = Noisy()
    before = snapshot(model)
    with torch.inference_mode():
        assert implicit_regularizer(model, [(torch.randn(5, 4, generator=generator()), torch.zeros(5))]) > 0
    assert_same(before, snapshot(model))


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        pytest.param(mlp(), [], "no examples", id="no-data"),
        pytest.param(mlp().requires_grad_(False), [vectors()], "no trainable parameter", id="frozen"),
        pytest.param(
            Net(lambda net, x: net.fc(x).argmax(1), fc=nn.Linear(4, CLASSES)).double(),
            [vectors()],
            "Net gives torch.int64",
            id="classes",
        ),
        pytest.param(
            nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).double(),
            [vectors()],
            "no running statistics",
            id="batchnorm-without-statistics",
        ),
    ],
)
def test_models_without_gradients_of_single_examples_raise(model, data, message):
    with pytest.raises(ValueError, match=message):
        implicit_regularizer(model, data)


def test_values_that_are_not_finite_raise():
    inputs, labels = vectors()
    inputs[2, 1] = math.nan
    with pytest.raises(NonFiniteError):
        implicit_regularizer(mlp(), [(inputs, labels)])
