"""Norms after a step against torch's own SGD, and Theorem 1 of Cornacchia et al. on random networks."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lnsgd import rng
from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, Loss, SquaredLoss
from lnsgd.measures.closed_forms import change_of_square, norm_step
from lnsgd.models import MLP, HeNormal, Initializer, TorchDefault, Uniform, XavierNormal
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}

INITS: dict[str, Initializer] = {
    "default": TorchDefault(),
    "unit-variance": Uniform(math.sqrt(3)),
    "he": HeNormal(),
    "xavier": XavierNormal(),
}
LOSSES: dict[str, Loss] = {"hinge": HingeLoss(beta=0), "logistic": LogisticLoss()}


def convolutional() -> nn.Sequential:
    """A network that is homogeneous in each of its tensors and is not an MLP."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 5, bias=False),
        nn.ReLU(),
        nn.Linear(5, 1, bias=False),
    ).double()


@st.composite
def networks(draw: st.DrawFn, outputs: int = 1) -> tuple[nn.Module, Tensor]:
    """Draw a homogeneous network in float64 with a sample, and sometimes with a frozen layer."""
    hidden = draw(st.lists(st.integers(1, 12), max_size=4))
    d, init, frozen = draw(st.integers(1, 10)), draw(st.sampled_from(list(INITS))), draw(st.booleans())
    trained = [draw(st.integers(0, len(hidden)))] if frozen else None
    seed = draw(st.integers(0, 2**32))
    with rng.forked(seed, "init"):
        net = MLP([d, *hidden, outputs], bias=False, init=INITS[init], train_layers=trained).double()
    return net, torch.randn(1, d, dtype=torch.float64, generator=rng.generator(seed, "data"))


def label_of(net: nn.Module, x: Tensor, *, correct: bool) -> Tensor:
    """Return a label for which the sample is (mis)classified; networks without an output are skipped."""
    with torch.no_grad():
        output = net(x).item()
    assume(abs(output) > 1e-6)
    return torch.tensor([int((output > 0) == correct)])


def squared_norms_after(net: nn.Module, loss: Loss, x: Tensor, label: Tensor, lr: float) -> dict[str, float]:
    """Return the squared norms after a step of torch's optimizer."""
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=lr)
    optimizer.zero_grad()
    loss(net(x), label).mean().backward()
    optimizer.step()
    return {name: p.detach().square().sum().item() for name, p in net.named_parameters() if p.requires_grad}


# --- the theorem ---


@settings(max_examples=150, deadline=None)
@given(networks(), st.sampled_from(list(LOSSES)), st.floats(1e-3, 0.99))
def test_a_small_step_on_a_misclassified_sample_lowers_every_norm(
    drawn: tuple[nn.Module, Tensor], loss: str, part: float
) -> None:
    net, x = drawn
    step = norm_step(net, LOSSES[loss], x, label_of(net, x, correct=False))
    smallest = min(tensor.guaranteed for tensor in step.tensors.values())
    assert smallest > 0
    for tensor in step.tensors.values():
        assert tensor.change(part * smallest) < 0
        assert tensor.guaranteed <= tensor.largest * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(networks(), st.sampled_from(list(LOSSES)))
def test_agrees_with_the_optimizer(drawn: tuple[nn.Module, Tensor], loss: str) -> None:
    """The step is so large that the change of the norms exceeds rounding errors."""
    net, x = drawn
    label = label_of(net, x, correct=False)
    step = norm_step(net, LOSSES[loss], x, label)
    lr = 0.5 * min(tensor.largest for tensor in step.tensors.values())
    after = squared_norms_after(net, LOSSES[loss], x, label, lr)
    for name, tensor in step.tensors.items():
        change = after[name] - tensor.squared_norm
        assert change == pytest.approx(tensor.change(lr), rel=1e-9, abs=1e-13 * tensor.squared_norm)


@settings(max_examples=100, deadline=None)
@given(networks(), st.floats(1e-6, 1e3))
def test_norms_grow_on_a_correctly_classified_sample(drawn: tuple[nn.Module, Tensor], lr: float) -> None:
    net, x = drawn
    step = norm_step(net, LogisticLoss(), x, label_of(net, x, correct=True))
    assume(abs(step.euler) > 1e-100)  # a large margin leaves no gradient in float64
    assert step.euler < 0
    assert all(tensor.change(lr) > 0 and tensor.largest < 0 for tensor in step.tensors.values())


def test_hinge_leaves_a_correctly_classified_sample_alone() -> None:
    net, x = MLP([3, 4, 1], bias=False).double(), torch.ones(1, 3, dtype=torch.float64)
    label = (net(x)[:, 0] > 0).long()
    step = norm_step(net, HingeLoss(beta=0), x, label)
    assert step.euler == 0
    for tensor in step.tensors.values():
        assert (tensor.change(1.0), tensor.squared_gradient) == (0, 0)
        assert math.isnan(tensor.largest)
        assert math.isnan(tensor.guaranteed)


# --- Euler's identity ---


