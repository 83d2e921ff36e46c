"""The command ``lnsgd``, also as ``python -m lnsgd``."""

import os
import sys
from argparse import ArgumentError
from contextlib import nullcontext

from lnsgd.console.messages import did_you_mean, one_line, out_of_memory, printable
from lnsgd.runs.errors import RunError
from lnsgd.runs.signals import INTERRUPTED, StopSignals
from lnsgd.runs.writing import NotWrittenError

USAGE = """\
usage: lnsgd <command> [options]

  fit        train a network: lnsgd fit --config configs/mnist.yaml --model.label_noise.p 0.1
  validate   measure loss and accuracy of a checkpoint on the validation split
  test       measure loss and accuracy of a checkpoint on the test split
  sweep      run the missing runs of a grid: lnsgd sweep configs/sweeps/mnist-noise.yaml
  table      show the results of a sweep so far: lnsgd table runs/sweeps/mnist-noise
  reproduce  reproduce a figure of a paper with its claims: lnsgd reproduce list
  analyze    measure checkpoints of runs or of other networks: lnsgd analyze runs/mnist
  report     show figures, sweeps and runs on one HTML page: lnsgd report docs/results runs
  completion print a script that completes commands and options: lnsgd completion bash

lnsgd <command> --help shows the options of a command, and lnsgd fit --help-all all of them. The options of a class are
shown by lnsgd fit --model.help lnsgd.modules.Classifier, --data.help lnsgd.data.MNIST and so on.
Set LNSGD_DEBUG=1 in the environment to see where an error was raised.
"""

_TRAINING_COMMANDS = ("fit", "validate", "test")
_COMMANDS = (*_TRAINING_COMMANDS, "sweep", "table", "reproduce", "analyze", "report", "completion")


def main(argv: list[str] | None = None) -> None:
    """Run one command.

    Bad input is reported as one line on stderr with exit code 2, and a full disk or memory as one line with code 1.
    A run that was stopped by a signal and can be resumed ends with 75; a command that Ctrl-C ended at once with 130.

    Args:
        argv: The arguments; by default those of the process.

    Raises:
        SystemExit: the command failed or was stopped, with the exit code above.
    """
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    try:
        _run(args)
    except KeyboardInterrupt:
        _report_interruption()
        raise SystemExit(INTERRUPTED) from None
    except SystemExit as ended:
        # Lightning raises SystemExit when it catches KeyboardInterrupt.
        if ended.code != INTERRUPTED and not isinstance(ended.__context__, KeyboardInterrupt):
            raise
        _report_interruption()
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        failure = _failure(error)
        if os.environ.get("LNSGD_DEBUG") or not (failure or isinstance(error, (ArgumentError, ValueError, OSError))):
            raise
        print(f"lnsgd: error: {printable(failure or one_line(error))}", file=sys.stderr)
        raise SystemExit(1 if failure else 2) from None


def _failure(error: BaseException | None) -> str | None:
    """Describe a failure of the machine or the run in one line; ``None`` if the command itself is at fault.

    The line is that of the first such error in the chain. Errors that follow while the run is cleaned up say less.
    """
    found = None
    while error is not None:
        at_fault = isinstance(error, (NotWrittenError, RunError))
        found = one_line(error) if at_fault else out_of_memory(error) or found
        error = error.__cause__ or error.__context__
    return found


def _report_interruption() -> None:
    print(
        "\nlnsgd: interrupted; what was saved is complete, and the same command resumes from there if it can",
        file=sys.stderr,
    )


def _run(args: list[str]) -> None:
    command = args[0]
    if command == "--version":
        from lnsgd import __version__

        print(__version__)
    elif command == "reproduce":
        _reproduce(args[1:])
    elif command == "sweep":
        _sweep(args[1:])
    elif command == "table":
        _table(args[1:])
    elif command == "analyze":
        _analyze(args[1:])
    elif command == "report":
        _report(args[1:])
    elif command == "completion":
        _completion(args[1:])
    elif command in _TRAINING_COMMANDS:
        _train(args)
    else:
        hint = did_you_mean(command, _COMMANDS)
        raise ValueError(
            f"there is no command {command!r}{hint}; choose {', '.join(_COMMANDS[:-1])} or {_COMMANDS[-1]}"
        )


# Each command reads and checks its options before it imports what carries them out, which takes seconds.


def _train(args: list[str]) -> None:
    from lnsgd.training.first_help import ALL, answer_without_parser
    from lnsgd.training.shipped_configs import with_config_paths

    answer_without_parser(args[0], args[1:])
    args = with_config_paths(args)
    # A stop is noted already now, because the imports take seconds.
    with StopSignals() if args[0] == "fit" else nullcontext() as signals:
        if ALL in args:
            from lnsgd.training.parser import command_parser

            command_parser(args[0]).print_help()
        else:
            from lnsgd.training.cli import train

            trained = train(args, signals)
            if args[0] == "fit":
                trained.print_end_screen()


def _reproduce(args: list[str]) -> None:
    from lnsgd.figures.framework.options import LIST, parse

    options = parse(args)
    if options.figure == LIST:
        from rich.console import Console

        from lnsgd.figures.framework.listing import print_listing

        print_listing(Console())
    else:
        from lnsgd.figures.framework.command import reproduce

        reproduce(options)


def _sweep(args: list[str]) -> None:
    from lnsgd.sweep.options import parse_sweep

    options = parse_sweep(args)
    from lnsgd.sweep.command import sweep

    sweep(options)


def _table(args: list[str]) -> None:
    from lnsgd.sweep.options import parse_table

    options = parse_table(args)
    from lnsgd.sweep.command import table

    table(options)


def _analyze(args: list[str]) -> None:
    from lnsgd.analysis.options import parse

    options = parse(args)
    from lnsgd.analysis.command import analyze

    analyze(options)


def _report(args: list[str]) -> None:
    from lnsgd.report.options import parse

    options = parse(args)
    from lnsgd.report.command import report

    report(options)


def _completion(args: list[str]) -> None:
    from lnsgd.completion import parse, script

    print(script(parse(args).shell), end="")
