"""A SLURM task when it is stopped, and when it starts again."""

import os
import signal

import pytest
import torch

from lnsgd.sweep.executors import slurm_task
from lnsgd.sweep.executors.slurm_task import SlurmTask
from lnsgd.sweep.folder import SweepFolder


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Return a task within a job of SLURM; each test replaces `run_job`."""
    monkeypatch.setattr(slurm_task, "_redirect_output", lambda path: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    return SlurmTask(tmp_path / "out", "job", 1)


@pytest.fixture
def preempted():
    """Collect the signals that submitit would get."""
    noted = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: noted.append(number))
    yield noted
    signal.signal(signal.SIGUSR2, before)


def stopped(*_):
    raise SystemExit(os.EX_TEMPFAIL)


@pytest.mark.parametrize(
    ("answer", "code", "queued_again"),
    [("RUNNING", 0, True), ("COMPLETING", 0, False), ("PENDING", 0, False), ("", 0, False), ("", 1, True)],
)
def test_stopped_task_is_queued_again_unless_slurm_has_decided(
    answer, code, queued_again, task, preempted, tmp_path, monkeypatch
):
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm_task, "run_job", stopped)
    with pytest.raises(SystemExit) as ended:
        task()
    assert ended.value.code == os.EX_TEMPFAIL
    assert preempted == [signal.SIGUSR2] * queued_again


@pytest.mark.parametrize(
    ("variables", "name"),
    [({}, "12"), ({"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "12_3")],
    ids=["alone", "in-an-array"],
)
def test_slurm_is_asked_about_this_task_only(variables, name, task, preempted, tmp_path, monkeypatch):
    """The last task of an array has the number of the array, by which SLURM would list all tasks."""
    program = tmp_path / "squeue"
    program.write_text(f'#!/bin/sh\ncase "$*" in *--jobs={name}) echo RUNNING ;; *) echo PENDING ;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for variable in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(slurm_task, "run_job", stopped)
    with pytest.raises(SystemExit):
        task()
    assert preempted == [signal.SIGUSR2]


def test_task_is_queued_again_if_slurm_does_not_answer(task, preempted, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm_task, "run_job", stopped)
    with pytest.raises(SystemExit):
        task()
    assert preempted == [signal.SIGUSR2]


@pytest.mark.parametrize(
    ("restarts", "errors", "begun"),
    [(None, [], 1), ("1", [], 0), ("1", ["it failed"], 1)],
    ids=["first-time", "killed-and-queued-again", "failed-before"],
)
def test_task_requeued_by_slurm_does_not_count_as_attempt(restarts, errors, begun, task, monkeypatch):
    folder = SweepFolder(task.folder)
    folder.count_attempt(task.job)
    for error in errors:
        folder.note_error(task.job, error)
    if restarts:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    seen = []
    monkeypatch.setattr(slurm_task, "run_job", lambda *given: seen.append(folder.read_attempts(task.job).begun))
    task()
    assert seen == [begun]


def test_checkpoint_submits_the_same_task(task):
    submission = task.checkpoint()
    assert submission.function is task
