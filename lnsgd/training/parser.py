"""The parsers of a run's config. The training commands, sweeps and the analysis of runs share their arguments."""

from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

import lnsgd.data
import lnsgd.label_noise
import lnsgd.losses
import lnsgd.models
import lnsgd.modules  # noqa: F401  (imported, the classes of these rooms can be named without their path)
from lnsgd.replicas import ReplicaGrid

# The commands are methods of the Trainer; of each, the parameters that are not options.
COMMANDS = {name: LightningCLI.subcommands()[name] for name in ("fit", "validate", "test")}

# A wrong option raises an error instead of ending the process, and an option must be written in full.
PARSER_SETTINGS: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}


def command_parser(command: str) -> LightningArgumentParser:
    """Make the parser of one training command, which takes what follows the command on the command line.

    Args:
        command: ``fit``, ``validate`` or ``test``.
    """
    usage = f"lnsgd {command} --config CONFIG [options]"
    parser = LightningArgumentParser(**PARSER_SETTINGS, prog=f"lnsgd {command}", usage=usage)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    add_seed(parser)
    add_trainer(parser)
    add_module_and_data(parser)
    add_run_dir(parser)
    add_replicas(parser)
    parser.add_method_arguments(Trainer, command, skip=set(COMMANDS[command]))
    return parser


def option_names(command: str) -> list[str]:
    """Return the options of a training command, without those of the classes that its config names.

    Args:
        command: ``fit``, ``validate`` or ``test``.
    """
    return [
        f"--{name}"
        for name in dict.fromkeys(["config", "print_config", *command_parser(command).get_defaults().keys()])
    ]


def network_parser() -> LightningArgumentParser:
    """Make the parser of the networks of a run: its seed, module, data and replicas."""
    parser = LightningArgumentParser(**PARSER_SETTINGS)
    add_seed(parser)
    add_module_and_data(parser)
    add_replicas(parser)
    return parser


def add_seed(parser: LightningArgumentParser) -> None:
    """Add the seed, which is always fixed."""
    help_text = "Key of everything random: initialization, order, noise, subsets. An integer >= 0."
    parser.add_argument("--seed_everything", type=bool | int, default=0, help=help_text)


def add_trainer(parser: LightningArgumentParser) -> None:
    """Add the settings of the Trainer."""
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.set_defaults({"trainer.devices": 1})  # a small network gains nothing from all GPUs of a machine


def add_module_and_data(parser: LightningArgumentParser) -> None:
    """Add the module and the data, which get the one seed; call `add_seed` before."""
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    for target in ("model.init_args.seed", "data.init_args.seed"):
        parser.link_arguments("seed_everything", target, compute_fn=checked_seed)


def add_run_dir(parser: LightningArgumentParser) -> None:
    """Add the folder of the run, and how it is resumed."""
    help_text = "Folder of the run; by default runs/<name of the config>, with a number where that is taken."
    parser.add_argument("--run_dir", type=str | None, default=None, help=help_text)
    help_text = "Folder of a run to resume with its own options: its config, --run_dir and --ckpt_path auto in one."
    parser.add_argument("--resume", type=str | None, default=None, help=help_text)
    help_text = "Resume a run although options of the experiment differ, and note the change in its changes.json."
    parser.add_argument("--allow_changes", action="store_true", help=help_text)


def add_replicas(parser: LightningArgumentParser) -> None:
    """Add the replicas."""
    help_text = "Train many replicas of the model together, see lnsgd.replicas.ReplicaGrid."
    parser.add_argument("--replicas", type=ReplicaGrid | None, default=None, help=help_text)


def checked_seed(seed: bool | int) -> int:
    """Return a seed that lets a run be repeated.

    Raises:
        ValueError: the seed is ``true``, which would draw one, or negative.
    """
    if isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed_everything = {seed}; give an integer >= 0, so that the run can be repeated")
    return seed
