"""The Gauss–Newton trace for any number of outputs, for losses that are not convex, and its number of probes."""

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, LogisticLoss, SquaredLoss
from lnsgd.measures import hessian_trace
from lnsgd.models import MLP
from tests.measures.small_problems import Net, conv_net, generator, images, vectors
from tests.reference.measures import dense_traces
from tests.tolerances import EXACT, STANDARD_ERRORS

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}


def net(outputs):
    torch.manual_seed(0)
    return MLP([4, 5, outputs]).double()


def data(outputs, examples=6):
    inputs, _ = vectors(examples)
    return inputs, torch.randint(max(outputs, 2), (examples,), generator=generator(6))


def waves(outputs, labels):
    """Loss with curvature of both signs, also between outputs."""
    return torch.sin(3 * outputs).sum(1) + torch.cos(outputs.cumsum(1)).sum(1)


LOSSES = {"cross-entropy": CrossEntropy(), "logistic": LogisticLoss(), "squared": SquaredLoss("sum"), "waves": waves}


def trace(model, loss, batch, **options):
    return hessian_trace(model, loss, [batch], method="ggn", generator=generator(), **options)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outputs", [1, 2, 5, 100])
def test_exact_for_any_number_of_outputs(outputs, loss):
    if outputs == 1 and loss == "cross-entropy":
        loss = "logistic"
    model, (inputs, labels) = net(outputs), data(outputs)
    total, per_tensor = dense_traces(model, LOSSES[loss], inputs, labels)
    found = trace(model, LOSSES[loss], (inputs, labels), rtol=1e-12)
    assert (found.total.probes, found.total.standard_error) == (0, 0)
    assert found.total.value == pytest.approx(total, **APPROX)
    assert {name: e.value for name, e in found.per_tensor.items()} == pytest.approx(per_tensor, **APPROX)


@pytest.mark.parametrize("loss", LOSSES)
def test_probes_are_within_standard_errors_whatever_the_signs_of_curvature(loss):
    model, (inputs, labels) = net(100), data(100, examples=40)
    total, per_tensor = dense_traces(model, LOSSES[loss], inputs, labels)
    # The two signs of the waves leave little, which takes more probes.
    found = trace(model, LOSSES[loss], (inputs, labels), rtol=0.5, max_probes=99)
    assert 2 <= found.total.probes <= 99
    truths = {"": total, **per_tensor}
    for name, estimate in {"": found.total, **found.per_tensor}.items():
        assert abs(estimate.value - truths[name]) <= STANDARD_ERRORS * estimate.standard_error + 1e-10 * abs(total)


SHAPES = {
    "numbers": (lambda: Net(lambda net, x: net.layers(x).squeeze(1), layers=net(1)), vectors),
    "maps": (lambda: nn.Sequential(*conv_net()[:3], nn.Conv2d(2, 2, 2)).double(), images),
    "channels-last": (
        lambda: Net(lambda net, x: net.conv(x).permute(0, 2, 3, 1), conv=nn.Conv2d(1, 3, 3)).double(),
        images,
    ),
}


def between_neighbours(outputs, labels):
    """A loss of outputs in any shape in which their order counts."""
    rows = outputs.reshape(len(outputs), -1)
    return (rows.exp() * rows.roll(1, 1)).sum(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_of_any_shape(shape):
    make, batch = SHAPES[shape]
    torch.manual_seed(0)
    model, (inputs, labels) = make(), batch()
    total, _ = dense_traces(model, between_neighbours, inputs, labels)
    assert trace(model, between_neighbours, (inputs, labels), rtol=1e-12).total.value == pytest.approx(total, **APPROX)


def test_probes_stop_at_the_tolerance():
    model, batch = net(100), data(100, examples=40)
    loose, tight = (trace(model, LogisticLoss(), batch, rtol=rtol).total for rtol in (0.05, 0.015))
    assert loose.standard_error <= 0.05 * loose.value
    assert tight.standard_error <= 0.015 * tight.value
    assert 2 <= loose.probes < tight.probes < 100


def test_more_degrees_of_freedom_take_more_probes():
    model, batch = net(100), data(100)
    few, many = (trace(model, LogisticLoss(), batch, rtol=10, min_probes=n).total.probes for n in (4, 60))
    assert 2 <= few < many


def test_exact_if_there_are_fewer_outputs_than_probes_needed():
    model, batch = net(30), data(30)
    assert trace(model, LogisticLoss(), batch, rtol=1e-3).total.probes == 0
    assert trace(model, LogisticLoss(), batch, rtol=1e-3, max_probes=30).total.probes == 0


@pytest.mark.parametrize("max_probes", [16, 17, 29])
def test_all_probes_allowed_are_spent_before_giving_up(max_probes):
    found = trace(net(30), LogisticLoss(), data(30), rtol=1e-3, max_probes=max_probes).total
    # Of 17, the last alone would have no spread.
    assert found.probes in (max_probes, max_probes - 1)
    assert found.standard_error > 1e-3 * found.value


def test_curvatures_that_cancel_give_zero():
    def loss(outputs, labels):
        signs = torch.tensor([1.0, -1.0]).repeat(20).to(outputs)
        return (signs * outputs.square()).sum(1)

    torch.manual_seed(0)
    model = nn.Linear(4, 40).double()
    for max_probes in (30, 1000):
        found = trace(model, loss, vectors(), max_probes=max_probes)
        assert found.total.value == pytest.approx(0, abs=1e-10)
        assert found.total.standard_error == pytest.approx(0, abs=1e-6)


def test_each_example_has_signs_of_its_own():
    # The same example forty times: were the signs the same, so would be its probes, and the spread too large by √40.
    model = net(100)
    inputs, labels = data(100, examples=1)
    one = trace(model, LogisticLoss(), (inputs, labels), rtol=1e-3, max_probes=64).total
    forty = trace(model, LogisticLoss(), (inputs.repeat(40, 1), labels.repeat(40)), rtol=1e-3, max_probes=64).total
    assert one.probes == forty.probes == 64
    # Spreads of 63 and 2,520 degrees of freedom: four standard errors of the first are 36 %, more with its kurtosis.
    assert forty.standard_error * 40**0.5 == pytest.approx(one.standard_error, rel=0.5)


def test_probes_come_from_the_generator():
    def value(source):
        options = {"method": "ggn", "rtol": 0.5, "generator": source}
        return hessian_trace(net(100), LogisticLoss(), [data(100)], **options).total.value

    assert value(generator(0)) == value(generator(0)) == value(None)
    assert value(generator(1)) != value(generator(0))
