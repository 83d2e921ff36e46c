"""Answers of W&B's server and files of a run are checked: no other file is written or sent."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb

from lnsgd.cli import main
from lnsgd.loggers.wandb import Results, send_results
from lnsgd.loggers.wandb import run as wandb_run
from lnsgd.loggers.wandb.identifiers import read_run_id, write_run_id
from lnsgd.loggers.wandb.run import received_step
from lnsgd.records.sent_steps import read_sent_record
from tests.loggers.wandb.offline_runs import QUICK
from tests.loggers.wandb.server import LOGGER, WandbServer
from tests.stopped_runs import CONFIG, EPOCHS

# The path from the folder of a W&B run's files, ``run/wandb/run-.../files``, to the folder of the test.
OUT = "../../../.."

BAD_IDS = {
    "up": b"../../../elsewhere",
    "root": b"/elsewhere",
    "parent": b"..",
    "slash": b"a/b",
    "backslash": b"..\\..\\elsewhere",
    "empty": b"",
    "two-lines": b"a\nb",
    "zero": b"a\0b",
    "escape": b"a\x1b[2Jb",
    "long": b"a" * 129,
    "long-in-utf-8": "ü".encode() * 65,
    "no-text": b"\xff\xfe",
    "large": b"a" * (1 << 20),
}


@pytest.mark.parametrize("content", BAD_IDS.values(), ids=BAD_IDS)
def test_invalid_id_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wandb-run-id"
    path.write_bytes(content)
    assert_refused(lambda: read_run_id(path), path, "remove it")


def test_pipe_instead_of_an_id_is_refused(tmp_path: Path) -> None:
    """Reading a pipe would never end."""
    path = tmp_path / "wandb-run-id"
    os.mkfifo(path)
    assert_refused(lambda: read_run_id(path), path, "remove it")


@pytest.mark.parametrize("given", ["8lgw329d", "a.b-c_d", "my run", "ü" * 64, "a" * 128])
def test_written_id_is_read(tmp_path: Path, given: str) -> None:
    write_run_id(tmp_path / "wandb-run-id", given)
    assert read_run_id(tmp_path / "wandb-run-id") == given


def test_missing_file_has_no_id(tmp_path: Path) -> None:
    assert read_run_id(tmp_path / "wandb-run-id") is None


BAD_NOTES = {
    "text": {"id": "x", "steps": {"loss": "8"}},
    "fraction": {"id": "x", "steps": {"loss": 8.5}},
    "true": {"id": "x", "steps": {"loss": True}},
    "negative": {"id": "x", "steps": {"loss": -2}},
    "nothing": {"id": "x", "steps": {"loss": None}},
    "list": {"id": "x", "steps": [["loss", 8]]},
    "no-id": {"steps": {"loss": 8}},
    "id-of-another-kind": {"id": ["x"], "steps": {"loss": 8}},
    "no-object": [],
}


@pytest.mark.parametrize("kept", BAD_NOTES.values(), ids=BAD_NOTES)
def test_invalid_record_of_sent_steps_is_refused(tmp_path: Path, kept: Any) -> None:
    path = tmp_path / "wandb-sent.json"
    path.write_text(json.dumps(kept))
    assert_refused(lambda: read_sent_record(path), path, "remove it")


def assert_refused(read: Callable[[], object], path: Path, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as refused:
        read()
    (line,) = str(refused.value).splitlines()
    assert str(path) in line
    assert line.isprintable()
    assert len(line) < 400


TAMPERED = {"wandb-run-id": f"{OUT}/elsewhere\n", "wandb-sent.json": '{"id": "x", "steps": {"train/loss": "8"}}'}


def test_run_with_a_manipulated_file_is_refused_first(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *QUICK, "--run_dir", "run"])
    wandb.teardown()
    for name, content in TAMPERED.items():
        file = Path("run") / name
        whole = file.read_text()
        file.write_text(content)
        before = files_below(alone)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["fit", *QUICK, "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_steps", "5"])
        assert ended.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("lnsgd: ")
        assert str(file) in line
        assert files_below(alone) == before
        file.write_text(whole)


def test_results_with_an_invalid_id_are_refused(alone: Path) -> None:
    path = alone / "wandb-run-id"
    path.write_text(f"{OUT}/elsewhere\n")
    assert_refused(lambda: send_results(Results(), alone, same_run=True, project="lnsgd"), path, "remove it")
    assert list(alone.iterdir()) == [path]


def test_id_in_a_config_is_checked(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", *QUICK, "--run_dir", "run", "--trainer.logger.dict_kwargs.id", f"{OUT}/elsewhere"])
    assert ended.value.code == 2
    assert f"W&B run id '{OUT}/elsewhere'" in capsys.readouterr().err.splitlines()[-1]
    assert not (alone / "run").exists()


def test_link_instead_of_the_id_is_replaced(alone: Path) -> None:
    """Otherwise the run would write to its target."""
    elsewhere = alone / "elsewhere"
    elsewhere.write_text("8lgw329d\n")
    (alone / "run").mkdir()
    main(["fit", *QUICK, "--run_dir", "run"])
    kept = alone / "run" / "wandb-run-id"
    kept.unlink()
    kept.symlink_to(elsewhere)
    elsewhere.write_text("  8lgw329d  ")
    main(["fit", *QUICK, "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_steps", "5"])
    assert elsewhere.read_text() == "  8lgw329d  "
    assert (kept.is_symlink(), kept.read_text()) == (False, "8lgw329d\n")


def files_below(folder: Path) -> dict[Path, bytes]:
    """Read all files except those that W&B writes about itself."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "wandb-home" not in path.parts}


