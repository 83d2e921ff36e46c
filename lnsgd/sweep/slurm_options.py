"""What is asked of SLURM for each job of a sweep, and how that is said on the command line."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field, fields
from typing import Any

_PREFIX = "slurm_"


@dataclass(frozen=True)
class SlurmOptions:
    """What each job gets; see ``man sbatch``.

    Attributes:
        partition: Where it is queued; by default SLURM's own choice.
        time: Minutes, after which a job is saved, queued again and goes on; SLURM kills it if it cannot save in time.
        grace: Seconds before the end of its time at which a job is told to save.
        cpus_per_task: Its cores, and its threads.
        gpus_per_task: Its GPUs, 0 or 1: a job of a sweep runs on one.
        mem: Gigabytes of memory.
        setup: Lines of shell that come first on the node, such as ``module load``.
        extra: Other options of sbatch, as ``key=value``, or ``key`` for one without a value.
    """

    partition: str | None = field(default=None, metadata={"help": "where jobs are queued (SLURM's own choice)"})
    time: int = field(default=240, metadata={"help": "minutes until a job is saved and queued again"})
    grace: int = field(default=90, metadata={"help": "seconds before that at which it is told to save"})
    cpus_per_task: int = field(default=2, metadata={"help": "cores of a job"})
    gpus_per_task: int = field(default=0, metadata={"help": "GPUs of a job, 0 or 1"})
    mem: float = field(default=8.0, metadata={"help": "gigabytes of memory of a job"})
    setup: tuple[str, ...] = field(default=(), metadata={"help": "line of shell that comes first; may be repeated"})
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
        """`extra`, by key."""
        pairs = (option.lstrip("-").partition("=") for option in self.extra)
        return {key: value if separator else True for key, separator, value in pairs}


def add_slurm_options(parser: ArgumentParser) -> None:
    """Adds ``--slurm.partition`` and so on; what is not given is not in the namespace."""
    group = parser.add_argument_group("of each job, with --executor slurm")
    defaults = SlurmOptions()
    for option in fields(SlurmOptions):
        default = getattr(defaults, option.name)
        repeated = isinstance(default, tuple)
        shown = "" if repeated or default is None else f" ({default})"
        group.add_argument(
            _flag(option.name),
            dest=_PREFIX + option.name,
            default=None,
            action="append" if repeated else "store",
            type=str if repeated or default is None else type(default),
            metavar=option.name.upper(),
            help=option.metadata["help"] + shown,
        )


def read_slurm_options(given: Namespace) -> SlurmOptions | None:
    """What was said on the command line; None where nothing was.

    Raises:
        ValueError: a value is not allowed.
    """
    said = {option.name: getattr(given, _PREFIX + option.name) for option in fields(SlurmOptions)}
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    said = {name: value for name, value in said.items() if value is not None}
    return SlurmOptions(**said) if said else None


def _flag(name: str) -> str:
    return f"--slurm.{name.replace('_', '-')}"
