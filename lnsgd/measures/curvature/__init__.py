"""First and second derivatives of the loss: gradients, traces, eigenvalues and spectra."""

from lnsgd.measures.curvature.gradient_norms import (
    ExampleGradientNorms,
    GradientNorms,
    example_gradient_norms,
    gradient_norm,
    implicit_regularizer,
)
from lnsgd.measures.curvature.hessian_trace import Method, TraceEstimate, hessian_trace
from lnsgd.measures.curvature.spectral_density import SpectralQuadrature, spectral_density
from lnsgd.measures.curvature.top_eigenvalues import Eigenpairs, check_settings, top_eigenvalues
from lnsgd.measures.curvature.trace_estimators import Budget

__all__ = [
    "Budget",
    "Eigenpairs",
    "ExampleGradientNorms",
    "GradientNorms",
    "Method",
    "SpectralQuadrature",
    "TraceEstimate",
    "check_settings",
    "example_gradient_norms",
    "gradient_norm",
    "hessian_trace",
    "implicit_regularizer",
    "spectral_density",
    "top_eigenvalues",
]
