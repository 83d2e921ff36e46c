"""Module, data and replicas of a run, built from its config."""

import warnings
from argparse import ArgumentError
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pytorch_lightning import LightningDataModule, LightningModule

from lnsgd import __version__, rng
from lnsgd.console.messages import one_line, out_of_memory
from lnsgd.records.changes import config_in_effect
from lnsgd.records.provenance import read_provenance
from lnsgd.replicas import Replica, ReplicaGrid
from lnsgd.runs.folder import RunFolder
from lnsgd.training.parser import network_parser
from lnsgd.untrusted.class_paths import check_class_paths
from lnsgd.untrusted.files import UnreadableError


class RunConfig(NamedTuple):
    """The networks of a run, built anew from its config.

    Attributes:
        module: The run's module, with freshly drawn weights.
        data: The run's data, not set up.
        replicas: How the replicas of a replicated run differ; empty for an ordinary run.
        precision: The precision of the run's Trainer.
    """

    module: LightningModule
    data: LightningDataModule
    replicas: list[Replica]
    precision: Any


def read_run_config(run: RunFolder, trusted: Collection[str] = ()) -> RunConfig:
    """Build the module and the data that the config of a run names, and nothing else of it.

    Of a run that was resumed with other options, it is the config that held last.

    Args:
        run: The run, which may come from anyone.
        trusted: Packages whose classes the config may name, besides ``lnsgd.untrusted.class_paths.ALLOWED``.

    Raises:
        ValueError: there is no config, it cannot be read or built, or it names classes of other packages.
    """
    content = _content(run)
    wanted: dict[str, Any] = {name: content.get(name) for name in ("seed_everything", "model", "data", "replicas")}
    try:
        check_class_paths(wanted, trusted)
    except UnreadableError as error:
        raise ValueError(f"{run.config} is not read any further: {error}") from error
    refusal = None
    try:
        with warnings.catch_warnings(), rng.forked(wanted["seed_everything"], "init"):
            warnings.simplefilter("ignore")
            parser = network_parser()
            built = parser.instantiate(parser.parse_object(wanted))
    except (ArgumentError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        refusal = "its network is larger than the memory" if out_of_memory(error) else one_line(error)
    if refusal is not None:  # raised here, because the command reports memory that ran out as the machine's fault
        raise ValueError(f"{run.config}: {refusal}; {_remedy(run)}")
    grid: ReplicaGrid | None = built.replicas
    replicas = grid.replicas(built.seed_everything) if grid else []
    trainer = content.get("trainer")
    precision = trainer.get("precision") if isinstance(trainer, Mapping) else None
    return RunConfig(built.model, built.data, replicas, precision or "32-true")


def _content(run: RunFolder) -> Mapping[str, Any]:
    """Read the config of a run, which has at least a seed, a model and data."""
    if not run.config.is_file():
        raise ValueError(
            f"{run.path} has no config.yaml, so it is not a run of lnsgd; give a run's folder, or a checkpoint file "
            "with its --model"
        )
    try:
        content = config_in_effect(run)
    except UnreadableError as error:
        raise ValueError(f"{run.config} is not the config of a run ({error}); give another run") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{run.config} is not the config of a run (it has no names); give another run")
    for name in ("seed_everything", "model", "data"):
        if name not in content:
            raise ValueError(f"{run.config} is not the config of a run (it has no {name!r}); give another run")
    return content


def _remedy(run: RunFolder) -> str:
    """Say what to do about a config that cannot be built; another version may have had other classes and options."""
    remedy = "mend it, or give the network with --model and the data with --data"
    try:
        made_by = read_provenance(run.finished).versions["lnsgd"]
    except (ValueError, KeyError):  # the run is not finished, or its version did not record itself
        return remedy
    return (
        remedy if made_by == __version__ else f"it was written by lnsgd {made_by}, and this is {__version__}: {remedy}"
    )
