"""Measures of the outputs of a network: loss, error, margins, magnitude."""

from lnsgd.measures.outputs.largest_output import largest_output
from lnsgd.measures.outputs.margin import Margins, margins
from lnsgd.measures.outputs.performance import LossAndError, performance

__all__ = ["LossAndError", "Margins", "largest_output", "margins", "performance"]
