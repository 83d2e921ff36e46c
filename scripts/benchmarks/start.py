"""Compare the start of each command with the start of Python and with `import pytorch_lightning`.

    python scripts/benchmarks/start.py [--rounds N]

Every command is a process of its own, and the rounds take turns, so that a busy machine slows all of them alike. Prints
one JSON object: the median seconds of user and system time of each, and the ratios to `python -c pass` and to
`python -c "import pytorch_lightning"`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

PYTHON = [sys.executable, "-c"]
LNSGD = [sys.executable, "-m", "lnsgd"]

PEERS = {"python": [*PYTHON, "pass"], "import pytorch_lightning": [*PYTHON, "import pytorch_lightning"]}
COMMANDS = {
    "lnsgd": LNSGD,
    "lnsgd reproduce list": [*LNSGD, "reproduce", "list"],
    "lnsgd reproduce, misspelled figure": [*LNSGD, "reproduce", "hypercub"],
    "lnsgd sweep --help": [*LNSGD, "sweep", "--help"],
    "lnsgd table --help": [*LNSGD, "table", "--help"],
    "lnsgd analyze --help": [*LNSGD, "analyze", "--help"],
    "lnsgd report --help": [*LNSGD, "report", "--help"],
    "lnsgd table, no sweep": [*LNSGD, "table", "nowhere"],
    "lnsgd fit --help": [*LNSGD, "fit", "--help"],
    "lnsgd fit, misspelled option": [*LNSGD, "fit", "--trainer.max_epoch", "1"],
    "import lnsgd.callbacks": [*PYTHON, "import lnsgd.callbacks"],
}


def cpu_seconds(command: list[str]) -> float:
    """Run a command and return the CPU time that it took; whether it fails does not matter here."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)  # noqa: S603
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Time everything in turns and print the medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    all_commands = {**PEERS, **COMMANDS}
    taken: dict[str, list[float]] = {name: [] for name in all_commands}
    for _ in range(rounds):
        for name, command in all_commands.items():
            taken[name].append(cpu_seconds(command))
    seconds = {name: statistics.median(of) for name, of in taken.items()}
    python, lightning = (seconds[name] for name in PEERS)
    result = {
        "seconds": {name: round(of, 2) for name, of in seconds.items()},
        "over python": {name: round(seconds[name] / python, 1) for name in COMMANDS},
        "over import pytorch_lightning": {name: round(seconds[name] / lightning, 2) for name in COMMANDS},
        "rounds": rounds,
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
