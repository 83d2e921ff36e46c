"""lnsgd: SGD with label noise or label smoothing, and what it does to a network.

Importing the package costs nothing beyond the standard library; every room is imported by name:
``lnsgd.label_noise``, ``lnsgd.losses``, ``lnsgd.models``, ``lnsgd.measures``, ``lnsgd.data``,
``lnsgd.modules``, ``lnsgd.callbacks``.
"""

__version__ = "0.1.0"
