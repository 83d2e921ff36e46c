"""`scripts/slurm/train.sbatch`: after a signal the job is queued again, and ends like an undisturbed run."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lnsgd.cli import main
from lnsgd.runs.folder import RunFolder
from tests.ports import find_port
from tests.stopped_runs import EPOCH_STEPS, assert_same_run, write_configs

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "slurm" / "train.sbatch"

# Starts the command once per task and ends with the highest exit code, as srun does.
SRUN = """\
#!/usr/bin/env bash
echo "$1" > srun-options
shift
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    tasks+=($!)
done
highest=0
for task in "${tasks[@]}"; do
    wait "$task" || { status=$?; [ "$status" -gt "$highest" ] && highest=$status; }
done
exit "$highest"
"""

SCONTROL = """\
#!/usr/bin/env bash
echo "$*" >> scontrol-calls
"""


def write_command(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def job(folder: Path, tasks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as SLURM runs it in an allocation of one node."""
    allocation = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "lnsgd",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(find_port()),
    }
    settings = {
        "PATH": os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "WANDB_MODE": "offline",
    }
    write_command(folder / "bin" / "srun", SRUN)
    write_command(folder / "bin" / "scontrol", SCONTROL)
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        cwd=folder,
        env=os.environ | allocation | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_two_stopped_tasks_resume_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second of the two gets the signal.
    write_configs(tmp_path, step=EPOCH_STEPS + 2, name="SIGUSR1", rank=1)
    options = ["--trainer.logger", "lnsgd.loggers.WandbLogger"]
    arguments = [
        "runs/two",
        "--config",
        "stopped.yaml",
        "--config",
        str(ROOT / "configs/trainer/ddp_cpu.yaml"),
        *options,
    ]

    first = job(tmp_path, 2, *arguments)
    assert first.returncode == 75, first.stderr
    assert (tmp_path / "scontrol-calls").read_text() == "requeue 4711\n"
    (step,) = re.findall(r"^lnsgd: stopped by SIGUSR1 at step (\d+);", first.stderr, re.MULTILINE)
    assert EPOCH_STEPS + 2 <= int(step) <= 2 * EPOCH_STEPS
    assert "Traceback" not in first.stderr
    run = RunFolder(tmp_path / "runs" / "two")
    wandb_id = run.wandb_id.read_text()

    second = job(tmp_path, 2, *arguments)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "scontrol-calls").read_text() == "requeue 4711\n"  # it was not queued a second time
    assert run.finished.exists()
    assert run.wandb_id.read_text() == wandb_id
    folders = [path.name.rpartition("-")[2] for path in run.path.glob("wandb/offline-run-*")]
    assert folders == [wandb_id.strip()] * 2

    monkeypatch.chdir(tmp_path)
    processes = ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork"]
    main(["fit", "--config", "plain.yaml", "--run_dir", "whole", *processes])
    assert_same_run(run, RunFolder(tmp_path / "whole"))


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_other_exit_codes_are_returned(tmp_path: Path, code: int) -> None:
    write_command(tmp_path / "bin" / "lnsgd", f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > arguments\nexit {code}\n')
    ended = job(tmp_path, 1, "runs/a b", "--config", "x.yaml", "--data.subset", "10")
    assert ended.returncode == code
    assert not (tmp_path / "scontrol-calls").exists()
    assert (tmp_path / "arguments").read_text().splitlines() == [
        *("fit", "--config", "x.yaml", "--data.subset", "10", "--run_dir", "runs/a b", "--ckpt_path", "auto"),
        *("--trainer.num_nodes", "1", "--trainer.devices", "1"),
    ]


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    ended = job(tmp_path, 1)
    assert ended.returncode != 0
    assert "the folder of the run is missing" in ended.stderr


def test_shellcheck_accepts_the_script() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("needs shellcheck")
    checked = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_signal_is_sent_before_the_end() -> None:
    """SLURM reads these lines. The signal goes to the job steps, not to the script, which it would kill."""
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", SCRIPT.read_text(), re.MULTILINE))
    assert directives["signal"] == "USR1@120"
    assert directives["open-mode"] == "append"
    assert directives["requeue"] == ""
