"""The SLURM executor with a simulated SLURM."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lnsgd.cli import main
from lnsgd.records.cells import write_planned
from lnsgd.records.submissions import JobArray, read_submissions, write_submission
from lnsgd.runs.writing import whole_file
from lnsgd.sweep import load
from lnsgd.sweep.config_reader import ConfigReader
from lnsgd.sweep.executors import slurm, slurm_arrays
from lnsgd.sweep.executors.base import Resources, make_executor
from lnsgd.sweep.executors.slurm_arrays import sbatch_text
from lnsgd.sweep.executors.slurm_options import SlurmOptions
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import read_sweep
from lnsgd.sweep.plan import Plan, make_plan, pack_cells
from tests.sweep.small_sweeps import read_files, save_checkpoint_at, write_sweep

GOLDEN = Path(__file__).parent / "golden"


class FakeSlurm:
    """Accepts jobs, and lists the states that a test has set."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.states: dict[tuple[str, int], str] | None = {}
        self.submitted: list[list[str]] = []
        self.cancelled: list[str] = []

    def submit(self, folder: SweepFolder, jobs, retries: int) -> None:
        self.submitted.append(list(jobs))
        name = f"array-{len(self.submitted)}"
        write_submission(folder.submissions, JobArray(name, tuple(jobs), str(len(self.submitted))))
        self.states |= {(name, index): "PENDING" for index in range(len(jobs))}

    def ask_states(self, arrays) -> dict[tuple[str, int], str] | None:
        return self.states

    def cancel(self, array: JobArray) -> bool:
        self.cancelled.append(array.name)
        return True

    def end(self, job: str) -> None:
        with whole_file(self.folder.result(job)) as part:
            part.touch()


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Callable[[SweepFolder], Plan]:
    """Return a function that plans a sweep of two jobs."""
    source = tmp_path_factory.mktemp("source")
    wanted = read_sweep(write_sweep(source, grid={"model.net.widths": [[784, 5, 10], [784, 6, 10]]}))
    packed = pack_cells(wanted, ConfigReader(wanted), Resources(1, 8e9, gpu=False))
    return lambda folder: make_plan(wanted, packed, folder)


@pytest.fixture(scope="module")
def planned(plan, tmp_path_factory) -> Plan:
    return plan(SweepFolder(tmp_path_factory.mktemp("none")))


@pytest.fixture
def fake_slurm(planned, tmp_path, monkeypatch) -> FakeSlurm:
    """Return a simulated SLURM whose ``watch`` watches the sweep; a task that is gone is lost at once."""
    folder = SweepFolder(tmp_path / "out")
    for job in planned.jobs:
        folder.write_job(job)
    write_planned([(cell.name, cell.options) for cell in planned.cells.cells], folder.planned)
    fake = FakeSlurm(folder)
    for name in ("ask_states", "cancel"):
        monkeypatch.setattr(slurm_arrays, name, getattr(fake, name))
    monkeypatch.setattr(slurm, "_SECONDS_UNTIL_LOST", -1.0)
    fake.jobs = [job.name for job in planned.jobs]
    fake.watch = lambda retries=1: slurm._JobMonitor(folder, fake.jobs, retries, fake.submit)
    return fake


def test_jobs_are_one_array_whose_record_is_removed_at_the_end(fake_slurm):
    watched = fake_slurm.watch()
    watched.ask_slurm()
    watched.ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs]
    for job in fake_slurm.jobs:
        assert watched.has_open_jobs()
        fake_slurm.end(job)
    assert not watched.has_open_jobs()
    assert read_submissions(fake_slurm.folder.submissions) == []


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "CONFIGURING"])
def test_jobs_in_the_queue_are_not_submitted_again(fake_slurm, state):
    fake_slurm.watch().ask_slurm()
    fake_slurm.states = dict.fromkeys(fake_slurm.states, state)
    another = fake_slurm.watch()
    another.ask_slurm()
    another.ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs]


def test_no_task_is_lost_while_slurm_does_not_answer(fake_slurm):
    watched = fake_slurm.watch()
    watched.ask_slurm()
    fake_slurm.states = None
    watched.ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs]
    assert fake_slurm.folder.read_attempts(fake_slurm.jobs[0]).begun == 0


