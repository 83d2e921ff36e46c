"""Which engine runs a recipe."""

import torch

from lnsgd.models import MatrixFactorization
from lnsgd.replicas.engine import Engine, Recipe
from lnsgd.replicas.factorization import FactorizationEngine
from lnsgd.replicas.general import GeneralEngine
from lnsgd.replicas.kernel import KernelEngine
from lnsgd.replicas.replica import EngineName


def choose_engine(name: EngineName, recipe: Recipe, device: torch.device) -> tuple[type[Engine], str]:
    """The engine for a recipe, and in words why it was chosen.

    Args:
        name: ``kernel``, ``general``, or ``auto``: the kernel where it can.
        recipe: What is to be run.
        device: Where.

    Raises:
        ValueError: the engine cannot run the recipe; the message names the part that it does not support.
    """
    kernel, fits = _kernel(recipe)
    engine, why = (GeneralEngine, "asked for") if name == "general" else (kernel, "asked for")
    if name == "auto":
        why = fits
        if (missing := kernel.unsupported(recipe, device)) is not None:
            engine, why = GeneralEngine, f"the kernel cannot: {missing}"
    if (missing := engine.unsupported(recipe, device)) is not None:
        raise ValueError(f"engine = {engine.name} cannot run this: {missing}")
    return engine, why


def _kernel(recipe: Recipe) -> tuple[type[Engine], str]:
    """The kernel for a network, and what it runs."""
    if isinstance(recipe.net, MatrixFactorization):
        return FactorizationEngine, "a matrix factorization on the CPU"
    return KernelEngine, "one hidden layer on the CPU"
