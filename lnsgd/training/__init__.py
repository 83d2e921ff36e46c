"""From a config to a finished run: ``lnsgd fit``, ``validate`` and ``test``."""

import lazy_loader

# ``__init__.pyi`` names what the room offers; it is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
