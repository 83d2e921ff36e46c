"""From a config to a finished run: ``lnsgd fit``, ``validate`` and ``test``."""

from lnsgd.training.cli import TrainingCLI, check_config_files, train
from lnsgd.training.parser import command_parser
from lnsgd.training.run_config import RunConfig, read_run_config
from lnsgd.training.shipped_configs import config_path

__all__ = [
    "RunConfig",
    "TrainingCLI",
    "check_config_files",
    "command_parser",
    "config_path",
    "read_run_config",
    "train",
]
