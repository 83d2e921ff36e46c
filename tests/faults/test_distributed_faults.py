"""One of several processes is killed or stopped: the others end and say which it was, and the run goes on from there.

With as many processes bit for bit; with others up to summation.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lnsgd.run_folder import RunFolder
from lnsgd.training import train
from tests.faults.processes import HANGS, end, start, write_config
from tests.stopped_runs import EPOCH_STEPS, STEPS, assert_same_run

AUTO = ("--ckpt_path", "auto")


class Faulty:
    """A run with a fault."""

    def __init__(self, folder: Path, fault: dict, *options: str, launcher: tuple[str, ...] = ()) -> None:
        self.fault, self.folder, self.run = fault, folder / "faulty", folder / "run"
        config = write_config(folder / "faulty.yaml", **fault)
        self.process = start(config, self.run, *options, launcher=launcher)

    def check_end(self, how: str, stopped: int | None = None) -> None:
        """What must be true of its end."""
        ended = end(self.process, self.folder, stopped)
        assert ended.code not in (0, 2)
        (line,) = ended.said
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


# Most of its time a run needs to import everything; so both at once.
def test_the_other_process_ends_and_names_the_one_that_was_killed(tmp_path):
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
def test_a_run_goes_on_bit_for_bit(tmp_path, undisturbed, fault, how, stopped):
    faulty = Faulty(tmp_path, fault)
    faulty.check_end(how, stopped)
    run = faulty.run
    resumed = end(start(write_config(tmp_path / "plain.yaml"), run, *AUTO), tmp_path)
    assert (resumed.code, resumed.said, resumed.left) == (0, [], [])
    assert_same_run(RunFolder(run), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_under_torchrun(tmp_path, undisturbed, rank):
    launcher = ("torch.distributed.run", "--nproc_per_node", "2", "--no-python")
    faulty = Faulty(tmp_path, {"step": 7, "rank": rank}, launcher=launcher)
    faulty.check_end("is gone")
    run = faulty.run
    resumed = end(start(write_config(tmp_path / "plain.yaml"), run, *AUTO, launcher=launcher), tmp_path)
    assert (resumed.code, resumed.said, resumed.left) == (0, [], [])
    assert_same_run(RunFolder(run), undisturbed)


# -- another number of processes

STRATEGY = {1: "auto", 2: "ddp_fork"}
DOUBLE = ("--trainer.precision", "64-true")


def fit(folder: Path, run: Path, processes: int, *options: str) -> None:
    """In this process, in double precision."""
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
def test_another_number_of_processes(tmp_path, whole, capfd, before, after):
    """Part of the run by some processes, the rest by others: the weights of an undisturbed run, up to summation."""
    run = RunFolder(tmp_path / "run")
    fit(tmp_path, run.path, before, "--trainer.max_epochs", "1")
    assert "going on" not in capfd.readouterr().err
    check_goes_on(tmp_path, run, whole, capfd, before, after)


def check_goes_on(folder, run, whole, capfd, before, after):
    """A run of some processes, which stands after its first epoch, with others: to the same weights."""
    fit(folder, run.path, after, *AUTO)
    said = capfd.readouterr().err
    assert f"lnsgd: going on at step {EPOCH_STEPS} with {after} process" in said
    assert f"where there were {before}:" in said
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
def test_of_three_processes_one_is_killed_and_others_go_on(tmp_path, whole, capfd):
    """Neither the first, which has started it, nor the last; a batch of 20 is 7, 7 and 6 examples."""
    fault = {"step": 7, "rank": 1, "processes": 3}
    faulty = Faulty(tmp_path, fault, *DOUBLE, launcher=("tests.faults.many_cores",))
    faulty.check_end("was killed by SIGKILL")
    for after in (2, 1):
        run = RunFolder(tmp_path / f"with-{after}")
        shutil.copytree(faulty.run, run.path)
        check_goes_on(tmp_path, run, whole, capfd, 3, after)
