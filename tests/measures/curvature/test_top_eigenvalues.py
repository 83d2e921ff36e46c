"""The largest eigenvalues against dense Hessians, with their residuals as bounds."""

import copy

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.measures import NonFiniteError, top_eigenvalues
from lnsgd.models import MLP
from tests.measures.small_problems import (
    CLASSES,
    DrawingBatches,
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
from tests.reference.measures import dense_hessian
from tests.tolerances import EXACT

# Eigenvalues of matrices of size one: a residual of 1e-9 leaves an error of its square over the gap.
TIGHT = {"rtol": 1e-9, "max_products": 500}
CASES = [
    pytest.param(lambda: mlp("relu"), vectors, CrossEntropy(), id="relu-cross-entropy"),
    pytest.param(lambda: mlp("relu"), vectors, LogisticLoss(), id="relu-logistic"),
    pytest.param(lambda: mlp("tanh"), vectors, SquaredLoss("sum"), id="tanh-squared"),
    pytest.param(lambda: mlp("cubic", nu=0.5), vectors, SquaredLoss(), id="cubic-squared"),
    pytest.param(lambda: mlp("tanh", train_layers=[0]), vectors, CrossEntropy(), id="tanh-frozen-head"),
    pytest.param(conv_net, images, CrossEntropy(), id="conv-batchnorm"),
]


def dense_eigenvalues(model, loss, data):
    """Return the Hessian, and its eigenvalues from the largest to the smallest."""
    hessian, _ = dense_hessian(model, loss, *data)
    return hessian, torch.linalg.eigvalsh(hessian).flip(0)


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize(("make", "data", "loss"), CASES)
def test_values_and_vectors_are_those_of_the_dense_hessian(make, data, loss, count):
    model, data = make(), data()
    hessian, expected = dense_eigenvalues(model, loss, data)
    found = top_eigenvalues(model, loss, [data], count=count, **TIGHT)
    assert found.converged
    assert found.samples == len(data[0])
    torch.testing.assert_close(found.values, expected[:count], **EXACT)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(count).double(), **EXACT)
    residuals = (found.vectors @ hessian - found.values[:, None] * found.vectors).norm(dim=1)
    torch.testing.assert_close(found.residuals, residuals, rtol=1e-3, atol=1e-12)
    assert found.residuals.max() <= 1e-9 * found.values[0]


@pytest.mark.parametrize("max_products", [3, 5, 8, 13])
@pytest.mark.parametrize(("make", "data", "loss"), CASES)
def test_residuals_bound_the_distance_to_an_eigenvalue(make, data, loss, max_products):
    model, data = make(), data()
    hessian, expected = dense_eigenvalues(model, loss, data)
    found = top_eigenvalues(model, loss, [data], count=2, rtol=1e-12, max_products=max_products)
    assert not found.converged
    assert max_products - 2 < found.products <= max_products
    assert (found.values <= expected[:2] + 1e-12).all()
    residuals = (found.vectors @ hessian - found.values[:, None] * found.vectors).norm(dim=1)
    torch.testing.assert_close(found.residuals, residuals, **EXACT)
    distances = (found.values[:, None] - expected).abs().min(1).values
    assert (distances <= found.residuals).all()


class Quadratic(nn.Module):
    """A model whose output ½Σ_j λ_j (q_j·θ)² is the loss, with any spectrum."""

    def __init__(self, eigenvalues, seed=0):
        super().__init__()
        values = torch.tensor(eigenvalues, dtype=torch.float64)
        rotation = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator(seed)).double()).Q
        self.register_buffer("matrix", rotation @ values.diag() @ rotation.T)
        self.weights = nn.Parameter(torch.zeros(len(values), dtype=torch.float64))

    def forward(self, x):
        return (self.weights @ self.matrix @ self.weights / 2).expand(len(x), 1)


def of_quadratic(eigenvalues, **options):
    data = [(torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3))]
    return top_eigenvalues(Quadratic(eigenvalues), lambda outputs, _: outputs[:, 0], data, **options)


