"""Numbers computed from weights, activations or derivatives; one measure a file, no Lightning."""

from lnsgd.measures.active_neurons import ActiveNeurons, active_neurons
from lnsgd.measures.chord_deviation import chord_deviation
from lnsgd.measures.class_association import ClassAssociation, associated_class
from lnsgd.measures.cluster_count import cluster_count, clusters
from lnsgd.measures.convexity_changes import convexity_changes
from lnsgd.measures.curvature.problem import NonFiniteError, Share
from lnsgd.measures.curvature.rounds import Budget
from lnsgd.measures.curve_length import curve_length
from lnsgd.measures.dead_neurons import DeadNeurons
from lnsgd.measures.distance_from_init import Distance, distance_from_init, trainable_parameters
from lnsgd.measures.estimate import Estimate
from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.example_gradient_norms import ExampleGradientNorms, example_gradient_norms
from lnsgd.measures.firings import Firings, count_firings
from lnsgd.measures.gradient_norm import GradientNorm, gradient_norm
from lnsgd.measures.hessian_trace import HessianTrace, Method, hessian_trace
from lnsgd.measures.hidden_units import HiddenUnits, hidden_units
from lnsgd.measures.implicit_regularizer import implicit_regularizer
from lnsgd.measures.largest_output import largest_output
from lnsgd.measures.margin import Margins, margins
from lnsgd.measures.minimal_regularizer import minimal_regularizer
from lnsgd.measures.norm_products import NormProducts, norm_products
from lnsgd.measures.norm_step import NormStep, TensorStep, change_of_square, norm_step
from lnsgd.measures.performance import Performance, performance
from lnsgd.measures.polyline import polyline
from lnsgd.measures.projected_flow import Constrained, projected_flow, retract
from lnsgd.measures.recovery_error import recovery_error
from lnsgd.measures.singular_values import effective_rank, features, singular_values
from lnsgd.measures.sites import activation_sites, names_of_calls, observe
from lnsgd.measures.spectral_density import SpectralDensity, spectral_density
from lnsgd.measures.sum_network import Sharpness, SumNetwork, sharpness, sum_network
from lnsgd.measures.tanh_network import TanhNetwork
from lnsgd.measures.tensor_statistics import TensorStatistics, tensor_statistics
from lnsgd.measures.top_eigenvalues import TopEigenvalues, top_eigenvalues

__all__ = [
    "ActiveNeurons",
    "Budget",
    "ClassAssociation",
    "Constrained",
    "DeadNeurons",
    "Distance",
    "Estimate",
    "ExampleGradientNorms",
    "Firings",
    "GradientNorm",
    "HessianTrace",
    "HiddenUnits",
    "Margins",
    "Method",
    "NonFiniteError",
    "NormProducts",
    "NormStep",
    "Performance",
    "Share",
    "Sharpness",
    "SpectralDensity",
    "SumNetwork",
    "TanhNetwork",
    "TensorStatistics",
    "TensorStep",
    "TopEigenvalues",
    "activation_sites",
    "active_neurons",
    "associated_class",
    "change_of_square",
    "chord_deviation",
    "cluster_count",
    "clusters",
    "convexity_changes",
    "count_firings",
    "curve_length",
    "distance_from_init",
    "effective_rank",
    "evaluation_mode",
    "example_gradient_norms",
    "features",
    "gradient_norm",
    "hessian_trace",
    "hidden_units",
    "implicit_regularizer",
    "largest_output",
    "margins",
    "minimal_regularizer",
    "names_of_calls",
    "norm_products",
    "norm_step",
    "observe",
    "performance",
    "polyline",
    "projected_flow",
    "recovery_error",
    "retract",
    "sharpness",
    "singular_values",
    "spectral_density",
    "sum_network",
    "tensor_statistics",
    "top_eigenvalues",
    "trainable_parameters",
]
