"""Measures that compare two networks: CKA, overlap of active units, interpolation."""

from lnsgd.measures.pairs.cka import CKA, FeatureMoments, features_before, linear_cka, named_module
from lnsgd.measures.pairs.interpolation import BatchNorm, Line, barrier, check_line, mixed
from lnsgd.measures.pairs.overlap import ever_active, jaccard, often_active

__all__ = [
    "CKA",
    "BatchNorm",
    "FeatureMoments",
    "Line",
    "barrier",
    "check_line",
    "ever_active",
    "features_before",
    "jaccard",
    "linear_cka",
    "mixed",
    "named_module",
    "often_active",
]
