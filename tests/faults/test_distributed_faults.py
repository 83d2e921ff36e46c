"""One of several processes is killed or stopped: the others end and report it, and the run can be resumed.

With the same number of processes it resumes bit for bit; with another number up to the order of sums.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.faults.distributed_runs import HANGS, end, start, write_config
from tests.stopped_runs import EPOCH_STEPS, STEPS, assert_same_run

AUTO = ("--ckpt_path", "auto")


class Faulty:
    """A run with a fault."""

    def __init__(self, folder: Path, fault: dict, *options: str, launcher: tuple[str, ...] = ()) -> None:
        self.fault, self.folder, self.run = fault, folder / "faulty", folder / "run"
        config = write_config(folder / "faulty.yaml", **fault)
        self.process = start(config, self.run, *options, launcher=launcher)

    def check_end(self, how: str, stopped: int | None = None) -> None:
        """Check how the run ends."""
        ended = end(self.process, self.folder, stopped)
        assert ended.code not in (0, 2)
        (line,) = ended.lines
        assert f"the process of rank {self.fault['rank']} (of {self.fault.get('processes', 2)}) {how}" in line
        assert line.endswith(f"--run_dir {self.run} --ckpt_path auto")
        assert ended.left == []
        print(f"{self.fault}: the others ended after {ended.seconds:.1f} s")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> RunFolder:
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(write_config(folder / "plain.yaml"), folder / "run")
    assert process.wait(HANGS) == 0
    return RunFolder(folder / "run")


# Both at once, because a run spends most of its time importing.
@pytest.mark.slow
def test_remaining_process_ends_and_names_the_killed_one(tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    first, second = (Faulty(folder, {"step": 7, "rank": rank}) for rank, folder in enumerate(folders))
    first.check_end("is gone")
    second.check_end("was killed by SIGKILL")


FAULTS = {
    "batch-of-1": ({"step": 7, "rank": 1}, "was killed by SIGKILL", None),
    "batch-of-0": ({"step": 7, "rank": 0}, "is gone", None),
    "validation-of-1": ({"step": 10, "rank": 1, "hook": "on_validation_batch_end"}, "was killed by SIGKILL", None),
    "validation-of-0": ({"step": 10, "rank": 0, "hook": "on_validation_batch_end"}, "is gone", None),
    "writing-of-0": ({"step": 10, "rank": 0, "hook": "writing"}, "is gone", None),
    "saving-of-1": ({"step": 10, "rank": 1, "hook": "on_save_checkpoint"}, "was killed by SIGKILL", None),
    "stopped-1": ({"step": 7, "rank": 1, "name": "SIGSTOP", "patience": 5}, "has given no sign of life for 5", 1),
    "stopped-0": ({"step": 7, "rank": 0, "name": "SIGSTOP", "patience": 5}, "has given no sign of life for 5", 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault, how, stopped", FAULTS.values(), ids=FAULTS)
def test_run_resumes_bit_for_bit_after_a_fault(tmp_path, undisturbed, fault, how, stopped):
    faulty = Faulty(tmp_path, fault)
    faulty.check_end(how, stopped)
    run = faulty.run
    resumed = end(start(write_config(tmp_path / "plain.yaml"), run, *AUTO), tmp_path)
    assert (resumed.code, resumed.lines, resumed.left) == (0, [], [])
    assert_same_run(RunFolder(run), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_run_under_torchrun_resumes_bit_for_bit(tmp_path, undisturbed, rank):
    launcher = ("torch.distributed.run", "--nproc_per_node", "2", "--no-python")
    faulty = Faulty(tmp_path, {"step": 7, "rank": rank}, launcher=launcher)
    faulty.check_end("is gone")
    run = faulty.run
    resumed = end(start(write_config(tmp_path / "plain.yaml"), run, *AUTO, launcher=launcher), tmp_path)
    assert (resumed.code, resumed.lines, resumed.left) == (0, [], [])
    assert_same_run(RunFolder(run), undisturbed)


# -- another number of processes

STRATEGY = {1: "auto", 2: "ddp_fork"}
DOUBLE = ("--trainer.precision", "64-true")


def fit(folder: Path, run: Path, processes: int, *options: str) -> None:
    """Train in this process, in double precision."""
    config = folder / "plain.yaml"
    if not config.exists():
        write_config(config)
    place = ["--config", str(config), "--run_dir", str(run), *DOUBLE]
    train(["fit", *place, "--trainer.devices", str(processes), "--trainer.strategy", STRATEGY[processes], *options])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    folder = tmp_path_factory.mktemp("whole")
    fit(folder, folder / "run", 1)
    return RunFolder(folder / "run")


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_run_resumes_with_another_number_of_processes(tmp_path, whole, capfd, before, after):
    """The weights equal those of an undisturbed run, up to the order of sums."""
    run = RunFolder(tmp_path / "run")
    fit(tmp_path, run.path, before, "--trainer.max_epochs", "1")
    assert "resuming at" not in capfd.readouterr().err
    check_resumes(tmp_path, run, whole, capfd, before, after)


def check_resumes(folder, run, whole, capfd, before, after):
    """Resume a run after its first epoch with another number of processes, and compare the weights."""
    fit(folder, run.path, after, *AUTO)
    errors = capfd.readouterr().err
    assert f"lnsgd: resuming at step {EPOCH_STEPS} with {after} process" in errors
    assert f"instead of {before}:" in errors
    ours, theirs = (torch.load(folder.last_checkpoint, weights_only=False) for folder in (run, whole))
    assert ours["global_step"] == theirs["global_step"] == STEPS
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=1e-9, atol=1e-11, msg=name)
    ended = json.loads(run.finished.read_text())
    assert ended["processes"] == after
    history = [{"from_step": 0, "processes": before}, {"from_step": EPOCH_STEPS, "processes": after}]
    assert ended["process_history"] == history
    assert "process_history" not in json.loads(whole.finished.read_text())


@pytest.mark.slow
def test_run_of_three_processes_resumes_with_fewer(tmp_path, whole, capfd):
    """The second of three processes is killed; a batch of 20 is divided into 7, 7 and 6 examples."""
    fault = {"step": 7, "rank": 1, "processes": 3}
    faulty = Faulty(tmp_path, fault, *DOUBLE, launcher=("tests.faults.many_cores",))
    faulty.check_end("was killed by SIGKILL")
    for after in (2, 1):
        run = RunFolder(tmp_path / f"with-{after}")
        shutil.copytree(faulty.run, run.path)
        check_resumes(tmp_path, run, whole, capfd, 3, after)
