"""Numbers computed from weights, activations or derivatives; one measure a file, no Lightning."""

from lnsgd.measures.active_neurons import ActiveNeurons, active_neurons
from lnsgd.measures.class_association import ClassAssociation, associated_class
from lnsgd.measures.dead_neurons import DeadNeurons
from lnsgd.measures.distance_from_init import Distance, distance_from_init, trainable_parameters
from lnsgd.measures.estimate import Estimate
from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.hessian_trace import HessianTrace, hessian_trace
from lnsgd.measures.largest_output import largest_output
from lnsgd.measures.norm_step import NormStep, TensorStep, change_of_square, norm_step
from lnsgd.measures.performance import Performance, performance
from lnsgd.measures.sites import activation_sites, observe
from lnsgd.measures.tensor_statistics import TensorStatistics, tensor_statistics

__all__ = [
    "ActiveNeurons",
    "ClassAssociation",
    "DeadNeurons",
    "Distance",
    "Estimate",
    "HessianTrace",
    "NormStep",
    "Performance",
    "TensorStatistics",
    "TensorStep",
    "activation_sites",
    "active_neurons",
    "associated_class",
    "change_of_square",
    "distance_from_init",
    "evaluation_mode",
    "hessian_trace",
    "largest_output",
    "norm_step",
    "observe",
    "performance",
    "tensor_statistics",
    "trainable_parameters",
]
