"""Ctrl-C in real processes.

The first stops training with a checkpoint, and the second ends it at once. Commands that only measure end at the first.
None prints a traceback or leaves an unfinished file.
"""

import json
import os
import pty
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from select import select

import pytest
import torch

from lnsgd.runs.signals import StopSignals
from tests.faults.killed_runs import assert_same_training
from tests.small_config import instance
from tests.stopped_runs import write_configs
from tests.sweep.small_sweeps import assert_same_table, read_files, write_sweep
from tests.warm_commands import DEADLINE, SAID, WarmCommands, wait_until_dead

LONG = ["--trainer.max_epochs", "3000", "--trainer.log_every_n_steps", "50"]
BAR = ["--trainer.enable_progress_bar", "true"]
REPLICATED = ["--replicas.seeds", "2", "--replicas.engine", "kernel"]


@pytest.fixture(autouse=True)
def configs(tmp_path: Path) -> None:
    write_configs(tmp_path)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lines(folder: Path) -> list[str]:
    """Return the lines that lnsgd has printed."""
    text = (folder / SAID).read_text().replace("\r", "\n")
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("lnsgd:")]


def hanging(**arguments: object) -> list[str]:
    """Return options with which a command hangs; see `tests.faults.hanging.Hang`."""
    return ["--trainer.callbacks+", json.dumps(instance("tests.faults.hanging.Hang", **arguments))]


def train(commands: WarmCommands, folder: Path) -> None:
    """Train a small run in ``run``."""
    commands.start(["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto"], folder)
    assert commands.end() == 0


def begin(commands: WarmCommands, folder: Path, *options: str) -> int:
    """Start a run that would take minutes, and wait until it has begun to train."""
    process = commands.start(
        ["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto", *LONG, *options], folder
    )
    wait_for(lambda: (folder / "run" / "metrics.csv").exists())
    return process


@pytest.mark.parametrize("options", [BAR, [*BAR, *REPLICATED]], ids=["one", "replicas"])
def test_first_interrupt_saves_and_stops(options: list[str], commands: WarmCommands, tmp_path: Path) -> None:
    os.kill(begin(commands, tmp_path, *options), signal.SIGINT)
    assert commands.end() == 75
    printed = lines(tmp_path)
    step = torch.load(tmp_path / "run/checkpoints/last.ckpt")["global_step"]
    assert printed[0] == "lnsgd: stopping after this batch, with a checkpoint; press Ctrl-C again to stop at once"
    assert printed[1].startswith(f"lnsgd: stopped by SIGINT at step {step}; resume from run/checkpoints/last.ckpt")
    assert "--ckpt_path auto" in printed[1]
    assert len(printed) == 2


@pytest.mark.slow
def test_interrupted_run_resumes_bit_for_bit(commands: WarmCommands, tmp_path: Path) -> None:
    os.kill(begin(commands, tmp_path), signal.SIGINT)
    assert commands.end() == 75
    epochs = torch.load(tmp_path / "run/checkpoints/last.ckpt")["epoch"] + 2
    for out in ("run", "whole"):
        where = ["--run_dir", out, "--ckpt_path", "auto", "--trainer.max_epochs", str(epochs)]
        commands.start(["fit", "--config", "plain.yaml", *where, "--trainer.log_every_n_steps", "50"], tmp_path)
        assert commands.end() == 0
    assert_same_training(tmp_path / "run", tmp_path / "whole")


def test_second_interrupt_ends_at_once(commands: WarmCommands, tmp_path: Path) -> None:
    """The batch never ends, and no unfinished file is left."""
    process = begin(commands, tmp_path, *BAR, *hanging(step=7))
    wait_for((tmp_path / "hangs").exists)
    os.kill(process, signal.SIGINT)
    wait_for(lambda: lines(tmp_path))
    os.kill(process, signal.SIGINT)
    assert commands.end() == 130
    assert lines(tmp_path)[1].startswith("lnsgd: interrupted; what was saved is complete")
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt")["global_step"] == 5
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.mark.slow
def test_interrupted_figure_is_resumable(commands: WarmCommands, tmp_path: Path) -> None:
    command = ["reproduce", "cornacchia-basis", "--seeds", "2", "--out", str(tmp_path / "figure")]
    process = commands.start(command, tmp_path)
    wait_for(lambda: list((tmp_path / "figure").rglob("init.safetensors")))
    os.kill(process, signal.SIGINT)
    assert commands.end() == 75
    assert lines(tmp_path)[-1] == "lnsgd: the same command resumes from there"


def test_interrupted_analysis_ends_at_once(commands: WarmCommands, tmp_path: Path) -> None:
    """All measurements so far are already on the disk."""
    train(commands, tmp_path)
    process = commands.start(["analyze", "run", "--measures", "tests.faults.hanging.Endless"], tmp_path)
    wait_for((tmp_path / "hangs").exists)
    os.kill(process, signal.SIGINT)
    assert commands.end() == 130
    assert lines(tmp_path)[-1].startswith("lnsgd: interrupted")


def check_ended_at_once(commands: WarmCommands, folder: Path, before: dict[str, bytes]) -> None:
    """Check that one line was printed and that all other files are unchanged."""
    assert commands.end() == 130
    (line,) = lines(folder)
    assert line.startswith("lnsgd: interrupted")
    after = read_files(folder)
    for name in (SAID, "hangs"):
        for files in (before, after):
            files.pop(str(folder / name), None)
    assert after == before


