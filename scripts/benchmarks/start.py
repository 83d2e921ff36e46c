"""Compare the start of each command with the start of Python and with `import pytorch_lightning`.

    python scripts/benchmarks/start.py [--rounds N]

Every command is a process of its own, and the rounds take turns, so that a busy machine slows all of them alike. A
command that ends with another exit code than it should ends the benchmark. Prints one JSON object: the median seconds
of user and system time of each, and the ratios to `python -c pass` and to `python -c "import pytorch_lightning"`.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from lnsgd.measuring import Measurement
from lnsgd.records.cells import DONE, CellResult, write_cells, write_planned
from lnsgd.records.measures import as_table, write_measures
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep.folder import SweepFolder

FIGURE = Path(__file__).resolve().parents[2] / "docs" / "results" / "cornacchia-basis"


class Command(NamedTuple):
    """A command line, and the exit code that it must end with."""

    line: list[str]
    code: int = 0


def python(program: str) -> Command:
    """Return the command that runs a short program."""
    return Command([sys.executable, "-c", program])


def lnsgd(arguments: str, code: int = 0) -> Command:
    """Return a command of lnsgd, whose arguments hold no spaces."""
    return Command([sys.executable, "-m", "lnsgd", *arguments.split()], code)


PEERS = {"python": python("pass"), "import pytorch_lightning": python("import pytorch_lightning")}
COMMANDS = {
    "lnsgd": lnsgd(""),
    "lnsgd reproduce list": lnsgd("reproduce list"),
    "lnsgd reproduce, misspelled figure": lnsgd("reproduce hypercub", 2),
    "lnsgd sweep --help": lnsgd("sweep --help"),
    "lnsgd table --help": lnsgd("table --help"),
    "lnsgd analyze --help": lnsgd("analyze --help"),
    "lnsgd report --help": lnsgd("report --help"),
    "lnsgd table, no sweep": lnsgd("table nowhere", 2),
    "lnsgd table of 4 cells": lnsgd("table sweep"),
    "lnsgd report of a figure": lnsgd("report figure"),
    "lnsgd report of a sweep, a run and a figure": lnsgd("report ."),
    "lnsgd fit": lnsgd("fit", 2),
    "lnsgd fit --help": lnsgd("fit --help"),
    "lnsgd fit --help-all": lnsgd("fit --help-all"),
    "lnsgd fit, misspelled option": lnsgd("fit --trainer.max_epoch 1", 2),
    "import lnsgd.callbacks": python("import lnsgd.callbacks"),
}


def make_folders(folder: Path) -> None:
    """Write a sweep of four cells, a run of three measurements, and the results of a figure.

    Args:
        folder: The folder that holds the three.
    """
    sweep = SweepFolder(folder / "sweep")
    options = [{"model.label_noise.p": p, "seed_everything": seed} for p in (0.0, 0.1) for seed in (0, 1)]
    cells = [(f"cell{number}", given) for number, given in enumerate(options)]
    write_planned(cells, sweep.planned)
    ended = CellResult(status=DONE, steps=1000, seconds=1.0, job="job")
    write_cells([(name, given, ended, {"hessian_trace/train": 1.5}) for name, given in cells], sweep.result("job"))
    run = RunFolder(folder / "run")
    traces = [Measurement("hessian_trace", "train", "", 1 / step) for step in (1, 10, 100)]
    write_measures(as_table((step, 0, trace) for step, trace in zip((1, 10, 100), traces)), run.measures)
    shutil.copytree(FIGURE, folder / "figure")


def cpu_seconds(command: Command, folder: Path) -> float:
    """Run a command in a folder and return the CPU time that it took.

    Raises:
        RuntimeError: it ended with another exit code than it should.
    """
    before = os.times()
    ended = subprocess.run(command.line, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    after = os.times()
    if ended.returncode != command.code:
        raise RuntimeError(f"{command.line} ended with {ended.returncode} instead of {command.code}: {ended.stderr}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Time everything in turns and print the medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    all_commands = {**PEERS, **COMMANDS}
    taken: dict[str, list[float]] = {name: [] for name in all_commands}
    with tempfile.TemporaryDirectory() as folder:
        make_folders(Path(folder))
        for _ in range(rounds):
            for name, command in all_commands.items():
                taken[name].append(cpu_seconds(command, Path(folder)))
    seconds = {name: statistics.median(of) for name, of in taken.items()}
    of_python, of_lightning = (seconds[name] for name in PEERS)
    result = {
        "seconds": {name: round(of, 2) for name, of in seconds.items()},
        "over python": {name: round(seconds[name] / of_python, 1) for name in COMMANDS},
        "over import pytorch_lightning": {name: round(seconds[name] / of_lightning, 2) for name in COMMANDS},
        "rounds": rounds,
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
