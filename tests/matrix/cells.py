"""The cells of the matrix: what a measure gives in a setting, compared with an independent computation."""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from tests.matrix.expected import Expected
from tests.matrix.matrix_networks import KINDS
from tests.matrix.settings import MEASURES, SETTINGS, Found

# Cells in which a measure must be refused, by setting, with a part of the message.
REFUSED: dict[str, dict[str, str]] = {
    "GPT": {"class_association": "labels"},
}

# Relative to the expected value: sums in another order, numbers of single precision, and outputs of bfloat16.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.05}

# Measures that depend on the outputs in the number format of the forward passes; derivatives are in single precision.
OF_OUTPUTS = {"performance", "margin", "largest_output", "active_neurons", "dead_neurons", "class_association"}

# Top eigenvalues are iterated to this relative tolerance; estimates may be off by so many standard errors.
ITERATED, STANDARD_ERRORS = 1e-5, 4


class Cell(NamedTuple):
    """A cell.

    Attributes:
        refusal: The message with which the measure was refused; empty if it gave numbers.
        wrong: What is wrong with the numbers; empty if they are right.
    """

    refusal: str = ""
    wrong: str = ""


def cells_of(setting: str) -> dict[str, Cell]:
    """Run a setting and compare every measure. Measures that must be refused run alone, since they end the training."""
    refused = REFUSED.get(setting, {})
    found = _run(setting, [name for name in MEASURES if name not in refused])
    chosen = SETTINGS[setting]
    torch.set_default_dtype(chosen.dtype)
    try:
        expected = Expected(found.trained, chosen.autocast)
        cells = {
            name: Cell(wrong=_difference(name, setting, found, expected)) for name in MEASURES if name not in refused
        }
    finally:
        torch.set_default_dtype(torch.float32)
    return {**cells, **{name: Cell(refusal=_refusal(setting, name)) for name in refused}}


def _run(setting: str, names: Sequence[str]) -> Found:
    chosen = SETTINGS[setting]
    torch.set_default_dtype(chosen.dtype)
    try:
        with TemporaryDirectory() as folder:
            return chosen.run(KINDS[chosen.kind], names, Path(folder))
    finally:
        torch.set_default_dtype(torch.float32)


def _refusal(setting: str, name: str) -> str:
    try:
        _run(setting, [name])
    except ValueError as error:
        return str(error)
    return ""


def _difference(name: str, setting: str, found: Found, expected: Expected) -> str:
    """Say how the numbers of a measure differ from the expected ones; empty if they do not."""
    chosen = SETTINGS[setting]
    of_outputs = chosen.autocast is not None and name in OF_OUTPUTS
    tolerance = TOLERANCE[chosen.autocast if of_outputs else chosen.dtype]  # type: ignore[index]
    if name == "top_eigenvalues":
        tolerance = max(tolerance, ITERATED)
    right = getattr(expected, name)()
    measures = {measure for measure, _ in right}
    layers = {key for key in found.values if key[0] in measures and key not in right}
    if layers and name not in ("hessian_trace", "gradient_norm"):
        return f"{sorted(layers)} were measured too"
    for key, value in right.items():
        if key not in found.values:
            return f"{key} was not measured"
        error = found.errors[key]
        allowed = tolerance * max(abs(value), 0.1) + (0 if math.isnan(error) else STANDARD_ERRORS * error)
        if not abs(found.values[key] - value) <= allowed:
            return f"{key} is {found.values[key]!r} ± {error!r}, not {value!r}"
    return ""
