"""Old checkpoints: the measures of `lnsgd.callbacks`, taken of networks that are not trained any more."""

from lnsgd.analysis.analyze import analyze
from lnsgd.analysis.compare import Comparison, compare
from lnsgd.analysis.how import How

__all__ = ["Comparison", "How", "analyze", "compare"]
