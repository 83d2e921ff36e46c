"""lnsgd: SGD with label noise or label smoothing, and what it does to a network.

``lnsgd.measure`` measures any network once, and ``lnsgd.Watch`` along a training loop. Everything else is imported from
its room: ``lnsgd.label_noise``, ``lnsgd.losses``, ``lnsgd.models``, ``lnsgd.measures``, ``lnsgd.data``,
``lnsgd.modules``, ``lnsgd.callbacks``.

Importing the package costs nothing beyond the standard library: what it offers is imported when it is first used.
"""

import lazy_loader

__version__ = "0.1.0"

# ``__init__.pyi`` names what the package offers and where it comes from, for this line and for type checkers.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
