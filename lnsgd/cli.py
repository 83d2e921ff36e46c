"""The command ``lnsgd``."""

import os
import sys
from argparse import ArgumentError

from lnsgd.messages import one_line, out_of_memory, printable
from lnsgd.run_errors import RunError
from lnsgd.stop_signals import INTERRUPTED, StopSignals
from lnsgd.writing import NotWrittenError

USAGE = """\
usage: lnsgd <command> [options]

  fit        train: lnsgd fit --config configs/mnist.yaml --model.label_noise.p 0.1
  validate   measure loss and accuracy of a checkpoint on the validation split
  test       the same on the test split
  sweep      a grid of runs, only what is missing: lnsgd sweep configs/sweeps/mnist-noise.yaml
  table      what a sweep has found so far: lnsgd table runs/sweeps/mnist-noise
  reproduce  a figure of a paper, with its claims: lnsgd reproduce list
  analyze    measure checkpoints, of runs or of anyone's networks: lnsgd analyze runs/mnist
  report     figures, sweeps and runs on one HTML page: lnsgd report docs/results runs

lnsgd <command> --help shows the options of a command; those of a class it names are shown by
lnsgd fit --model.help lnsgd.modules.Classifier, --data.help lnsgd.data.MNIST and so on.
With LNSGD_DEBUG=1 in the environment an error shows where it was raised.
"""


def main(argv: list[str] | None = None) -> None:
    """Runs one command.

    Bad input ends with one line on stderr and exit code 2; so does, with code 1, a full disk or memory. A run that was
    stopped by a signal and can go on ends with 75, and whatever a Ctrl-C has ended at once with 130.
    """
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    try:
        _run(args)
    except KeyboardInterrupt:
        _say_interrupted()
        raise SystemExit(INTERRUPTED) from None
    except SystemExit as ended:
        if ended.code != INTERRUPTED and not isinstance(ended.__context__, KeyboardInterrupt):  # which Lightning hides
            raise
        _say_interrupted()
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        limit = _limit(error)
        if os.environ.get("LNSGD_DEBUG") or not (limit or isinstance(error, (ArgumentError, ValueError, OSError))):
            raise
        print(f"lnsgd: error: {printable(limit or one_line(error))}", file=sys.stderr)
        raise SystemExit(1 if limit else 2) from None


def _limit(error: BaseException | None) -> str | None:
    """One line where the machine or the run is at fault, and not the command.

    It is that of the first such error: what follows in its wake, while the run is put away, says less.
    """
    found = None
    while error is not None:
        at_fault = isinstance(error, (NotWrittenError, RunError))
        found = one_line(error) if at_fault else out_of_memory(error) or found
        error = error.__cause__ or error.__context__
    return found


def _say_interrupted() -> None:
    print(
        "\nlnsgd: interrupted; what was saved by then is whole, and the same command goes on from there where it can",
        file=sys.stderr,
    )


def _run(args: list[str]) -> None:
    command = args[0]
    if command == "--version":
        from lnsgd import __version__

        print(__version__)
    elif command == "reproduce":
        from lnsgd.figures.command import reproduce

        reproduce(args[1:])
    elif command == "analyze":
        from lnsgd.analysis.command import analyze

        analyze(args[1:])
    elif command == "report":
        from lnsgd.report.command import report

        report(args[1:])
    elif command in ("sweep", "table"):
        from lnsgd.sweep import command as sweeps

        {"sweep": sweeps.sweep, "table": sweeps.table}[command](args[1:])
    elif command == "fit":
        with StopSignals() as signals:  # from here on: the imports alone take seconds
            from lnsgd.training import train

            train(args, signals)
    elif command in ("validate", "test"):
        from lnsgd.training import train

        train(args)
    else:
        raise ValueError(
            f"there is no command {command!r}; choose fit, validate, test, sweep, table, reproduce, analyze or report"
        )
