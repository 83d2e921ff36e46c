"""Damaged files of a run are named and never silently replaced, and an earlier checkpoint is used."""

from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree

import pytest
import torch

from lnsgd.cli import main
from lnsgd.runs.checkpoints import WholeCheckpointIO
from lnsgd.runs.folder import RunFolder
from tests.stopped_runs import EPOCH_STEPS, STEPS, assert_same_run, write_configs

STEPS_BEFORE = 2 * EPOCH_STEPS

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "without-its-end": lambda content: content[:-1],
    "zeroed": lambda content: bytes(len(content)),
    "zeroed-at-its-end": lambda content: content[:-4096] + bytes(4096),
    "one-bit-flipped": lambda content: flipped(content, len(content) // 3),
    "another-bit-flipped": lambda content: flipped(content, 2 * len(content) // 3),
}


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


def damage(path: Path, how: str) -> None:
    path.write_bytes(DAMAGES[how](path.read_bytes()))


def fit(run: RunFolder, *options: str, checkpoint: str = "auto") -> RunFolder:
    main(["fit", "--config", "plain.yaml", "--run_dir", str(run.path), "--ckpt_path", checkpoint, *options])
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train ``whole``, and ``cut``, which ends an epoch earlier."""
    folder = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_configs(folder)
        fit(RunFolder(Path("whole")))
        fit(RunFolder(Path("cut")), "--trainer.max_epochs", "2")
    return folder


@pytest.fixture
def cut(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    copytree(runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return RunFolder(Path("cut"))


def test_former_checkpoint_is_kept(cut: RunFolder) -> None:
    steps = {path.name: torch.load(path)["global_step"] for path in cut.checkpoints.iterdir()}
    assert steps == {"last.ckpt": STEPS_BEFORE, "last.ckpt.previous": EPOCH_STEPS}


@pytest.mark.parametrize(
    ("how", "checkpoint"),
    [
        ("truncated", "auto"),
        ("one-bit-flipped", "last"),
        *(pytest.param(how, "auto", marks=pytest.mark.slow) for how in DAMAGES if how != "truncated"),
    ],
)
def test_newest_intact_checkpoint_is_used(
    cut: RunFolder, how: str, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(cut.last_checkpoint, how)
    fit(cut, checkpoint=checkpoint)
    line, *notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lnsgd:")]
    assert all(note.endswith("a later checkpoint is now cut/checkpoints/last.ckpt.set-aside") for note in notes)
    assert line.startswith("lnsgd: cut/checkpoints/last.ckpt is damaged or not a checkpoint (")
    assert line.endswith(f"; resuming from cut/checkpoints/last.ckpt.previous at step {EPOCH_STEPS}")
    assert_same_run(cut, RunFolder(Path("whole")))


def test_intact_checkpoint_with_the_most_steps_is_used(cut: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A ModelCheckpoint of the config has kept checkpoints beside the last one."""
    own = {step: cut.checkpoints / f"epoch={epoch}-step={step}.ckpt" for epoch, step in enumerate((5, 10))}
    RunFolder.before(cut.last_checkpoint).rename(own[5])
    copy(cut.last_checkpoint, own[10])
    damage(cut.last_checkpoint, "truncated")
    damage(own[10], "zeroed")
    fit(cut)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lnsgd:")]
    assert [line.split()[1] for line in lines] == [str(cut.last_checkpoint), str(own[10])]
    assert all(line.endswith(f"resuming from {own[5]} at step 5") for line in lines)
    assert_same_run(cut, RunFolder(Path("whole")))


def test_run_without_intact_checkpoint_is_refused(cut: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for path in cut.checkpoints.iterdir():
        damage(path, "truncated")
    before = {path: path.read_bytes() for path in cut.path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        fit(cut)
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lnsgd:")]
    assert line.startswith("lnsgd: error: cut has no intact checkpoint: cut/checkpoints/last.ckpt is damaged")
    assert line.endswith("move cut/checkpoints away to start over, or give another folder")
    assert {path: path.read_bytes() for path in cut.path.rglob("*") if path.is_file()} == before


def test_named_checkpoint_is_not_replaced(cut: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    damage(cut.last_checkpoint, "truncated")
    before = {path: path.read_bytes() for path in cut.path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        fit(cut, checkpoint=str(cut.last_checkpoint))
    assert ended.value.code == 2
    assert f"lnsgd: error: {cut.last_checkpoint} is damaged" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in cut.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("metrics.csv", "zeroed"),
        ("measures.parquet", "truncated"),
        *(pytest.param("metrics.csv", how, marks=pytest.mark.slow) for how in ("truncated", "empty")),
        *(pytest.param("measures.parquet", how, marks=pytest.mark.slow) for how in ("zeroed", "empty")),
    ],
)
def test_damaged_table_is_not_replaced(cut: RunFolder, name: str, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """After the table was moved away, the run continues with the other numbers."""
    table = cut.path / name
    damage(table, how)
    damaged, checkpoint = table.read_bytes(), cut.last_checkpoint.read_bytes()
    with pytest.raises(SystemExit) as ended:
        fit(cut)
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lnsgd:")]
    assert line.startswith(f"lnsgd: error: {table} cannot be read (")
    assert "move it away, and the run continues without its rows" in line
    assert table.read_bytes() == damaged
    assert cut.last_checkpoint.read_bytes() == checkpoint
    table.rename("away")
    fit(cut)
    assert torch.load(cut.last_checkpoint)["global_step"] == STEPS


def test_unknown_former_checkpoint_is_not_kept(tmp_path: Path) -> None:
    path, io = tmp_path / "last.ckpt", WholeCheckpointIO()
    path.write_bytes(b"damaged")
    io.save_checkpoint({"step": 1}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    io.save_checkpoint({"step": 2}, path)
    assert torch.load(RunFolder.before(path)) == {"step": 1}
    assert torch.load(path) == {"step": 2}


def test_former_checkpoint_is_copied_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path, io = tmp_path / "last.ckpt", WholeCheckpointIO()
    for step in (1, 2):
        io.save_checkpoint({"step": step}, path)
    assert torch.load(RunFolder.before(path)) == {"step": 1}
