"""A folder is claimed by one process at a time, and two processes never choose the same new folder."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lnsgd.runs.claims import CHOSEN, LOCK, announce, chosen_by_first, claim, claim_new, released_at_end

PROCESSES = 8


def start(code: str, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start Python in a folder; it has claimed what it wants when it prints a line."""
    command = [sys.executable, "-c", f"from pathlib import Path\nfrom lnsgd.runs.claims import *\n{code}"]
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environment}, stdin=-1, stdout=-1, stderr=-1, text=True
    )


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_simultaneous_processes_choose_as_many_folders(tmp_path):
    hold = "input(); held = claim_new(Path('runs'), 'mnist'); print(held.folder, flush=True); input()"
    started = [start(hold, tmp_path) for _ in range(PROCESSES)]
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    chosen = [first_line(process) for process in started]
    for process in started:
        process.communicate("\n")
    assert len(set(chosen)) == PROCESSES
    assert "runs/mnist" in chosen


def test_claimed_folder_is_refused_and_the_holder_is_named(tmp_path):
    other = start("held = claim(Path('run')); print('claimed', flush=True); input()", tmp_path)
    assert first_line(other) == "claimed"
    with pytest.raises(ValueError, match=rf"run is being written by process {other.pid} on .*; wait .*another folder"):
        claim(tmp_path / "run", seconds=0)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    claim(tmp_path / "run").release()  # the lock of a killed process is free


def test_own_claim_is_shared_and_ends_with_the_first(tmp_path):
    first = claim(tmp_path / "run")
    claim(tmp_path / "run").release()
    assert (tmp_path / "run" / LOCK).exists()
    first.release()
    first.release()
    assert list(tmp_path.iterdir()) == []  # the folder was made for the claim, and nothing is in it


def test_released_folder_keeps_its_files_and_is_not_chosen_again(tmp_path):
    held = claim_new(tmp_path / "runs", "a")
    (held.folder / "config.yaml").write_text("a: 1")
    held.release()
    assert [path.name for path in held.folder.iterdir()] == ["config.yaml"]
    again = claim_new(tmp_path / "runs", "a")
    assert again.folder == tmp_path / "runs" / "a-2"
    again.release()


def test_file_of_the_name_of_a_folder_is_passed_over(tmp_path):
    (tmp_path / "a").write_text("a file")
    held = claim_new(tmp_path, "a")
    assert held.folder.name == "a-2"
    held.release()


def test_without_locks_a_new_folder_is_claimed_by_making_it(tmp_path, monkeypatch):
    def unsupported(*_: object) -> None:
        raise OSError(fcntl.LOCK_EX and 37, "no locks available")  # ENOLCK

    monkeypatch.setattr(fcntl, "flock", unsupported)
    held = [claim_new(tmp_path, "a").folder.name for _ in range(3)]
    assert held == ["a", "a-2", "a-3"]


def test_other_processes_of_a_run_find_the_choice_of_the_first(tmp_path, monkeypatch):
    """Processes that SLURM has started know each other by the job, those that the first has started by a variable."""
    (tmp_path / "runs" / "mnist").mkdir(parents=True)
    (tmp_path / "runs" / "mnist" / "config.yaml").touch()
    job = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    first = start("held = claim_new(Path('runs'), 'mnist'); print('claimed', flush=True); input()", tmp_path, **job)
    assert first_line(first) == "claimed"
    other = start("print(chosen_by_first(Path('runs'), 'mnist'), flush=True)", tmp_path, **job)
    assert other.communicate()[0].strip() == "runs/mnist-2"
    first.communicate("\n")
    with released_at_end():
        announce(tmp_path / "runs" / "mnist-3")
        assert chosen_by_first(tmp_path / "runs", "mnist").name == "mnist-3"
    assert CHOSEN not in os.environ
    monkeypatch.setattr("lnsgd.runs.claims._SECONDS_TO_CHOOSE", 0.2)
    with pytest.raises(ValueError, match="the first process of this run has chosen no folder"):
        chosen_by_first(tmp_path / "runs", "mnist")  # the claim of the first has ended