@pytest.mark.parametrize(
    ("eigenvalues", "count"),
    [
        pytest.param([2.0] * 3 + [1.0] * 20, 3, id="triple"),
        pytest.param([5.0, 3.0, 3.0, 3.0, 3.0] + [0.5] * 20, 5, id="fourfold-second"),
        pytest.param([1.0] * 12, 4, id="identity"),
        pytest.param([0.0] * 12, 2, id="zero"),
        pytest.param([3.0, -100.0, 1.0, -50.0, 0.2], 3, id="larger-negative-ones"),
        pytest.param([-1.0, -2.0, -3.0, -4.0, -5.0, -5.0], 2, id="all-negative"),
        pytest.param([-1.0, -2.0, -3.0], 3, id="all-of-three"),
        pytest.param([7.0], 1, id="one-parameter"),
        pytest.param([4.0, 2.0, 1.0], 2, id="count-does-not-divide-size"),
        pytest.param([1e-9, 2e-9, -3e-9, 0.0], 2, id="tiny"),
        pytest.param([1.0, 0.999, 0.998] + [0.1 * k for k in range(9)], 3, id="cluster"),
    ],
)
def test_multiple_eigenvalues_need_a_block(eigenvalues, count):
    found = of_quadratic(eigenvalues, count=count, **TIGHT)
    expected = torch.tensor(sorted(eigenvalues, reverse=True)[:count], dtype=torch.float64)
    assert found.converged
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-12 * max(map(abs, eigenvalues)))


def test_restarts_reach_what_one_long_run_reaches():
    # A gap of 1e-4 of the range needs far more products than vectors are kept.
    spectrum = [1.0, 0.9998, *torch.linspace(-1, 0.9996, 398, dtype=torch.float64).tolist()]
    found = of_quadratic(spectrum, count=1, rtol=1e-8, max_products=2000)
    assert found.converged
    assert found.products > 40
    torch.testing.assert_close(found.values, torch.ones(1, dtype=torch.float64), **EXACT)
    block = of_quadratic(spectrum, count=2, rtol=1e-7, max_products=4000)
    assert block.converged
    torch.testing.assert_close(block.values, torch.tensor([1.0, 0.9998], dtype=torch.float64), **EXACT)


