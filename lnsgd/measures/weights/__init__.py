"""Measures of weights: norms, ranks, clusters, and the distance from initialization."""

from lnsgd.measures.weights.clusters import cluster_count, clusters
from lnsgd.measures.weights.distance import Distance, distance_from_init
from lnsgd.measures.weights.in_use import uninitialized, weights_in_use
from lnsgd.measures.weights.norms import (
    NormProducts,
    TensorStatistics,
    norm_products,
    tensor_statistics,
    trainable_parameters,
)
from lnsgd.measures.weights.singular_values import effective_rank, singular_values

__all__ = [
    "Distance",
    "NormProducts",
    "TensorStatistics",
    "cluster_count",
    "clusters",
    "distance_from_init",
    "effective_rank",
    "norm_products",
    "singular_values",
    "tensor_statistics",
    "trainable_parameters",
    "uninitialized",
    "weights_in_use",
]
