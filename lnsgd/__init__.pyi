from . import integrations as integrations
from .plain import Watch as Watch
from .plain import measure as measure

__version__: str
