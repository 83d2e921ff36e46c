"""Stochastic Lanczos quadrature against dense Hessians, and its error bar."""

import sys

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from torch import nn

from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, SquaredLoss
from lnsgd.measures import NonFiniteError, SpectralQuadrature, hessian_trace, spectral_density
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
from tests.tolerances import EXACT, STANDARD_ERRORS

CASES = [
    pytest.param(lambda: mlp("relu"), vectors, CrossEntropy(), id="relu-cross-entropy"),
    pytest.param(lambda: mlp("relu"), vectors, LogisticLoss(), id="relu-logistic"),
    pytest.param(lambda: mlp("tanh"), vectors, SquaredLoss("sum"), id="tanh-squared"),
    pytest.param(lambda: mlp("cubic", nu=0.5), vectors, SquaredLoss(), id="cubic-squared"),
    pytest.param(conv_net, images, CrossEntropy(), id="conv-batchnorm"),
]


def signs(probes, parameters, seed=0):
    """Draw the probes: independent signs, tensor by tensor."""
    source = generator(seed)
    drawn = [[torch.randint(2, (p.numel(),), generator=source) for p in parameters] for _ in range(probes)]
    return 2.0 * torch.stack([torch.cat(tensors) for tensors in drawn]).double() - 1


def functions_of(hessian, function, vectors):
    """Compute vᵀf(H)v/P of each row v from the eigendecomposition."""
    values, basis = torch.linalg.eigh(hessian)
    return ((vectors @ basis).square() @ function(values)) / len(hessian)


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize(("make", "data", "loss"), CASES)
def test_each_probe_is_exact_for_low_polynomials(make, data, loss, steps):
    model, data = make(), data()
    hessian, _ = dense_hessian(model, loss, *data)
    found = spectral_density(model, loss, [data], probes=3, steps=steps, generator=generator())
    probes = signs(3, list(model.parameters()))
    scale = torch.linalg.eigvalsh(hessian).abs().max()
    assert found.nodes.shape == found.weights.shape == (3, steps)
    for power in range(2 * steps):
        moments = (found.weights * (found.nodes / scale) ** power).sum(1)
        expected = functions_of(hessian / scale, lambda values, power=power: values**power, probes)
        torch.testing.assert_close(moments, expected, **EXACT)


@pytest.mark.parametrize(("make", "data", "loss"), CASES)
def test_as_many_steps_as_parameters_give_the_whole_spectrum(make, data, loss):
    model, data = make(), data()
    hessian, _ = dense_hessian(model, loss, *data)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    found = spectral_density(model, loss, [data], probes=3, steps=1000, generator=generator())
    assert found.parameters == len(hessian)
    assert found.nodes.shape == (3, len(hessian))
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(1), torch.ones(3, dtype=torch.float64), **EXACT)
    real = found.nodes[found.weights > 1e-12]
    # Every node with any weight is an eigenvalue, and the outermost eigenvalues are nodes.
    assert (real[:, None] - eigenvalues).abs().min(1).values.max() < 1e-9 * eigenvalues.abs().max()
    assert found.range == pytest.approx((eigenvalues[0].item(), eigenvalues[-1].item()), rel=1e-9)
    for function in (torch.exp, torch.sin, lambda values: (values > 0.01).double()):
        values = (found.weights * function(found.nodes)).sum(1)
        expected = functions_of(hessian, function, signs(3, list(model.parameters())))
        torch.testing.assert_close(values, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("make", "data", "loss"), CASES)
def test_integrals_within_standard_errors_of_the_dense_hessian(make, data, loss):
    model, data = make(), data()
    eigenvalues = torch.linalg.eigvalsh(dense_hessian(model, loss, *data)[0])
    found = spectral_density(model, loss, [data], probes=100, steps=25, generator=generator())
    for function in (lambda t: t, torch.square, lambda t: t**3, torch.tanh):
        estimate = found.integral(function)
        assert estimate.standard_error > 0
        error = estimate.value - function(eigenvalues).mean().item()
        assert abs(error) <= STANDARD_ERRORS * estimate.standard_error
        assert (estimate.probes, estimate.samples) == (100, len(data[0]))


def test_mean_eigenvalue_is_the_trace_of_the_same_probes():
    model, data = mlp("tanh"), vectors()
    options = {"method": "hutchinson", "rtol": 1e9, "min_probes": 7}
    trace = hessian_trace(model, CrossEntropy(), [data], generator=generator(), **options).total
    found = spectral_density(model, CrossEntropy(), [data], probes=7, steps=4, generator=generator())
    mean = found.integral(lambda t: t)
    assert mean.value * found.parameters == pytest.approx(trace.value, rel=1e-10)
    assert mean.standard_error * found.parameters == pytest.approx(trace.standard_error, rel=1e-10)


