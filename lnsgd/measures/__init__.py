"""Numbers computed from weights, activations or derivatives; one measure a file, no Lightning."""

from lnsgd.measures.active_neurons import ActiveNeurons, active_neurons
from lnsgd.measures.class_association import ClassAssociation, associated_class
from lnsgd.measures.cluster_count import cluster_count, clusters
from lnsgd.measures.curvature.problem import NonFiniteError, Share
from lnsgd.measures.curvature.rounds import Budget
from lnsgd.measures.dead_neurons import DeadNeurons
from lnsgd.measures.distance_from_init import Distance, distance_from_init, trainable_parameters
from lnsgd.measures.estimate import Estimate
from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.hessian_trace import HessianTrace, Method, hessian_trace
from lnsgd.measures.hidden_units import HiddenUnits, hidden_units
from lnsgd.measures.implicit_regularizer import implicit_regularizer
from lnsgd.measures.largest_output import largest_output
from lnsgd.measures.norm_step import NormStep, TensorStep, change_of_square, norm_step
from lnsgd.measures.performance import Performance, performance
from lnsgd.measures.projected_flow import Constrained, projected_flow
from lnsgd.measures.recovery_error import recovery_error
from lnsgd.measures.singular_values import effective_rank, features, singular_values
from lnsgd.measures.sites import activation_sites, observe
from lnsgd.measures.sum_network import Sharpness, SumNetwork, sharpness, sum_network
from lnsgd.measures.tensor_statistics import TensorStatistics, tensor_statistics

__all__ = [
    "ActiveNeurons",
    "Budget",
    "ClassAssociation",
    "Constrained",
    "DeadNeurons",
    "Distance",
    "Estimate",
    "HessianTrace",
    "HiddenUnits",
    "Method",
    "NonFiniteError",
    "NormStep",
    "Performance",
    "Share",
    "Sharpness",
    "SumNetwork",
    "TensorStatistics",
    "TensorStep",
    "activation_sites",
    "active_neurons",
    "associated_class",
    "change_of_square",
    "cluster_count",
    "clusters",
    "distance_from_init",
    "effective_rank",
    "evaluation_mode",
    "features",
    "hessian_trace",
    "hidden_units",
    "implicit_regularizer",
    "largest_output",
    "norm_step",
    "observe",
    "performance",
    "projected_flow",
    "recovery_error",
    "sharpness",
    "singular_values",
    "sum_network",
    "tensor_statistics",
    "trainable_parameters",
]
