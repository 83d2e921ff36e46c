"""Resolve the configs of cells as ``lnsgd fit`` does, without running anything."""

import json
from argparse import ArgumentError
from collections.abc import Mapping
from typing import Any

from lnsgd.console.messages import one_line
from lnsgd.sweep.grid import Point, Sweep
from lnsgd.training import check_config_files, command_parser, option_names

# Options that say where a run goes and how it is resumed; they do not change the run itself.
_OPTIONS_OF_COMMAND = ("config", "run_dir", "ckpt_path", "resume", "allow_changes")


def fit_arguments(sweep: Sweep, options: Point) -> list[str]:
    """Return the arguments of ``lnsgd fit``: the base configs of a sweep, its own options, then further options."""
    configs = [part for file in sweep.base for part in ("--config", str(file))]
    return [*configs, *as_arguments({**sweep.options, **options})]


def as_arguments(options: Point) -> list[str]:
    """Write options as arguments, ``--name=value``."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]


class ConfigReader:
    """A parser of the configs of a sweep: called with options, it returns the nested config of that cell.

    Args:
        sweep: The sweep, whose base configs and own options are read.

    Raises:
        ValueError: ``lnsgd fit`` would refuse a base config or an option of the sweep.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._parser = command_parser("fit")
        check_config_files(fit_arguments(sweep, {}))
        try:
            self._parser.parse_args(fit_arguments(sweep, {}))
        except ArgumentError as error:
            raise ValueError(f"{sweep.name}: {_one_line(error)}") from error

    def __call__(self, options: Point) -> Mapping[str, Any]:
        """Resolve the config of a cell.

        Raises:
            ValueError: An option does not exist or has a value of the wrong type, or the config has replicas.
        """
        try:
            parsed = self._parser.parse_args(fit_arguments(self._sweep, options))
        except ArgumentError as error:
            given = " ".join(as_arguments(options))
            raise ValueError(f"{self._sweep.name}: {given}: {_one_line(error)}") from error
        config = parsed.as_dict()
        if config["replicas"] is not None:
            raise ValueError(
                f"{self._sweep.name}: a sweep packs replicas by itself; leave them out of its base config and options"
            )
        return {name: value for name, value in config.items() if name not in _OPTIONS_OF_COMMAND}


def _one_line(error: ArgumentError) -> str:
    return one_line(error, lambda: option_names("fit"))
