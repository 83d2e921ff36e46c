"""Resolved configs of cells, as ``lnsgd fit`` would have them, without running anything."""

import json
import warnings
from argparse import ArgumentError
from collections.abc import Mapping
from typing import Any

from lnsgd.messages import one_line
from lnsgd.stop_signals import StopSignals
from lnsgd.sweep.grid import Point, Sweep
from lnsgd.training import TrainingCLI, check_config_files

# What says where a run goes, and not what it is.
_NO_PART_OF_A_RUN = ("config", "run_dir", "ckpt_path")


def arguments(sweep: Sweep, options: Point) -> list[str]:
    """Arguments of ``lnsgd fit`` for a sweep's base with options: its own, then these."""
    configs = [part for file in sweep.base for part in ("--config", str(file))]
    return [*configs, *written({**sweep.options, **options})]


def written(options: Point) -> list[str]:
    """Options as arguments, ``--name=value``."""
    return [f"--{name}={_written(value)}" for name, value in options.items()]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class ConfigReader(TrainingCLI):
    """Resolves configs of a sweep; called with options it gives the nested config of that cell.

    Args:
        sweep: The sweep, for its base and its own options.

    Raises:
        ValueError: on reading, a config or an option that ``lnsgd fit`` refuses.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        check_config_files(arguments(sweep, {}))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
            try:
                super().__init__(["fit", *arguments(sweep, {})], StopSignals())
            except ArgumentError as error:
                raise ValueError(f"{sweep.name}: {one_line(error)}") from error

    def __call__(self, options: Point) -> Mapping[str, Any]:
        """The resolved config of a cell.

        Raises:
            ValueError: an option that does not exist, or has a value of the wrong type; replicas in the base config.
        """
        try:
            parsed = self.parser.parse_args(["fit", *arguments(self._sweep, options)])["fit"]
        except ArgumentError as error:
            given = " ".join(written(options))
            raise ValueError(f"{self._sweep.name}: {given}: {one_line(error)}") from error
        config = parsed.as_dict()
        if config["replicas"] is not None:
            raise ValueError(f"{self._sweep.name}: replicas are packed by the sweep itself; leave them out of its base")
        return {name: value for name, value in config.items() if name not in _NO_PART_OF_A_RUN}

    def _set_seed(self) -> None:
        """Nothing is drawn."""

    def before_instantiate_classes(self) -> None:
        """Nothing is built."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""
