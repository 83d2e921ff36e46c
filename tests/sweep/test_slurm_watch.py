"""What the SLURM executor makes of what SLURM says, without one."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lnsgd.cli import main
from lnsgd.sweep import load, slurm, submission
from lnsgd.sweep.executor import Resources, make_executor
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import read_sweep
from lnsgd.sweep.plan import Plan, make_plan, pack_cells
from lnsgd.sweep.resolve import ConfigReader
from lnsgd.sweep.slurm_options import SlurmOptions
from lnsgd.sweep.submission import Submission, remembered, sbatch_text
from lnsgd.sweep.table import write_planned
from lnsgd.writing import whole_file
from tests.sweep.small_sweeps import content, stands_at, write_sweep

GOLDEN = Path(__file__).parent / "golden"


class Slurm:
    """Stands for SLURM: takes jobs, and says what a test has set."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.states: dict[tuple[str, int], str] | None = {}
        self.taken: list[list[str]] = []
        self.cancelled: list[str] = []

    def hand_over(self, folder: SweepFolder, jobs, retries: int) -> None:
        self.taken.append(list(jobs))
        name = f"array-{len(self.taken)}"
        submission._remember(folder, Submission(name, tuple(jobs), str(len(self.taken))))
        self.states |= {(name, index): "PENDING" for index in range(len(jobs))}

    def ask_states(self, arrays) -> dict[tuple[str, int], str] | None:
        return self.states

    def cancel(self, array: Submission) -> bool:
        self.cancelled.append(array.name)
        return True

    def end(self, job: str) -> None:
        with whole_file(self.folder.piece(job)) as part:
            part.touch()


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Callable[[SweepFolder], Plan]:
    """Plans a sweep of two jobs."""
    source = tmp_path_factory.mktemp("source")
    wanted = read_sweep(write_sweep(source, grid={"model.net.widths": [[784, 5, 10], [784, 6, 10]]}))
    packed = pack_cells(wanted, ConfigReader(wanted), Resources(1, 8e9, gpu=False))
    return lambda folder: make_plan(wanted, packed, folder)


@pytest.fixture(scope="module")
def planned(plan, tmp_path_factory) -> Plan:
    return plan(SweepFolder(tmp_path_factory.mktemp("none")))


@pytest.fixture
def there(planned, tmp_path, monkeypatch) -> Slurm:
    """The sweep is watched with one retry; what is gone is lost at once."""
    folder = SweepFolder(tmp_path / "out")
    for job in planned.jobs:
        folder.write_job(job)
    write_planned(folder, planned.cells.cells)
    fake = Slurm(folder)
    for name in ("ask_states", "cancel"):
        monkeypatch.setattr(submission, name, getattr(fake, name))
    monkeypatch.setattr(slurm, "_SECONDS_UNTIL_LOST", -1.0)
    fake.jobs = [job.name for job in planned.jobs]
    fake.watch = lambda retries=1: slurm._Watched(folder, fake.jobs, retries, fake.hand_over)
    return fake


def test_all_jobs_are_one_array_and_are_forgotten_when_they_have_ended(there):
    watched = there.watch()
    watched.ask()
    watched.ask()
    assert there.taken == [there.jobs]
    for job in there.jobs:
        assert watched.look()
        there.end(job)
    assert not watched.look()
    assert remembered(there.folder) == []


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "CONFIGURING"])
def test_what_slurm_has_is_not_handed_over_again(there, state):
    there.watch().ask()
    there.states = dict.fromkeys(there.states, state)
    another = there.watch()
    another.ask()
    another.ask()
    assert there.taken == [there.jobs]


def test_while_slurm_is_silent_nothing_is_lost(there):
    watched = there.watch()
    watched.ask()
    there.states = None
    watched.ask()
    assert there.taken == [there.jobs]
    assert there.folder.read_attempts(there.jobs[0]).begun == 0


@pytest.mark.parametrize("state", [None, "OUT_OF_MEMORY"])
def test_what_is_lost_is_tried_again_and_then_a_row(there, state):
    lost, other = there.jobs
    watched = there.watch(retries=1)
    watched.ask()

    def lose(array: str, index: int) -> None:
        there.states.pop((array, index))
        if state is not None:
            there.states[array, index] = state

    there.folder.count_attempt(lost)  # it died in the middle of one
    lose("array-1", 0)
    watched.ask()
    assert there.taken == [there.jobs, [lost]]
    lose("array-2", 0)  # it died before it could count
    watched.ask()
    assert there.taken == [there.jobs, [lost]]
    attempts = there.folder.read_attempts(lost)
    assert attempts.begun == 2
    how = "ended without" if state is None else f"ended as {state} without"
    assert [error.partition(";")[0] for error in attempts.errors] == [
        f"its SLURM task 1_0 {how} a result",
        f"its SLURM task 2 {how} a result",
    ]
    row = load(there.folder.path).set_index("job").loc[lost]
    assert (row.status, row.attempts, row.reason) == ("failed", 2, attempts.errors[-1])
    assert [array.jobs for array in remembered(there.folder)] == [(lost, other)]
    assert not there.folder.piece(other).exists()


