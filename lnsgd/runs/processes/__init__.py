"""The processes of one run: their devices, how they are started and watched, and what happens if one is lost."""

from lnsgd.runs.processes.devices import check_devices, check_nodes, check_strategy, cluster_environments
from lnsgd.runs.processes.heartbeat import Heartbeat
from lnsgd.runs.processes.launcher import WatchingLauncher, watch_launched
from lnsgd.runs.processes.lost import LostProcess

__all__ = [
    "Heartbeat",
    "LostProcess",
    "WatchingLauncher",
    "check_devices",
    "check_nodes",
    "check_strategy",
    "cluster_environments",
    "watch_launched",
]
