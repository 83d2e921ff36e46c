"""What ``fit``, ``validate`` and ``test`` say about themselves before anything that takes seconds is imported.

Their parser knows every option of every class, for which it needs Lightning. Here are the options that are needed
first; ``--help-all`` lists all.
"""

import sys
from collections.abc import Sequence

from lnsgd.training.shipped_configs import shipped_configs

SHORT, ALL = ("-h", "--help"), "--help-all"

ABOUT = {
    "fit": "Train a network.",
    "validate": "Measure loss and accuracy of a checkpoint on the validation split.",
    "test": "Measure loss and accuracy of a checkpoint on the test split.",
}

_START = {
    "fit": "lnsgd fit --config mnist --data.source sample --model.label_noise.p 0.1",
    "validate": "lnsgd validate --config runs/mnist/config.yaml --ckpt_path runs/mnist/checkpoints/last.ckpt",
    "test": "lnsgd test --config runs/mnist/config.yaml --ckpt_path runs/mnist/checkpoints/last.ckpt",
}

# Options with what they do, in groups; the values are examples.
_CONFIG = {
    "--config CONFIG": "a YAML file, or the name of a config that ships with lnsgd; later ones and options win",
    "--print_config": "print the config that results from all options, and end",
}
_RUN = {
    "--run_dir DIR": "folder of the run (default: runs/NAME of the config, with a number where that is taken)",
    "--resume DIR": "resume the run in this folder with its own options",
    "--seed_everything 0": "key of everything random: initialization, order, noise, subsets",
}
_LENGTH = {
    "--trainer.max_epochs 10": "number of epochs; --trainer.max_steps is the number of SGD steps",
    "--trainer.accelerator gpu": "cpu or gpu (default: what there is); --trainer.devices 2 for several",
    "--trainer.logger lnsgd.loggers.WandbLogger": "also track the run in Weights & Biases",
    "--trainer.callbacks+=HessianTrace": "add a measure; --trainer.callbacks.every_n_epochs 5 sets its options",
}
_EXPERIMENT = {
    "--model.label_noise UniformNoise": "kind of noise: UniformNoise, LabelSmoothing, GaussianNoise, …",
    "--model.label_noise.p 0.1": "its level",
    "--model.loss HingeLoss": "loss of an example; --model.net.widths [784,600,10] sets the network",
    "--model.optimizer.lr 0.1": "learning rate",
    "--data MNIST": "the data; --data.batch_size 128 and --data.subset 1000 are options of it",
    "--replicas.seeds [0,1,2]": "train this many replicas together; --replicas.noise [0.0,0.1] multiplies them",
}
_CHECKPOINT = {
    "--ckpt_path FILE": "the checkpoint that is measured",
    "--data.batch_size 128": "any option of the data, such as --data.source sample",
    "--trainer.accelerator gpu": "cpu or gpu (default: what there is)",
}
_OPTIONS = {
    "fit": {"config": _CONFIG, "run": _RUN, "trainer": _LENGTH, "experiment": _EXPERIMENT},
    "validate": {"config": _CONFIG, "what is measured": _CHECKPOINT},
    "test": {"config": _CONFIG, "what is measured": _CHECKPOINT},
}


def answer_without_parser(command: str, args: Sequence[str]) -> None:
    """Answer a request for the short help, or a command without options, and end the process.

    Args:
        command: ``fit``, ``validate`` or ``test``.
        args: What follows it on the command line.

    Raises:
        SystemExit: help was printed, code 0; there are no options, code 2.
    """
    if not args:
        print(beginning(command), end="", file=sys.stderr)
        raise SystemExit(2)
    if any(arg in SHORT for arg in args):
        print(short_help(command), end="")
        raise SystemExit(0)


def short_help(command: str) -> str:
    """Return the options of a command that are needed first, and where the others are listed."""
    lines = [f"usage: lnsgd {command} --config CONFIG [options]", "", ABOUT[command]]
    for group, options in _OPTIONS[command].items():
        lines += ["", f"{group}:"]
        for option, text in options.items():
            lines += [f"  {option}", f"      {text}"]
    lines += [
        "",
        "Every argument of every class is an option. They are listed by",
        f"  lnsgd {command} --help-all                                the Trainer and the run",
        f"  lnsgd {command} --model.help lnsgd.modules.Classifier     a module",
        f"  lnsgd {command} --data.help lnsgd.data.MNIST              a data set",
    ]
    return "\n".join(lines) + "\n"


def first_options(command: str) -> list[tuple[str, str]]:
    """Return the options that the short help of a command lists, each with its example of a value, if it takes one."""
    listed = (option for options in _OPTIONS[command].values() for option in options)
    return [(name, value) for name, _, value in (option.partition(" ") for option in listed)]


def beginning(command: str) -> str:
    """Say in a few lines how to begin with a command."""
    experiments = ", ".join(name for name in shipped_configs() if "/" not in name)
    return (
        f"lnsgd {command} needs a config and options, such as\n"
        f"  {_START[command]}\n"
        f"The configs that ship with lnsgd are {experiments}.\n"
        f"`lnsgd {command} --help` shows the options that are needed first, `lnsgd {command} --help-all` all of them.\n"
    )
