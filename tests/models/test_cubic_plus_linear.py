"""Closed forms of φ(z) = z³ + νz: derivatives against autograd, the inverse against φ itself."""

import pytest
import torch

from lnsgd.models import CubicPlusLinear
from tests.tolerances import EXACT

NUS = [0.0, 1e-9, 0.1, 1.0, 50.0]


@pytest.mark.parametrize("nu", NUS)
def test_derivatives_are_those_of_autograd(nu):
    phi = CubicPlusLinear(nu)
    z = torch.linspace(-2, 2, 21, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(phi(z).sum(), z, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), z)[0]
    torch.testing.assert_close(phi.derivative(z), first, **EXACT)
    torch.testing.assert_close(phi.second_derivative(z), second, **EXACT)


@pytest.mark.parametrize("nu", NUS)
def test_inverse(nu):
    phi = CubicPlusLinear(nu)
    z = torch.cat([torch.linspace(-2, 2, 21, dtype=torch.float64), torch.tensor([1e-4, -30.0], dtype=torch.float64)])
    torch.testing.assert_close(phi.inverse(phi(z)), z, **EXACT)
