"""The resources that each job of a sweep requests from SLURM, and their options on the command line."""

from argparse import Namespace
from dataclasses import dataclass, field, fields
from typing import Any

from lnsgd.console.messages import CommandParser

_PREFIX = "slurm_"


@dataclass(frozen=True)
class SlurmOptions:
    """The resources of each job; see ``man sbatch``.

    Attributes:
        partition: Partition of the queue; by default SLURM's own choice.
        time: Minutes after which a job is saved and queued again, to resume later. SLURM kills it if it does not save
            in time.
        grace: Seconds before the end of its time at which a job is asked to save.
        cpus_per_task: Number of cores, and of threads.
        gpus_per_task: Number of GPUs, 0 or 1: a job of a sweep runs on one GPU.
        mem: Gigabytes of memory.
        setup: Shell lines that run first on the node, such as ``module load``.
        extra: Other options of sbatch, as ``key=value``, or as ``key`` for an option without a value.
    """

    partition: str | None = field(default=None, metadata={"help": "partition of the queue (SLURM's own choice)"})
    time: int = field(default=240, metadata={"help": "minutes until a job is saved and queued again"})
    grace: int = field(default=90, metadata={"help": "seconds before that at which it is asked to save"})
    cpus_per_task: int = field(default=2, metadata={"help": "cores of a job"})
    gpus_per_task: int = field(default=0, metadata={"help": "GPUs of a job, 0 or 1"})
    mem: float = field(default=8.0, metadata={"help": "gigabytes of memory of a job"})
    setup: tuple[str, ...] = field(default=(), metadata={"help": "shell line that runs first; may be repeated"})
    extra: tuple[str, ...] = field(
        default=(), metadata={"help": "KEY=VALUE, any other option of sbatch, such as account=me; may be repeated"}
    )

    def __post_init__(self) -> None:
        for name in ("time", "grace", "cpus_per_task", "mem"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{_flag(name)} {getattr(self, name)}; give more than 0")
        if self.gpus_per_task not in (0, 1):
            raise ValueError(f"{_flag('gpus_per_task')} {self.gpus_per_task}; a job of a sweep runs on 1 GPU, or on 0")
        if self.grace >= 60 * self.time:
            raise ValueError(f"{_flag('grace')} {self.grace}; give less than the {60 * self.time} seconds of a job")
        for option in self.extra:
            if not option.partition("=")[0].strip("-"):
                raise ValueError(f"{_flag('extra')} {option}; give KEY=VALUE, such as account=me")

    @property
    def additional(self) -> dict[str, Any]:
        """The options in `extra`, by key."""
        pairs = (option.lstrip("-").partition("=") for option in self.extra)
        return {key: value if separator else True for key, separator, value in pairs}


def add_slurm_options(parser: CommandParser) -> None:
    """Add ``--slurm.partition`` and the other options; options that are not given are ``None`` in the namespace."""
    group = parser.add_argument_group("resources of each job, with --executor slurm")
    defaults = SlurmOptions()
    for option in fields(SlurmOptions):
        default = getattr(defaults, option.name)
        repeated = isinstance(default, tuple)
        default_text = "" if repeated or default is None else f" ({default})"
        action = group.add_argument(
            _flag(option.name),
            dest=_PREFIX + option.name,
            default=None,
            action="append" if repeated else "store",
            type=str if repeated or default is None else type(default),
            metavar=option.name.upper(),
            help=option.metadata["help"] + default_text,
        )
        parser.own_actions.append(action)


def read_slurm_options(given: Namespace) -> SlurmOptions | None:
    """Read the options from the command line; ``None`` if none was given.

    Raises:
        ValueError: A value is not allowed.
    """
    found = {option.name: getattr(given, _PREFIX + option.name) for option in fields(SlurmOptions)}
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    found = {name: value for name, value in found.items() if value is not None}
    return SlurmOptions(**found) if found else None


def _flag(name: str) -> str:
    return f"--slurm.{name.replace('_', '-')}"