def test_calibration_of_the_error_bar():
    # Value ± 1.96 standard errors of 64 probes covers Tr H²/P for 88 to 99 % of 100 seeds: 94.5 % expected
    # (Student's t, 63 degrees of freedom) with a standard error of 2.3 % in the coverage.
    torch.manual_seed(0)
    model, data = MLP([4, CLASSES]).double(), vectors(6)
    expected = torch.linalg.eigvalsh(dense_hessian(model, CrossEntropy(), *data)[0]).square().mean().item()
    covered = 0
    for seed in range(100):
        found = spectral_density(model, CrossEntropy(), [data], probes=64, steps=2, generator=generator(seed))
        estimate = found.integral(torch.square)
        covered += abs(estimate.value - expected) <= 1.96 * estimate.standard_error
    assert 88 <= covered <= 99


class OwnWeights(nn.Module):
    """A layer with one weight per input and output, whose Hessian under a squared loss is diagonal."""

    def __init__(self, curvatures):
        super().__init__()
        self.register_buffer("curvatures", torch.tensor(curvatures, dtype=torch.float64))
        self.weights = nn.Parameter(torch.zeros(len(curvatures), dtype=torch.float64))

    def forward(self, x):
        return ((self.weights.square() * self.curvatures).sum() / 2).expand(len(x), 1)


def of_diagonal(curvatures, **options):
    data = [(torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3))]
    return spectral_density(OwnWeights(curvatures), lambda outputs, _: outputs[:, 0], data, **options)


def test_breakdown_with_few_different_eigenvalues():
    # Sign vectors have the same part in each axis, so that all probes find the exact spectrum.
    found = of_diagonal([2.0] * 6 + [-1.0] * 3 + [0.0] * 3, probes=4, steps=10)
    assert found.nodes.shape == (4, 10)
    for nodes, weights in zip(found.nodes, found.weights):
        real = weights > 0
        assert real.sum() == 3
        torch.testing.assert_close(nodes[real], torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64), **EXACT)
        torch.testing.assert_close(weights[real], torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64), **EXACT)
    assert found.range == pytest.approx((-1, 2), abs=1e-12)


def test_unused_nodes_have_no_weight():
    # All eigenvalues are 2: one step finds it, and 1/t must not be taken at the empty nodes.
    found = of_diagonal([2.0] * 5, probes=3, steps=4)
    estimate = found.integral(lambda t: 1 / t)
    assert (estimate.value, estimate.standard_error) == pytest.approx((0.5, 0.0))
    assert found.range == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize("loss", [pytest.param(lambda o, _: o.sum(1), id="sum"), pytest.param(HingeLoss(), id="hinge")])
def test_without_curvature_all_mass_is_at_zero(loss):
    torch.manual_seed(0)
    found = spectral_density(MLP([4, CLASSES]).double(), loss, [vectors()], probes=2)
    assert found.range == (0.0, 0.0)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(2, dtype=torch.float64), **EXACT)
    assert found.density(torch.zeros(1)).item() == pytest.approx(1 / (0.01 * np.sqrt(2 * np.pi)))


@pytest.mark.parametrize("width", [None, 0.05, 1.0])
def test_density_integrates_to_one_and_is_a_mixture_of_bells(width):
    found = spectral_density(mlp("tanh"), SquaredLoss("sum"), [vectors()], probes=5, steps=20)
    low, high = found.range
    effective = (high - low) / 100 if width is None else width
    grid = torch.linspace(low - 8 * effective, high + 8 * effective, 20_001, dtype=torch.float64)
    density = found.density(grid, width)
    assert trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
    at = grid[[7000, 9000, 12_000]]
    for t, value in zip(at.tolist(), found.density(at, width).tolist()):
        bells = [
            weight * np.exp(-((t - node) ** 2) / (2 * effective**2)) / (effective * np.sqrt(2 * np.pi))
            for node, weight in zip(found.nodes.flatten().tolist(), found.weights.flatten().tolist())
        ]
        assert value == pytest.approx(sum(bells) / 5, rel=1e-10)


def test_density_of_a_full_spectrum_is_that_of_the_eigenvalues():
    # With signs on a diagonal Hessian there is no Monte Carlo error at all.
    curvatures = [3.0, 1.0, 0.5, 0.5, -0.25]
    found = of_diagonal(curvatures, probes=1, steps=5)
    grid = torch.linspace(-1, 4, 50, dtype=torch.float64)
    bells = torch.distributions.Normal(torch.tensor(curvatures, dtype=torch.float64), 0.1).log_prob(grid[:, None]).exp()
    torch.testing.assert_close(found.density(grid, 0.1), bells.mean(1), rtol=1e-9, atol=1e-12)