def renamed(answer: Any, keys: set[str]) -> Any:
    """Change the names in an answer so that they lead out of the run's folder to an existing file."""
    if isinstance(answer, dict):
        return {key: f"{OUT}/secret" if key in keys else renamed(value, keys) for key, value in answer.items()}
    return [renamed(value, keys) for value in answer] if isinstance(answer, list) else answer


# Names in the answers that a server chooses, by GraphQL operation.
MADE_UP = {
    "the-run": {"UpsertBucket": {"name", "displayName", "sweepName"}},
    "all-else": {
        "UpsertBucket": {"displayName", "sweepName"},
        "RunResumeStatus": {"name", "displayName"},
        "CreateRunFiles": {"name"},
        "CreateArtifactFiles": {"storagePath", "name", "displayName"},
    },
}


@pytest.mark.parametrize("made_up", MADE_UP.values(), ids=MADE_UP)
def test_names_from_the_server_do_not_lead_to_other_files(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up: dict[str, set[str]]
) -> None:
    monkeypatch.setattr(wandb_run, "_FINISH_TIMEOUT", 1)
    server.twist = lambda operation, answer: renamed(answer, made_up.get(operation, set()))
    (tmp_path / "secret").write_text("a secret of this machine")
    (tmp_path / "plain.yaml").write_text(CONFIG)
    before = files_below(tmp_path)
    options = ["fit", "--config", "plain.yaml", "--run_dir", "run", *LOGGER, "--trainer.logger.log_model", "true"]
    main(options)
    main([*options, "--ckpt_path", "last", "--trainer.max_epochs", str(EPOCHS + 1)])
    wandb.teardown()
    assert made_up.keys() <= set(server.asked)
    outside = {path: held for path, held in files_below(tmp_path).items() if tmp_path / "run" not in path.parents}
    assert outside == before
    assert not [path for path, sent in server.uploads.items() if b"a secret" in sent]
    assert read_run_id(tmp_path / "run" / "wandb-run-id") is not None


ODD_STEPS = [None, "8", [8], {"8": 8}, float("nan"), float("inf"), -7]


class Resumed:
    """The part of a W&B run that contains the last step of the server."""

    resumed, offline, settings = True, False, wandb.Settings(mode="online")

    def __init__(self, answer: Any) -> None:
        self.summary = {"step": answer}


@pytest.mark.parametrize("answer", ODD_STEPS, ids=str)
def test_invalid_last_step_from_the_server_is_ignored(told: list[str], answer: Any) -> None:
    assert received_step(Resumed(answer), "step") is None
    (line,) = told
    assert repr(answer) in line


@pytest.mark.parametrize(("answer", "step"), [(8, 8), (8.0, 8), (-1, -1)])
def test_last_step_from_the_server_is_used(told: list[str], answer: Any, step: int) -> None:
    assert received_step(Resumed(answer), "step") == step
    assert told == []
