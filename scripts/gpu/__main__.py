"""Run the tests, benchmarks and figures that need a GPU: ``make gpu``, or ``python -m scripts.gpu``."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lnsgd.runs.locks import locked
from scripts.gpu.plan import DEVICES, Device, Stage, stages
from scripts.gpu.runner import Kit, interruptible, run_all
from scripts.gpu.summary import write_summary

EXIT_CODES = """\
exit codes:
  0    every stage has finished
  1    a stage has failed; the others were run all the same
  2    a wrong option, or no CUDA GPU
  75   the time is up, or Ctrl-C or SIGTERM came; the same command continues
"""


def main(args: Sequence[str], plan: Sequence[Stage] | None = None) -> int:
    """Run the plan, write the summary, and return the exit code.

    Args:
        args: The command line.
        plan: The stages; by default those of `scripts.gpu.plan.stages`.
    """
    options = _parse(args)
    device: Device = options.device
    plan = stages(device) if plan is None else plan
    if options.list:
        for stage in plan:
            print(f"{stage.name:26} at most {stage.minutes:g} min: {stage.question}")
        return 0
    if device == "cuda" and not _has_cuda():
        print("gpu: torch finds no CUDA GPU here; DEVICE=cpu (--device cpu) rehearses the kit", file=sys.stderr)
        return 2
    folder: Path = options.out or Path("runs") / ("gpu" if device == "cuda" else "gpu-rehearsal")
    with locked(folder / ".lock") as obtained:
        if not obtained:
            print(f"gpu: {folder} is in use by another run of the kit; give another folder by --out", file=sys.stderr)
            return 2
        try:
            kit = Kit(folder, _environment(device), _commit())
        except ValueError as error:
            print(f"gpu: {error}", file=sys.stderr)
            return 2
        return _run(kit, device, plan, None if options.minutes is None else 60 * options.minutes)


def _run(kit: Kit, device: Device, plan: Sequence[Stage], seconds: float | None) -> int:
    left_out: dict[str, str] = {}
    interrupted = False
    try:
        with interruptible():
            left_out = run_all(kit, plan, seconds, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        interrupted = True
    page = write_summary(kit.folder, device, plan, kit.records, left_out)
    print(f"The summary is {page}")
    outcomes = [kit.records[stage.name].outcome if stage.name in kit.records else "not begun" for stage in plan]
    if interrupted:
        code = os.EX_TEMPFAIL
    elif "failed" in outcomes:
        code = 1
    else:
        code = 0 if all(kit.is_finished(stage) for stage in plan) else os.EX_TEMPFAIL
    if code == os.EX_TEMPFAIL:
        print("Not everything has been run; the same command continues")
    return code


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m scripts.gpu",
        description=__doc__.splitlines()[0],
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=_minutes, help="budget of time (default: none, but the limit of each stage; see --list)"
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="cuda", help="cpu rehearses the kit at small sizes (default: cuda)"
    )
    parser.add_argument("--out", type=Path, help="folder (default: runs/gpu, or runs/gpu-rehearsal on a CPU)")
    parser.add_argument("--list", action="store_true", help="list the stages with their limits, and run nothing")
    return parser.parse_args(args)


def _minutes(text: str) -> float:
    minutes = float(text)
    if not minutes > 0:
        raise ValueError
    return minutes


_minutes.__name__ = "number of minutes above 0"  # argparse names it in its message


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _environment(device: Device) -> dict[str, str]:
    """Return the environment of the stages; on a CPU they see no GPU."""
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    paths = [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **hidden}


def _commit() -> str:
    """Return the commit of the checkout, with a ``+`` if files differ from it; empty outside of git."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