def test_probes_side_by_side_or_one_after_the_other(monkeypatch):
    arguments = (mlp("tanh"), CrossEntropy(), [vectors()])
    together = spectral_density(*arguments, probes=5, steps=6)
    monkeypatch.setattr(sys.modules["lnsgd.measures.curvature.spectral_density"], "_ENTRIES", 2 * 6 * 43)
    apart = spectral_density(*arguments, probes=5, steps=6)
    torch.testing.assert_close(apart.nodes, together.nodes, **EXACT)
    torch.testing.assert_close(apart.weights, together.weights, **EXACT)


@pytest.mark.parametrize("sizes", [[6, 6], [1, 8, 3]], ids=["equal", "unequal"])
def test_batches_of_any_size_give_the_density_of_one_batch(sizes):
    model, data = mlp("tanh"), vectors()
    whole = spectral_density(model, CrossEntropy(), [data], probes=2, steps=6)
    found = spectral_density(
        model, CrossEntropy(), list(zip(*(tensor.split(sizes) for tensor in data))), probes=2, steps=6
    )
    torch.testing.assert_close(found.nodes, whole.nodes, **EXACT)
    assert found.samples == whole.samples == 12


@pytest.mark.parametrize("sizes", [[12], [5, 6, 1]], ids=["one-batch", "batch-of-one"])
def test_two_processes_find_what_one_does(sizes):
    batches, models = list(zip(*(tensor.split(sizes) for tensor in vectors()))), [mlp("tanh"), mlp("tanh")]
    whole = spectral_density(models[0], CrossEntropy(), batches, probes=2, steps=6)

    def measure(share):
        data = part(batches, share)
        return spectral_density(models[share.rank], CrossEntropy(), data, probes=2, steps=6, share=share)

    for found in in_processes(measure):
        torch.testing.assert_close(found.nodes, whole.nodes, **EXACT)
        torch.testing.assert_close(found.weights, whole.weights, **EXACT)
        assert found.samples == 12


def test_float32_networks():
    data = vectors()
    expected = spectral_density(mlp("tanh"), CrossEntropy(), [data], probes=3, steps=10)
    found = spectral_density(mlp("tanh").float(), CrossEntropy(), [(data[0].float(), data[1])], probes=3, steps=10)
    assert found.nodes.dtype == found.weights.dtype == torch.float64
    assert found.range == pytest.approx(expected.range, rel=1e-5)
    for function in (lambda t: t, torch.square):
        assert found.integral(function).value == pytest.approx(expected.integral(function).value, rel=1e-4)


def test_probes_come_from_the_generator():
    def nodes(source):
        options = {"probes": 1, "steps": 3, "generator": source}
        return spectral_density(mlp("tanh"), CrossEntropy(), [vectors()], **options).nodes

    assert torch.equal(nodes(generator(0)), nodes(generator(0)))
    assert torch.equal(nodes(generator(0)), nodes(None))
    assert not torch.equal(nodes(generator(1)), nodes(generator(0)))


@pytest.mark.parametrize("training", [True, False], ids=["train-mode", "eval-mode"])
def test_model_and_random_state_are_not_changed(training):
    torch.manual_seed(0)
    model = Noisy()
    if not training:
        model.eval()
    before = snapshot(model)
    spectral_density(model, CrossEntropy(), DrawingBatches(), probes=2, steps=3)
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_works_with_gradients_off(context):
    model, data = conv_net(), images()
    expected = spectral_density(model, CrossEntropy(), [data], probes=2, steps=4)
    with context():
        found = spectral_density(model, CrossEntropy(), [data], probes=2, steps=4)
    assert torch.equal(found.nodes, expected.nodes)


@pytest.mark.parametrize("name", ["probes", "steps"])
def test_numbers_below_one_raise(name):
    with pytest.raises(ValueError, match=f"{name} = 0"):
        spectral_density(mlp(), CrossEntropy(), [vectors()], **{name: 0})


def test_a_single_probe_has_no_known_error():
    found = spectral_density(mlp(), CrossEntropy(), [vectors()], probes=1)
    assert np.isnan(found.integral(torch.square).standard_error)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_a_width_that_is_not_positive_raises(width):
    found = of_diagonal([1.0, 2.0])
    with pytest.raises(ValueError, match="width = "):
        found.density(torch.zeros(1), width)


def test_empty_data_raises():
    with pytest.raises(ValueError, match="no examples"):
        spectral_density(mlp(), CrossEntropy(), [])


def test_values_that_are_not_finite_raise():
    model = mlp()
    with torch.no_grad():
        model.layers[0].weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="not finite"):
        spectral_density(model, CrossEntropy(), [vectors()])


def test_a_density_follows_from_nodes_and_weights():
    found = SpectralQuadrature(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.25, 0.75]]), parameters=4, samples=1)
    assert found.integral(lambda t: t).value == 2.5
    assert found.range == (1.0, 3.0)