@settings(max_examples=150, deadline=None)
@given(
    networks(outputs=3),
    st.sampled_from([CrossEntropy(), LogisticLoss(), HingeLoss(beta=1.0), SquaredLoss("sum")]),
    st.integers(0, 2),
)
def test_euler_identity_holds_for_any_outputs_and_loss(drawn: tuple[nn.Module, Tensor], loss: Loss, label: int) -> None:
    net, x = drawn
    step = norm_step(net, loss, x, torch.tensor([label]))
    for tensor in step.tensors.values():
        size = math.sqrt(tensor.squared_norm * tensor.squared_gradient)
        assert abs(tensor.alignment - step.euler) <= 1e-12 * max(size, 1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_any_homogeneous_network(loss: Loss, seed: int) -> None:
    torch.manual_seed(seed)
    net, x = convolutional(), torch.randn(1, 1, 6, 6, dtype=torch.float64)
    label = (net(x)[:, 0] <= 0).long()
    step = norm_step(net, loss, x, label)
    assert step.euler > 0
    for tensor in step.tensors.values():
        assert tensor.alignment == pytest.approx(step.euler, rel=1e-10)
        assert tensor.change(0.99 * tensor.largest) < 0 < tensor.change(1.01 * tensor.largest)


def test_a_batch_is_the_step_on_its_mean_loss() -> None:
    torch.manual_seed(0)
    net = MLP([4, 6, 3], bias=False).double()
    x, labels = torch.randn(7, 4, dtype=torch.float64), torch.randint(3, (7,))
    step = norm_step(net, CrossEntropy(), x, labels)
    after = squared_norms_after(net, CrossEntropy(), x, labels, lr=0.3)
    for name, tensor in step.tensors.items():
        assert tensor.alignment == pytest.approx(step.euler, **APPROX)
        assert after[name] - tensor.squared_norm == pytest.approx(tensor.change(0.3), **APPROX)
        # The bound behind `guaranteed` is one on the norm of the mean's gradient.
        assert abs(tensor.guaranteed) <= abs(2 * step.euler / tensor.squared_gradient)


BROKEN = {
    "biases": {"init": Uniform(1.0, biases=True)},
    "tanh": {"bias": False, "activation": "tanh", "init": Uniform(1.0)},
}


@pytest.mark.parametrize("options", BROKEN.values(), ids=BROKEN)
def test_the_theorem_needs_its_condition(options: dict[str, Any]) -> None:
    """Some layers of some misclassified samples grow at any step."""
    grows = 0
    for seed in range(50):
        with rng.forked(seed, "init"):
            net = MLP([5, 8, 8, 1], **options).double()
        x = torch.randn(1, 5, dtype=torch.float64, generator=rng.generator(seed, "data"))
        step = norm_step(net, LogisticLoss(), x, (net(x)[:, 0] <= 0).long())
        assert step.euler > 0
        grows += any(t.alignment < 0 for name, t in step.tensors.items() if name.endswith("weight"))
    assert grows > 0


# --- by hand, and around it ---


def test_numbers_computed_by_hand() -> None:
    """N = v·relu(w·x) with w = (3, 4), v = −2, x = (1, 1): N = −14; y = +1, hinge: ∇w = −y·v·x, ∇v = −y·7."""
    net = MLP([2, 1, 1], bias=False).double()
    net.layers[0].weight.data = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    net.layers[1].weight.data = torch.tensor([[-2.0]], dtype=torch.float64)
    step = norm_step(net, HingeLoss(beta=0), torch.ones(1, 2, dtype=torch.float64), torch.tensor([1]))
    inner, outer = step.tensors["layers.0.weight"], step.tensors["layers.1.weight"]
    assert step.euler == 14
    assert (inner.squared_norm, inner.alignment, inner.squared_gradient) == (25, 14, 8)
    assert (outer.squared_norm, outer.alignment, outer.squared_gradient) == (4, 14, 49)
    assert (inner.largest, outer.largest) == (28 / 8, 28 / 49)
    # ‖x‖² = 2; the bounds on ‖∇‖² are ‖x‖²·v² and ‖x‖²·‖w‖².
    assert inner.guaranteed == pytest.approx(28 / (2 * 4))
    assert outer.guaranteed == pytest.approx(28 / (2 * 25))
    assert inner.change(0.5) == 0.25 * 8 - 14 == change_of_square(14.0, 8.0, 0.5)


def test_takes_arrays() -> None:
    import numpy as np

    found = change_of_square(np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]]), np.array([0.0, 1.0, 2.0]))
    assert found.tolist() == [[0, -1, 0], [0, -4, -8]]


def test_the_network_is_not_changed() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    before, state = [p.clone() for p in net.parameters()], torch.get_rng_state()
    with torch.no_grad():
        first, second = (norm_step(net, LogisticLoss(), torch.ones(2, 3), torch.tensor([0, 1])) for _ in range(2))
    assert first == second
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before))
    assert torch.equal(torch.get_rng_state(), state)


def test_only_trained_tensors_are_reported() -> None:
    net = MLP([3, 4, 1], train_layers=[0], bias=False)
    assert list(norm_step(net, LogisticLoss(), torch.ones(1, 3), torch.tensor([1])).tensors) == ["layers.0.weight"]


def test_a_network_without_trained_tensors_is_refused() -> None:
    with pytest.raises(ValueError, match="Identity has no trainable parameter"):
        norm_step(nn.Identity(), LogisticLoss(), torch.ones(1, 1), torch.tensor([1]))
