"""Linear CKA against Gram matrices of all examples."""

import numpy as np
import pytest
import torch
from torch import nn

from lnsgd.measures.pairs.cka import features_before, linear_cka


def drawn(n=37, p=5, q=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=generator, dtype=torch.float64) + 100.0  # far from the origin
    y = x @ torch.randn(p, q, generator=generator, dtype=torch.float64)
    return x, y + torch.randn(n, q, generator=generator, dtype=torch.float64)


def biased_hsic(k, other):
    n = len(k)
    center = np.eye(n) - 1 / n
    return np.trace(k @ center @ other @ center) / (n - 1) ** 2


def unbiased_hsic(k, other):
    """Compute HSIC over all quadruples of different examples (Song et al., 2012, eq. 4), not by the closed form."""
    n, total, count = len(k), 0.0, 0
    for i in range(n):
        for j in range(n):
            for a in range(n):
                for b in range(n):
                    if len({i, j, a, b}) == 4:
                        total += k[i, j] * (other[i, j] + other[a, b] - 2 * other[i, a])
                        count += 1
    return total / count


def direct(x, y, hsic):
    first, second = (features.numpy() @ features.numpy().T for features in (x, y))
    return hsic(first, second) / np.sqrt(hsic(first, first) * hsic(second, second))


def batches(x, y, size):
    return zip(x.split(size), y.split(size))


@pytest.mark.parametrize("size", [1, 10, 37])
def test_biased_equals_that_of_the_gram_matrices(size) -> None:
    x, y = drawn()
    assert linear_cka(batches(x, y, size)).biased == pytest.approx(direct(x, y, biased_hsic), rel=1e-10)


def test_unbiased_equals_that_of_all_quadruples() -> None:
    x, y = drawn(n=9)
    x, y = x - 100, y - y.mean(0)
    assert linear_cka(batches(x, y, 4)).unbiased == pytest.approx(direct(x, y, unbiased_hsic), rel=1e-10)


def test_independent_features_of_few_examples() -> None:
    """The biased estimator has a floor, the unbiased one is near zero."""
    x, y = torch.randn(2, 40, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = linear_cka(batches(x, y, 16))
    assert found.biased > 0.85
    assert abs(found.unbiased) < 0.1


def test_rotations_and_scales_change_nothing() -> None:
    x, _ = drawn()
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    found = linear_cka(batches(x, 3 * x @ rotation - 7, 10))
    assert found.biased == pytest.approx(1, abs=1e-12)
    assert found.unbiased == pytest.approx(1, abs=1e-12)


def test_features_that_do_not_vary_give_nan() -> None:
    x, _ = drawn()
    assert np.isnan(linear_cka(batches(x, torch.ones(37, 2), 10)).biased)
    with pytest.raises(ValueError, match="no examples"):
        linear_cka([])


def test_penultimate_features_go_into_the_last_layer() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2), nn.Softmax(1))
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    data = [(x[:4], None), (x[4:], None)]
    torch.testing.assert_close(torch.cat(list(features_before(net, None, data))), net[0](x).relu())
    torch.testing.assert_close(torch.cat(list(features_before(net, "1", data))), net[0](x))
    assert net.training
    with pytest.raises(ValueError, match=r"features = 9: there is no such module; choose of 0, 3"):
        list(features_before(net, "9", data))
