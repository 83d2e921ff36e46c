"""The processes of one run: who starts them, who watches them, and what is done when one is lost."""

from lnsgd.processes.beats import Beats
from lnsgd.processes.launcher import WatchingLauncher, watch_launched
from lnsgd.processes.lost import LostProcess

__all__ = ["Beats", "LostProcess", "WatchingLauncher", "watch_launched"]
