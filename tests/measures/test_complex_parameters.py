"""Complex parameters are measured as their real and imaginary parts, or refused by name."""

import copy

import pytest
import torch
from torch import nn

from lnsgd import measures
from lnsgd.measures.closed_forms.norm_step import norm_step
from lnsgd.measures.nonfinite import finite_examples, is_finite
from lnsgd.measures.pairs.cka import linear_cka
from lnsgd.measuring import HessianTraceMeasurer, PlainContext, Source, Subject

LOSS = nn.CrossEntropyLoss(reduction="none")
DATA = [(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)]


class ComplexNetwork(nn.Module):
    """A network with a complex weight matrix, as Fourier layers have."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(6, 5, dtype=torch.cfloat))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head((x.to(torch.cfloat) @ self.w).abs())


def parts(w):
    return torch.cat([w.real, w.imag], 1)


def test_weights_are_measured_as_real_and_imaginary_parts():
    net = ComplexNetwork()
    start = copy.deepcopy(net)
    with torch.no_grad():
        net.w += 1j
    weights, w = measures.trainable_parameters(net), net.w.detach()
    distance = measures.distance_from_init(weights, measures.trainable_parameters(start))
    assert distance.total == pytest.approx(30**0.5)
    assert measures.tensor_statistics(weights)["w"].norm == pytest.approx(parts(w).double().norm().item())
    # Each singular value of the complex matrix is a double one of the real matrix that acts on both parts.
    real = torch.cat([torch.cat([w.real, -w.imag], 1), torch.cat([w.imag, w.real], 1)])
    assert torch.allclose(measures.singular_values(w), measures.singular_values(real)[::2])
    assert measures.norm_products({"w": w}).spectral_norms["w"] == pytest.approx(measures.singular_values(w)[0].item())
    rows = torch.tensor([[0.0j], [1.0j], [1.0j + 0.1], [5.0 + 0j]])
    assert measures.cluster_count(rows, 0.2) == measures.cluster_count(parts(rows), 0.2) == 3


def test_features_are_compared_as_real_and_imaginary_parts():
    x = torch.randn(9, 4, dtype=torch.cfloat, generator=torch.Generator().manual_seed(0))
    y = torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    assert linear_cka([(x, y)]).biased == pytest.approx(linear_cka([(parts(x), y)]).biased)


def test_complex_numbers_that_are_not_finite_are_found():
    net = ComplexNetwork()
    assert is_finite(net)
    assert finite_examples(torch.tensor([1j, complex(0, torch.inf)])).tolist() == [True, False]
    with torch.no_grad():
        net.w[0, 0] = complex(0, torch.nan)
    assert not is_finite(net)


@pytest.mark.parametrize(
    "measure",
    [
        lambda net: measures.hessian_trace(net, LOSS, DATA),
        lambda net: measures.gradient_norm(net, LOSS, DATA),
        lambda net: measures.example_gradient_norms(net, LOSS, DATA),
        lambda net: measures.top_eigenvalues(net, LOSS, DATA),
        lambda net: measures.spectral_density(net, LOSS, DATA),
        lambda net: measures.implicit_regularizer(net, DATA),
        lambda net: norm_step(net, LOSS, *DATA[0]),
        lambda net: HessianTraceMeasurer(loss=LOSS).take(
            Subject(net), Source({"train": torch.utils.data.DataLoader(list(zip(*DATA[0])))}), PlainContext()
        ),
    ],
)
def test_derivatives_by_complex_parameters_are_refused_by_name(measure):
    with pytest.raises(ValueError, match=r"w is complex \(torch.complex64\)"):
        measure(ComplexNetwork())
