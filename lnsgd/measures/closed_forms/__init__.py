"""Closed forms and exact dynamics that one or two figures need."""

from lnsgd.measures.closed_forms.minimal_regularizer import minimal_regularizer
from lnsgd.measures.closed_forms.norm_step import NormStep, TensorStep, change_of_square, norm_step
from lnsgd.measures.closed_forms.projected_flow import Constrained, projected_flow, retract
from lnsgd.measures.closed_forms.recovery_error import recovery_error
from lnsgd.measures.closed_forms.sum_network import SumNetwork, SumNetworkSharpness, sharpness, sum_network
from lnsgd.measures.closed_forms.tanh_network import TanhNetwork

__all__ = [
    "Constrained",
    "NormStep",
    "SumNetwork",
    "SumNetworkSharpness",
    "TanhNetwork",
    "TensorStep",
    "change_of_square",
    "minimal_regularizer",
    "norm_step",
    "projected_flow",
    "recovery_error",
    "retract",
    "sharpness",
    "sum_network",
]
