"""The processes of one run: their devices, who starts and who watches them, and what is done when one is lost."""

from lnsgd.processes.available import check_devices, check_nodes, cluster_environments
from lnsgd.processes.beats import Beats
from lnsgd.processes.launcher import WatchingLauncher, watch_launched
from lnsgd.processes.lost import LostProcess

__all__ = [
    "Beats",
    "LostProcess",
    "WatchingLauncher",
    "check_devices",
    "check_nodes",
    "cluster_environments",
    "watch_launched",
]
