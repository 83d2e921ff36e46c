"""The choice of an engine."""

import torch

from lnsgd.models import MatrixFactorization
from lnsgd.replicas.engines.base import Engine, StepRule
from lnsgd.replicas.engines.factorization_kernel import FactorizationKernel
from lnsgd.replicas.engines.general import GeneralEngine
from lnsgd.replicas.engines.mlp_kernel import MLPKernel
from lnsgd.replicas.grid import EngineName


def choose_engine(name: EngineName, rule: StepRule, device: torch.device) -> tuple[type[Engine], str]:
    """Return the engine that takes the steps of a rule, and the reason in a few words.

    Args:
        name: ``kernel``, ``general``, or ``auto`` for the kernel if it can run the rule.
        rule: How a step is taken.
        device: Device of the run.

    Raises:
        ValueError: the engine cannot run the rule; the message names the part that it does not support.
    """
    kernel, fits = _kernel(rule)
    engine, why = (GeneralEngine, "as configured") if name == "general" else (kernel, "as configured")
    if name == "auto":
        why = fits
        if (missing := kernel.unsupported(rule, device)) is not None:
            engine, why = GeneralEngine, f"the kernel cannot: {missing}"
    if (missing := engine.unsupported(rule, device)) is not None:
        raise ValueError(f"engine = {engine.name} cannot run this: {missing}")
    return engine, why


def _kernel(rule: StepRule) -> tuple[type[Engine], str]:
    """Return the kernel engine for a network, and what that engine runs."""
    if isinstance(rule.net, MatrixFactorization):
        return FactorizationKernel, "a matrix factorization on the CPU"
    return MLPKernel, "one hidden layer on the CPU"
