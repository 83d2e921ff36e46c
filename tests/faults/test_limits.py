"""If the disk or the memory is full: one line with the remedy, exit code 1, and the former files are intact."""

import errno
import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsgd.cli import main
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.writing import NotWrittenError, whole_file
from tests.small_config import instance
from tests.stopped_runs import EPOCH_STEPS, assert_same_run, write_configs

# A step in the second epoch, when the checkpoint of the first is on the disk.
STEP = EPOCH_STEPS + 2


def fit(run: Path, *options: str) -> RunFolder:
    main(["fit", "--config", "plain.yaml", "--run_dir", str(run), "--ckpt_path", "auto", *options])
    return RunFolder(run)


def inject(name: str, **options: Any) -> list[str]:
    callback = instance(f"tests.faults.injected_faults.{name}", step=STEP, **options)
    return ["--trainer.callbacks+", json.dumps(callback)]


def refused(capsys: pytest.CaptureFixture[str], code: int, run: Path, *options: str) -> str:
    """Return the only line that a failing run prints."""
    with pytest.raises(SystemExit) as ended:
        fit(run, *options)
    assert ended.value.code == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lnsgd:")]
    return line


def begin(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    """Start a run that fails in the middle of its second epoch."""
    refused(capsys, 1, run, *inject("OutOfMemoryAt"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_configs(folder)
        return fit(folder / "run")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    ended = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if ended.returncode:
        pytest.skip(f"mounting is not allowed: {ended.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def assert_resumes(run: Path, whole: RunFolder, step: int = EPOCH_STEPS) -> None:
    """Check that a run resumes from its last checkpoint and ends like an undisturbed one."""
    assert torch.load(RunFolder(run).last_checkpoint)["global_step"] == step
    assert not list(run.rglob("*.part"))
    assert_same_run(fit(run), whole)


@pytest.fixture(autouse=True)
def signal_handlers_are_restored() -> Iterator[None]:
    """Check that signal handlers are restored, however a run fails."""
    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)] == before


def test_full_disk_is_reported(whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as disk:
        begin(capsys, disk / "run")
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "others").write_bytes(bytes(free - 60_000))
        line = refused(capsys, 1, disk / "run")
        assert line.startswith(f"lnsgd: error: cannot write {disk}/run/checkpoints/")
        assert "No space left on device (0." in line
        assert f"make room in {disk}/run/checkpoints and start again" in line
        (disk / "others").unlink()
        assert_resumes(disk / "run", whole)


@pytest.mark.slow
def test_limit_of_file_size_is_reported(whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    begin(capsys, run)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        line = refused(capsys, 1, run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in line
    assert "make room in" in line
    assert_resumes(run, whole)


def test_exceeded_quota_is_reported(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some network file systems report it only when a file is synced."""
    run = tmp_path / "run"
    begin(capsys, run)

    def refuse(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        line = refused(capsys, 1, run)
    assert "Disk quota exceeded" in line
    assert "make room in" in line
    assert_resumes(run, whole)


def test_read_only_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mounted(tmp_path / "readonly", "-t", "tmpfs", "-o", "ro", "tmpfs") as folder:
        line = refused(capsys, 2, folder / "run")
        assert line.startswith(f"lnsgd: error: cannot write to {folder}/run: {folder} is not a folder you may write to")
        assert "give another folder" in line
        assert list(folder.iterdir()) == []


def test_folder_that_becomes_read_only_is_reported(
    whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "tmpfs") as disk:
        # The run holds its lock open, so the file system cannot be remounted: it is mounted again, over itself.
        command = ["mount", "--bind", "-o", "ro", str(disk), str(disk)]
        line = refused(capsys, 1, disk / "run", *inject("CommandAt", command=command))
        assert line.startswith(f"lnsgd: error: cannot write {disk}/run/")
        assert "Read-only file system" in line
        assert f"make {disk}/run" in line
        subprocess.run(["umount", str(disk)], check=True)
        assert_resumes(disk / "run", whole)


@pytest.mark.parametrize("way", ["removed", "moved"])
def test_folder_that_was_removed_is_reported(
    way: str, whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, away = tmp_path / "run", tmp_path / "away"
    command = ["rm", "-r", str(run)] if way == "removed" else ["mv", str(run), str(away)]
    line = refused(capsys, 1, run, *inject("CommandAt", command=command))
    assert line.startswith(f"lnsgd: error: {run}/config.yaml is gone: the folder of the run was removed or replaced")
    if way == "moved":
        assert_resumes(away, whole)


def test_full_device_memory_is_reported(whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, 1, tmp_path / "run", *inject("OutOfMemoryAt"))
    assert line == (
        "lnsgd: error: the memory of the device is full (Tried to allocate 2.00 GiB); take a smaller "
        "--data.batch_size, fewer --replicas.seeds at once or --trainer.precision bf16-mixed. Checkpoints written "
        "before are whole"
    )
    assert_resumes(tmp_path / "run", whole)


def test_full_machine_memory_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (300 << 20), limits[1]))
    try:
        line = refused(capsys, 1, tmp_path / "run", "--model.net.widths", "[784,1000000,10]")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert line.startswith("lnsgd: error: the memory of this machine is full")
    assert "--data.batch_size" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), ValueError("I/O error (os error 28)")], ids=["os", "text"])
def test_system_errors_of_writing_are_reported_in_one_line(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("before")
    with pytest.raises(NotWrittenError, match=r"cannot write .*table\.csv: .* MB free"), whole_file(path) as part:
        part.write_text("half")
        raise error
    assert [file.name for file in tmp_path.glob("*.c*")] == ["table.csv"]
    assert path.read_text() == "before"


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError(errno.ENOENT, "none", "/elsewhere")], ids=str)
def test_other_errors_of_writing_are_passed_on(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, whole_file(tmp_path / "table.csv") as part:
        part.touch()
        raise error
    assert raised.value is error
    assert not (tmp_path / "table.csv").exists()
    assert not list(tmp_path.glob(".*.part"))
