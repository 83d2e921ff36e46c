"""The command ``lnsgd completion``: a script by which a shell completes what is typed after ``lnsgd``."""

import inspect
from argparse import Action, ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path
from typing import Any

from lnsgd.console.messages import CommandParser

SHELLS = ("bash", "zsh")

# The options that take a class, with the module whose classes are offered and the class that these derive from.
_CLASSES = {
    "--model": ("lnsgd.modules", "SupervisedModule"),
    "--model.label_noise": ("lnsgd.label_noise", "LabelNoise"),
    "--model.loss": ("lnsgd.losses", "Loss"),
    "--data": ("lnsgd.data", "TensorData"),
    "--trainer.callbacks": ("lnsgd.callbacks", "Callback"),
}

# The function in the script that offers the configs that ship with lnsgd, and files.
_CONFIGS = "_lnsgd_configs"


def parse(args: list[str]) -> Namespace:
    """Read the options.

    Args:
        args: What follows ``completion`` on the command line.

    Raises:
        ValueError: the shell is missing or unknown.
    """
    return make_parser().parse_args(args)


def make_parser() -> CommandParser:
    """Make the parser of ``lnsgd completion``."""
    parser = CommandParser(
        "lnsgd completion",
        description="Print a script by which a shell completes commands, options, figures, configs and classes.",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    return parser


def script(shell: str) -> str:
    """Return the script of a shell; this imports every command, which takes seconds.

    Args:
        shell: One of ``SHELLS``.
    """
    import shtab

    from lnsgd.training.shipped_configs import shipped_configs

    names = " ".join(shipped_configs())
    offered = {
        "bash": f'compgen -W "{names}" -- "$1"; compgen -f -- "$1"',
        "zsh": f"_alternative 'configs:config:({names})' 'files:file:_files'",
    }
    return shtab.complete(_parser_of_all(), shell, preamble=f"{_CONFIGS}() {{ {offered[shell]}; }}\n")


def _parser_of_all() -> ArgumentParser:
    """Return one parser with every command, from which shtab makes the script."""
    from lnsgd.analysis import options as analyze
    from lnsgd.figures.framework import options as reproduce
    from lnsgd.figures.framework.listing import listed_figures
    from lnsgd.report import options as report
    from lnsgd.sweep import options as sweep
    from lnsgd.training.first_help import ABOUT

    parser = ArgumentParser("lnsgd")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for command in ("fit", "validate", "test"):
        _add_training_options(commands.add_parser(command, add_help=False, help=ABOUT[command]), command)
    others = {
        "sweep": sweep.sweep_parser(),
        "table": sweep.table_parser(),
        "reproduce": reproduce.make_parser(),
        "analyze": analyze.make_parser(),
        "report": report.make_parser(),
        "completion": make_parser(),
    }
    for command, own in others.items():
        for action in own.own_actions:
            if action.dest == "figure":
                action.choices = [reproduce.LIST, *listed_figures()]
            elif action.type is Path:
                _complete_with_files(action)
        commands.add_parser(command, parents=[own], add_help=False, help=own.description)
    return parser


def _add_training_options(parser: ArgumentParser, command: str) -> None:
    """Add the options of the run and the Trainer, those that are needed first, and those that take a class."""
    from lnsgd.training import option_names
    from lnsgd.training.first_help import ALL, SHORT, first_options

    flags = (*SHORT, ALL, "--print_config")
    for name in flags:
        parser.add_argument(name, action="store_true")
    first = [name for name, _ in first_options(command) if "+=" not in name]
    with_help = [f"{name}.help" for name in _CLASSES]
    for name in dict.fromkeys([*option_names(command), *first, *_CLASSES, *with_help]):
        if name in flags:
            continue
        classes = _CLASSES.get(name.removesuffix(".help"))
        action = parser.add_argument(name, choices=classes and _class_names(*classes, with_path=name.endswith(".help")))
        if name == "--config":
            action.complete = dict.fromkeys(SHELLS, _CONFIGS)  # type: ignore[attr-defined]
        elif name in ("--run_dir", "--resume", "--ckpt_path"):
            _complete_with_files(action)


def _complete_with_files(action: Action) -> None:
    import shtab

    action.complete = shtab.FILE  # type: ignore[attr-defined]


def _class_names(module: str, base: str, with_path: bool) -> list[str]:
    """Return the classes of a module that derive from another of it and can be made, with or without their path."""
    found: dict[str, Any] = vars(import_module(module))
    kinds = [kind for name, kind in found.items() if inspect.isclass(kind) and not name.startswith("_")]
    names = [kind.__name__ for kind in kinds if _derives_from(kind, base) and not inspect.isabstract(kind)]
    return [f"{module}.{name}" for name in names] if with_path else names


def _derives_from(kind: type, base: str) -> bool:
    return base in [one.__name__ for one in kind.__mro__[1:]]
