"""What a run's own config says: its model, its data, its replicas."""

import warnings
from argparse import ArgumentError
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningArgumentParser

import lnsgd.label_noise
import lnsgd.losses
import lnsgd.models
import lnsgd.modules  # noqa: F401  (imported, the classes of these rooms can be named without their path)
from lnsgd import __version__, rng
from lnsgd.messages import one_line, out_of_memory
from lnsgd.replicas import Replica, ReplicaGrid
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.class_paths import check_class_paths
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.texts import load_json, load_yaml


class Configured(NamedTuple):
    """What a run was made of.

    Attributes:
        module: Its module, with weights that mean nothing.
        data: Its data, not set up.
        replicas: In what the replicas of a replicated run differ; none in an ordinary one.
        precision: Of its Trainer.
    """

    module: LightningModule
    data: LightningDataModule
    replicas: list[Replica]
    precision: Any


def read_config(run: RunFolder, trusted: Collection[str] = ()) -> Configured:
    """Builds the module and the data that a run's ``config.yaml`` names, and nothing else of it.

    Args:
        run: The run, which may be of anyone.
        trusted: Packages of which it may name classes, besides `lnsgd.untrusted.class_paths.ALLOWED`.

    Raises:
        ValueError: no config, or one that cannot be read or built, or names classes of other packages.
    """
    if not run.config.is_file():
        raise ValueError(
            f"{run.path} has no config.yaml, so it is no run of lnsgd; give a run's folder, or a checkpoint file with "
            "its --model"
        )
    try:
        content = load_yaml(run.config)
        wanted = {name: content[name] for name in ("seed_everything", "model", "data")}
    except KeyError as error:
        raise ValueError(f"{run.config} is no config of a run (it has no {error}); give another run") from error
    except UnreadableError as error:
        raise ValueError(f"{run.config} is no config of a run ({error}); give another run") from error
    except TypeError as error:
        raise ValueError(f"{run.config} is no config of a run (it has no names); give another run") from error
    seed, parser = wanted["seed_everything"], _parser()
    wanted["replicas"] = content.get("replicas")
    try:
        check_class_paths(wanted, trusted)
    except UnreadableError as error:
        raise ValueError(f"{run.config} is not read any further: {error}") from error
    refusal = None
    try:
        with warnings.catch_warnings(), rng.forked(seed, "init"):
            warnings.simplefilter("ignore")
            built = parser.instantiate(parser.parse_object(wanted))
    except (ArgumentError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        refusal = "its network is larger than the memory" if out_of_memory(error) else one_line(error)
    if refusal is not None:  # outside, since the command takes memory that ran out for the machine's fault
        raise ValueError(f"{run.config}: {refusal}; {_remedy(run)}")
    grid: ReplicaGrid | None = built.replicas
    precision = _trainer(content).get("precision")
    return Configured(built.model, built.data, grid.replicas(seed) if grid else [], precision or "32-true")


def _remedy(run: RunFolder) -> str:
    """What to do about a config that cannot be built; another version of lnsgd may have other classes and options."""
    remedy = "mend it, or say the network with --model and the data with --data"
    try:
        made_by = load_json(run.finished)["versions"]["lnsgd"]
    except (OSError, ValueError, KeyError, TypeError):  # not finished, or by a version that does not say it
        return remedy
    return remedy if made_by == __version__ else f"it is of lnsgd {made_by}, and this is {__version__}: {remedy}"


def _trainer(content: Mapping[str, Any]) -> Mapping[str, Any]:
    return content.get("trainer") or {}


def _parser() -> LightningArgumentParser:
    """As that of ``lnsgd fit``, for what is measured; a Trainer with its loggers is not built."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--seed_everything", type=int)
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parser.add_argument("--replicas", type=ReplicaGrid | None, default=None)
    for target in ("model.init_args.seed", "data.init_args.seed"):
        parser.link_arguments("seed_everything", target)
    return parser