@pytest.mark.parametrize("command, hook", [("validate", "on_validation_batch_end"), ("test", "on_test_batch_end")])
def test_interrupted_validation_and_test_end_at_once(
    command: str, hook: str, commands: WarmCommands, tmp_path: Path
) -> None:
    train(commands, tmp_path)
    before = read_files(tmp_path)
    where = ["--config", "plain.yaml", "--ckpt_path", "run/checkpoints/last.ckpt"]
    process = commands.start([command, *where, *hanging(hook=hook)], tmp_path)
    wait_for((tmp_path / "hangs").exists)
    os.kill(process, signal.SIGINT)
    check_ended_at_once(commands, tmp_path, before)


def test_interrupted_report_ends_at_once(commands: WarmCommands, tmp_path: Path) -> None:
    """The page has been written but not renamed; the old page stays."""
    train(commands, tmp_path)
    (tmp_path / "report.html").write_text("the old page")
    before = read_files(tmp_path)
    commands.start(["report", "run"], tmp_path, at_change=1, send=signal.SIGINT)
    check_ended_at_once(commands, tmp_path, before)


def test_interrupted_run_without_checkpoints_ends_at_once(commands: WarmCommands, tmp_path: Path) -> None:
    """Without checkpoints there is no reason to wait."""
    where = ["--config", "plain.yaml", "--run_dir", "run", "--trainer.enable_checkpointing", "false"]
    process = commands.start(["fit", *where, *hanging(step=7)], tmp_path)
    wait_for((tmp_path / "hangs").exists)
    os.kill(process, signal.SIGINT)
    assert commands.end() == 130
    (line,) = lines(tmp_path)
    assert line.startswith("lnsgd: interrupted")


def test_interrupted_planning_of_a_sweep_ends_at_once(commands: WarmCommands, tmp_path: Path) -> None:
    """The plan has been written but not renamed."""
    path = write_sweep(tmp_path, seeds=2)
    process = commands.start(["sweep", str(path), "--out", "out"], tmp_path, at_change=1, send=signal.SIGINT)
    assert commands.end() == 75
    assert lines(tmp_path) == ["lnsgd: interrupted; run the same command again to continue"]
    assert [Path(name).name for name in read_files(tmp_path / "out")] == ["planning", "sweep"]  # locks, both empty
    wait_until_dead(process)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_sweep_resumes_its_jobs(times: int, commands: WarmCommands, tmp_path: Path) -> None:
    """Two jobs wait for a third, and get the signal as from a terminal; twice if they do not stop."""
    met = tmp_path / "met"
    meet = instance("tests.sweep.small_sweeps.Rendezvous", folder=str(met), number=3, stubborn=times == 2)
    command = ["sweep", str(write_sweep(tmp_path, callbacks=[meet], seeds=2)), "--workers", "2", "--out"]
    process = commands.start([*command, "out"], tmp_path)
    wait_for(lambda: met.exists() and len([*met.iterdir()]) == 2)
    os.killpg(process, signal.SIGINT)
    if times == 2:
        wait_for(lambda: lines(tmp_path))
        os.killpg(process, signal.SIGINT)
    assert commands.end() == 75
    assert lines(tmp_path) == [
        "lnsgd: stopping all jobs at a checkpoint; press Ctrl-C again to kill them",
        "lnsgd: interrupted; run the same command again to continue",
    ]
    wait_until_dead(process)
    (met / "the third").touch()
    for out in ("out", "whole"):
        commands.start([*command, out], tmp_path)
        assert commands.end() == 0
    assert_same_table(tmp_path / "out", tmp_path / "whole")
    assert not [*tmp_path.rglob("*.part")]


@pytest.mark.slow
def test_interrupt_from_a_terminal(tmp_path: Path) -> None:
    """The terminal sends the signal to all processes of a command."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # pytest has replaced them
        args = ["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto", *LONG, *BAR]
        from lnsgd.cli import main

        code = 1
        try:
            main(args)
        except SystemExit as ended:
            code = int(str(ended.code))
        finally:
            os._exit(code)
    output = b""

    def read() -> bool:
        nonlocal output
        if not select([terminal], [], [], 0.1)[0]:
            return False
        try:
            output += os.read(terminal, 4096)
        except OSError:  # the command has ended
            return True
        return False

    wait_for(lambda: read() or (tmp_path / "run" / "metrics.csv").exists())
    os.write(terminal, b"\x03")
    wait_for(read)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 75
    assert b"lnsgd: stopping after this batch" in output
    assert b"lnsgd: stopped by SIGINT at step" in output
    assert b"Traceback" not in output


def test_ignored_interrupt_stays_ignored() -> None:
    """A shell ignores SIGINT in a command that is started with ``&``."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert signals.received is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("early", [False, True])
def test_first_interrupt_ends_a_run_that_cannot_stop(early: bool) -> None:
    with StopSignals() as signals:
        if early:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signals.leave_interruptions()
        else:
            signals.leave_interruptions()
        signals.listen()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # is noted as before
    assert signals.received is (signal.SIGINT if early else signal.SIGTERM)


def test_third_interrupt_kills() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received is signal.SIGINT
        with pytest.raises(SystemExit, match="130"):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before