def test_two_weights_in_closed_form():
    # h(x) = a·b·x with loss (h − y)²/2 has the Hessian ((b²m, c), (c, a²m)), m = mean x², c = 2abm − mean xy.
    class TwoWeights(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
            self.b = nn.Parameter(torch.tensor(-1.3, dtype=torch.float64))

        def forward(self, x):
            return (self.a * self.b * x).unsqueeze(1)

    x, y = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    a, b, m = 0.7, -1.3, x.square().mean().item()
    c = 2 * a * b * m - (x * y).mean().item()
    middle, half = (a * a + b * b) * m / 2, (((b * b - a * a) * m / 2) ** 2 + c * c) ** 0.5
    found = top_eigenvalues(TwoWeights(), lambda h, y: (h[:, 0] - y).square() / 2, [(x, y)], count=2)
    expected = torch.tensor([middle + half, middle - half], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected, **EXACT)


@pytest.mark.parametrize("loss", [pytest.param(lambda o, _: o.sum(1), id="sum"), pytest.param(HingeLoss(), id="hinge")])
def test_no_curvature_is_found_with_one_product_each(loss):
    torch.manual_seed(0)
    found = top_eigenvalues(MLP([4, CLASSES]).double(), loss, [vectors()], count=2)
    assert (found.values.tolist(), found.residuals.tolist()) == ([0.0, 0.0], [0.0, 0.0])
    assert (found.converged, found.products) == (True, 2)


def test_default_tolerance_in_float32():
    data = vectors()
    _, expected = dense_eigenvalues(mlp("tanh"), CrossEntropy(), data)
    found = top_eigenvalues(mlp("tanh").float(), CrossEntropy(), [(data[0].float(), data[1])], count=3)
    assert found.converged
    assert (found.values - expected[:3]).abs().max() <= 1e-3 * expected[0]
    assert found.values.dtype == found.vectors.dtype == found.residuals.dtype == torch.float64


@pytest.mark.parametrize("sizes", [[6, 6], [1, 8, 3], [1] * 12], ids=["equal", "unequal", "single-examples"])
def test_batches_of_any_size_give_the_values_of_one_batch(sizes):
    model, data = mlp("tanh"), vectors()
    whole = top_eigenvalues(model, CrossEntropy(), [data], count=2, **TIGHT)
    batches = list(zip(*(tensor.split(sizes) for tensor in data)))
    found = top_eigenvalues(model, CrossEntropy(), batches, count=2, **TIGHT)
    assert found.samples == whole.samples == 12
    torch.testing.assert_close(found.values, whole.values, **EXACT)


@pytest.mark.parametrize("sizes", [[12], [5, 6, 1]], ids=["one-batch", "batch-of-one"])
def test_two_processes_find_what_one_does(sizes):
    batches = list(zip(*(tensor.split(sizes) for tensor in vectors())))
    models = [mlp("tanh"), mlp("tanh")]
    whole = top_eigenvalues(models[0], CrossEntropy(), batches, count=2, **TIGHT)

    def measure(share):
        model = models[share.rank]
        return top_eigenvalues(model, CrossEntropy(), part(batches, share), count=2, share=share, **TIGHT)

    for found in in_processes(measure):
        torch.testing.assert_close(found.values, whole.values, **EXACT)
        torch.testing.assert_close(found.vectors, whole.vectors, rtol=1e-7, atol=1e-7)
        assert (found.products, found.samples) == (whole.products, 12)


def test_start_vectors_come_from_the_generator():
    def after_three(source):
        options = {"max_products": 3, "generator": source}
        return top_eigenvalues(mlp("tanh"), CrossEntropy(), [vectors()], **options).values.item()

    assert after_three(generator(0)) == after_three(generator(0)) == after_three(None)
    assert after_three(generator(1)) != after_three(generator(0))


@pytest.mark.parametrize("training", [True, False], ids=["train-mode", "eval-mode"])
def test_model_and_random_state_are_not_changed(training):
    torch.manual_seed(0)
    model = Noisy()
    if not training:
        model.eval()
    before = snapshot(model)
    top_eigenvalues(model, CrossEntropy(), DrawingBatches(), max_products=3)
    assert_same(before, snapshot(model))


def test_curvature_is_that_of_eval_mode_whatever_the_mode():
    torch.manual_seed(0)
    model = Noisy().double()
    expected = dense_eigenvalues(copy.deepcopy(model), CrossEntropy(), vectors())[1][:1]
    for mode in (True, False):
        found = top_eigenvalues(model.train(mode), CrossEntropy(), [vectors()], **TIGHT)
        torch.testing.assert_close(found.values, expected, **EXACT)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_works_with_gradients_off(context):
    model, data = conv_net(), images()
    expected = top_eigenvalues(model, CrossEntropy(), [data], count=2)
    with context():
        found = top_eigenvalues(model, CrossEntropy(), [data], count=2)
        assert not torch.is_grad_enabled()
    assert torch.equal(found.values, expected.values)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        pytest.param({"count": 0}, "count = 0", id="none"),
        pytest.param({"count": 44}, "count = 44; a network of 43 parameters", id="more-than-there-are"),
        pytest.param({"rtol": 0.0}, "rtol = 0.0", id="exact"),
        pytest.param({"rtol": float("nan")}, "rtol = nan", id="nan"),
        pytest.param({"count": 5, "max_products": 4}, "max_products = 4; 5 eigenvalues", id="too-few-products"),
    ],
)
def test_arguments_that_make_no_sense_raise(options, match):
    with pytest.raises(ValueError, match=match):
        top_eigenvalues(mlp(), CrossEntropy(), [vectors()], **options)


@pytest.mark.parametrize("batches", [[], [vectors(0)]], ids=["no-batches", "empty-batch"])
def test_empty_data_raises(batches):
    with pytest.raises(ValueError, match="no examples"):
        top_eigenvalues(mlp(), CrossEntropy(), batches)


def test_data_that_can_be_read_only_once_raises():
    with pytest.raises(ValueError, match="read only once"):
        top_eigenvalues(mlp(), CrossEntropy(), iter([vectors()]))


def test_values_that_are_not_finite_raise():
    model = mlp()
    with torch.no_grad():
        model.layers[0].weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="not finite"):
        top_eigenvalues(model, CrossEntropy(), [vectors()])


def test_no_trainable_parameter_raises():
    with pytest.raises(ValueError, match="no trainable parameter"):
        top_eigenvalues(mlp().requires_grad_(False), CrossEntropy(), [vectors()])


def test_a_loss_that_is_not_per_example_raises():
    with pytest.raises(ValueError, match="must be per example"):
        top_eigenvalues(mlp(), nn.CrossEntropyLoss(), [vectors()])