def test_what_gets_on_before_it_is_lost_is_handed_over_again_and_again(there):
    """On nodes that are taken away without a word."""
    lost, folder = there.jobs[0], there.folder
    watched = there.watch(retries=0)
    watched.ask()
    for array, step in enumerate((10, 20, 30, 30), start=1):
        folder.count_attempt(lost)
        stands_at(folder, lost, step)
        there.states.pop((f"array-{array}", 0))
        watched.ask()
    assert there.taken == [there.jobs, [lost], [lost], [lost]]
    assert folder.read_attempts(lost).starts == [0, 10, 20, 30]
    assert load(folder.path).set_index("job").status[lost] == "failed"


def test_a_piece_may_be_seen_late(there, monkeypatch):
    monkeypatch.setattr(slurm, "_SECONDS_UNTIL_LOST", 1e9)
    watched = there.watch()
    watched.ask()
    there.states.clear()
    watched.ask()
    assert there.taken == [there.jobs]
    assert there.folder.read_attempts(there.jobs[0]).begun == 0
    assert len(remembered(there.folder)) == 1


def test_what_was_cancelled_while_nobody_watched_was_no_attempt(there):
    there.watch().ask()
    there.folder.count_attempt(there.jobs[0])
    there.states.clear()
    there.watch().ask()
    assert there.taken == [there.jobs, there.jobs]
    assert [there.folder.read_attempts(job).begun for job in there.jobs] == [1, 0]
    assert [len(there.folder.read_attempts(job).errors) for job in there.jobs] == [1, 0]


def test_what_somebody_did_not_live_to_note_is_taken_back(there):
    submission._remember(there.folder, Submission("half", tuple(there.jobs)))
    there.watch().ask()
    assert there.cancelled == ["half"]
    assert [array.name for array in remembered(there.folder)] == ["array-1"]


def test_two_watching_processes_hand_over_once(there):
    one, two = there.watch(), there.watch()
    with slurm._alone(there.folder.handing_over) as alone:
        assert alone
        two.ask()
    assert there.taken == []
    one.ask()
    two.ask()
    assert there.taken == [there.jobs]


def test_handed_over_jobs_keep_their_packing(there, plan):
    assert plan(there.folder).begun == ()
    there.watch().ask()
    assert {job.name for job in plan(there.folder).begun} == set(there.jobs)


def test_the_script_for_sbatch():
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


def test_a_dry_run_shows_the_script_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_sweep(tmp_path, grid={"model.net.widths": [[784, 5, 10], [784, 6, 10]]}, seeds=3)
    before = content(tmp_path)
    main(["sweep", str(path), "--executor", "slurm", "--dry-run", "--workers", "2", "--slurm.extra", "account=me"])
    assert content(tmp_path) == before
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
    "no-slurm": (["--executor", "slurm"], "--executor slurm: there is no sbatch here"),
}


@pytest.mark.parametrize(("options", "says"), BAD.values(), ids=BAD)
def test_bad_options_are_refused_in_one_line(options, says, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    path = write_sweep(tmp_path, seeds=1)
    before = content(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(path), "--out", str(tmp_path / "out"), *options])
    assert ended.value.code == 2
    assert content(tmp_path) == before
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert says in said


def test_without_submitit_it_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(write_sweep(tmp_path, seeds=1)), "--out", str(tmp_path / "out"), "--executor", "slurm"])
    assert ended.value.code == 2
    assert "pip install 'lnsgd[slurm]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_thousand_jobs_and_more_are_several_arrays_that_share_the_workers(tmp_path, monkeypatch, capsys):
    made = []

    def submit(folder, options, jobs, retries, at_once):
        made.append((list(jobs), at_once))
        return Submission("name", tuple(jobs), "1")

    monkeypatch.setattr(submission, "submit", submit)
    jobs = [str(number) for number in range(2500)]
    slurm.SlurmExecutor(workers=10)._hand_over(SweepFolder(tmp_path), jobs, 1)
    assert [len(part) for part, _ in made] == [1000, 1000, 500]
    assert [job for part, _ in made for job in part] == jobs
    assert [at_once for _, at_once in made] == [3, 3, 3]


def test_what_a_job_can_count_on():
    of_cpu = make_executor("slurm", 5, None, SlurmOptions(mem=10.0)).resources()
    assert (of_cpu.at_once, of_cpu.memory, of_cpu.gpu) == (5, pytest.approx(7e9), False)
    of_gpu = make_executor("slurm", None, 20, SlurmOptions(gpus_per_task=1)).resources()
    assert (of_gpu.at_once, of_gpu.memory, of_gpu.gpu) == (slurm.AT_ONCE, 20e9, True)


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A program of this name that says what it is told to."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def says(text: str, code: int = 0) -> None:
        program = folder / "squeue"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return says


def test_states_are_read_by_name_and_index(squeue):
    squeue("sweep-1|0|RUNNING\nsweep-1|1|PENDING\nsweep-2|N/A|COMPLETED\n")
    assert submission.ask_states([]) == {
        ("sweep-1", 0): "RUNNING",
        ("sweep-1", 1): "PENDING",
        ("sweep-2", 0): "COMPLETED",
    }
    squeue("", code=1)
    assert submission.ask_states([]) is None