@pytest.mark.parametrize("state", [None, "OUT_OF_MEMORY"])
def test_lost_job_is_repeated_then_gets_a_row(fake_slurm, state):
    lost, other = fake_slurm.jobs
    watched = fake_slurm.watch(retries=1)
    watched.ask_slurm()

    def lose(array: str, index: int) -> None:
        fake_slurm.states.pop((array, index))
        if state is not None:
            fake_slurm.states[array, index] = state

    fake_slurm.folder.count_attempt(lost)  # it ended during an attempt
    lose("array-1", 0)
    watched.ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs, [lost]]
    lose("array-2", 0)  # it ended before it could count its attempt
    watched.ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs, [lost]]
    attempts = fake_slurm.folder.read_attempts(lost)
    assert attempts.begun == 2
    how = "ended without" if state is None else f"ended as {state} without"
    assert [error.partition(";")[0] for error in attempts.errors] == [
        f"its SLURM task 1_0 {how} a result",
        f"its SLURM task 2 {how} a result",
    ]
    row = load(fake_slurm.folder.path).set_index("job").loc[lost]
    assert (row.status, row.attempts, row.reason) == ("failed", 2, attempts.errors[-1])
    assert [array.jobs for array in read_submissions(fake_slurm.folder.submissions)] == [(lost, other)]
    assert not fake_slurm.folder.result(other).exists()


def test_lost_job_that_advances_is_always_submitted_again(fake_slurm):
    """Nodes may be taken away without a signal."""
    lost, folder = fake_slurm.jobs[0], fake_slurm.folder
    watched = fake_slurm.watch(retries=0)
    watched.ask_slurm()
    for array, step in enumerate((10, 20, 30, 30), start=1):
        folder.count_attempt(lost)
        save_checkpoint_at(folder, lost, step)
        fake_slurm.states.pop((f"array-{array}", 0))
        watched.ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs, [lost], [lost], [lost]]
    assert folder.read_attempts(lost).starts == [0, 10, 20, 30]
    assert load(folder.path).set_index("job").status[lost] == "failed"


def test_late_result_is_not_a_loss(fake_slurm, monkeypatch):
    monkeypatch.setattr(slurm, "_SECONDS_UNTIL_LOST", 1e9)
    watched = fake_slurm.watch()
    watched.ask_slurm()
    fake_slurm.states.clear()
    watched.ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs]
    assert fake_slurm.folder.read_attempts(fake_slurm.jobs[0]).begun == 0
    assert len(read_submissions(fake_slurm.folder.submissions)) == 1


def test_unwatched_cancelled_task_does_not_count_as_attempt(fake_slurm):
    fake_slurm.watch().ask_slurm()
    fake_slurm.folder.count_attempt(fake_slurm.jobs[0])
    fake_slurm.states.clear()
    fake_slurm.watch().ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs, fake_slurm.jobs]
    assert [fake_slurm.folder.read_attempts(job).begun for job in fake_slurm.jobs] == [1, 0]
    assert [len(fake_slurm.folder.read_attempts(job).errors) for job in fake_slurm.jobs] == [1, 0]


def test_submission_without_number_is_cancelled(fake_slurm):
    write_submission(fake_slurm.folder.submissions, JobArray("half", tuple(fake_slurm.jobs)))
    fake_slurm.watch().ask_slurm()
    assert fake_slurm.cancelled == ["half"]
    assert [array.name for array in read_submissions(fake_slurm.folder.submissions)] == ["array-1"]


def test_two_watching_processes_submit_once(fake_slurm):
    one, two = fake_slurm.watch(), fake_slurm.watch()
    with fake_slurm.folder.submitting() as is_alone:
        assert is_alone
        two.ask_slurm()
    assert fake_slurm.submitted == []
    one.ask_slurm()
    two.ask_slurm()
    assert fake_slurm.submitted == [fake_slurm.jobs]


def test_submitted_jobs_keep_their_packing(fake_slurm, plan):
    assert plan(fake_slurm.folder).begun == ()
    fake_slurm.watch().ask_slurm()
    assert {job.name for job in plan(fake_slurm.folder).begun} == set(fake_slurm.jobs)


