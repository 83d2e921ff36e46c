"""Measuring without Lightning, in a plain PyTorch program: `lnsgd.measure` once, `lnsgd.Watch` along training."""

from lnsgd.plain.measure import measure
from lnsgd.plain.watch import Watch

__all__ = ["Watch", "measure"]
