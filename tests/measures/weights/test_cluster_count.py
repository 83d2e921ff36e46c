"""Single linkage against SciPy's, and on points whose clusters are known."""

import math

import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage

from lnsgd.measures import cluster_count, clusters
from lnsgd.rng import generator


@pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.2, 0.4, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_same_clusters_as_scipy(tolerance, seed):
    points = torch.randn(40, 3, dtype=torch.float64, generator=generator(seed, "data"))
    expected = fcluster(linkage(points.numpy(), "single"), tolerance, "distance")
    found = clusters(points, tolerance)
    # The same pairs are together; names of clusters mean nothing.
    assert torch.equal(found[:, None] == found, torch.from_numpy(expected[:, None] == expected))
    assert cluster_count(points, tolerance) == len(set(expected))


def test_a_chain_is_one_cluster_whatever_its_order():
    chain = torch.arange(50.0)[torch.randperm(50, generator=generator(0, "order"))][:, None]
    assert cluster_count(chain, 1.0) == 1
    assert cluster_count(chain, 0.99) == 50


def test_clusters_are_counted_in_the_order_of_the_points():
    assert clusters(torch.tensor([[9.0], [0.0], [9.0], [5.0], [0.0]]), 0.5).tolist() == [0, 1, 0, 2, 1]


def test_diverged_points_have_no_clusters():
    points = torch.tensor([[0.0], [math.inf]])
    assert math.isnan(cluster_count(points, 1.0))
    with pytest.raises(ValueError, match="finite"):
        clusters(points, 1.0)


@pytest.mark.parametrize(
    ("points", "tolerance", "message"),
    [(torch.zeros(0, 2), 1.0, "shape"), (torch.zeros(3), 1.0, "shape"), (torch.zeros(3, 1), -0.1, "tolerance = -0.1")],
    ids=["none", "not-rows", "tolerance"],
)
def test_bad_arguments_are_refused(points, tolerance, message):
    with pytest.raises(ValueError, match=message):
        clusters(points, tolerance)