def test_sbatch_script_equals_golden_file():
    options = SlurmOptions(
        partition="gpu",
        time=60,
        grace=120,
        cpus_per_task=4,
        gpus_per_task=1,
        mem=7.5,
        setup=("module load cuda",),
        extra=("account=me", "exclusive"),
    )
    text = sbatch_text(options, "lnsgd-small", Path("/a b/slurm"), 40, 8, "/usr/bin/python3")
    assert text == (GOLDEN / "array.sbatch").read_text()


def test_dry_run_shows_the_script_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_sweep(tmp_path, grid={"model.net.widths": [[784, 5, 10], [784, 6, 10]]}, seeds=3)
    before = read_files(tmp_path)
    main(["sweep", str(path), "--executor", "slurm", "--dry-run", "--workers", "2", "--slurm.extra", "account=me"])
    assert read_files(tmp_path) == before
    printed = capsys.readouterr().out
    assert "#SBATCH --array=0-1%2\n" in printed
    assert "#SBATCH --account=me\n" in printed


BAD = {
    "not-slurm": (["--slurm.time", "5"], "--executor local takes no --slurm options"),
    "time": (["--executor", "slurm", "--slurm.time", "0"], "--slurm.time 0; give more than 0"),
    "many-gpus": (["--executor", "slurm", "--slurm.gpus-per-task", "2"], "--slurm.gpus-per-task 2; a job"),
    "grace": (["--executor", "slurm", "--slurm.time", "1", "--slurm.grace", "60"], "--slurm.grace 60; give less"),
    "extra": (["--executor", "slurm", "--slurm.extra", "=me"], "--slurm.extra =me; give KEY=VALUE"),
    "type": (["--executor", "slurm", "--slurm.mem", "much"], "--slurm.mem: invalid float value: 'much'"),
    "no-slurm": (["--executor", "slurm"], "--executor slurm: the program sbatch is not installed"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_invalid_slurm_options_are_refused(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    path = write_sweep(tmp_path, seeds=1)
    before = read_files(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(path), "--out", str(tmp_path / "out"), *options])
    assert ended.value.code == 2
    assert read_files(tmp_path) == before
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert message in errors


def test_missing_submitit_is_reported_with_its_installation(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(write_sweep(tmp_path, seeds=1)), "--out", str(tmp_path / "out"), "--executor", "slurm"])
    assert ended.value.code == 2
    assert "pip install 'lnsgd[slurm]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_than_1000_jobs_become_arrays_that_share_workers(tmp_path, monkeypatch, capsys):
    made = []

    def submit(folder, options, jobs, retries, at_once):
        made.append((list(jobs), at_once))
        return JobArray("name", tuple(jobs), "1")

    monkeypatch.setattr(slurm_arrays, "submit", submit)
    jobs = [str(number) for number in range(2500)]
    slurm.SlurmExecutor(workers=10)._submit(SweepFolder(tmp_path), jobs, 1)
    assert [len(part) for part, _ in made] == [1000, 1000, 500]
    assert [job for part, _ in made for job in part] == jobs
    assert [at_once for _, at_once in made] == [3, 3, 3]


def test_resources_of_a_slurm_job():
    of_cpu = make_executor("slurm", 5, None, SlurmOptions(mem=10.0)).resources()
    assert (of_cpu.at_once, of_cpu.memory, of_cpu.gpu) == (5, pytest.approx(7e9), False)
    of_gpu = make_executor("slurm", None, 20, SlurmOptions(gpus_per_task=1)).resources()
    assert (of_gpu.at_once, of_gpu.memory, of_gpu.gpu) == (slurm.AT_ONCE, 20e9, True)


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Install a program ``squeue`` that prints a given text."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def install(text: str, code: int = 0) -> None:
        program = folder / "squeue"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return install


def test_states_are_read_by_name_and_index(squeue):
    squeue("sweep-1|0|RUNNING\nsweep-1|1|PENDING\nsweep-2|N/A|COMPLETED\n")
    assert slurm_arrays.ask_states([]) == {
        ("sweep-1", 0): "RUNNING",
        ("sweep-1", 1): "PENDING",
        ("sweep-2", 0): "COMPLETED",
    }
    squeue("", code=1)
    assert slurm_arrays.ask_states([]) is None
