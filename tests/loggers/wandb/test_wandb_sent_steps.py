"""The numbers that a resumed run sends."""

import json
from pathlib import Path

import pytest

from lnsgd.loggers.wandb.sent_steps import SentSteps
from lnsgd.records.sent_steps import read_sent_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write the record of a run that sent ``loss`` until step 8 and ``accuracy``, once per epoch, at step 5."""
    kept = tmp_path / "wandb-sent.json"
    sent = SentSteps(kept, None, "x", -1)
    for step in range(1, 9):
        assert sent.unsent({"loss": 0.5}, step) == {"loss": 0.5}
    assert sent.unsent({"accuracy": 1.0}, 5) == {"accuracy": 1.0}
    sent.write()
    return kept


def unsent(sent: SentSteps) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for step in range(1, 11):
        for name in ("loss", "accuracy", "new"):
            if sent.unsent({name: 0.0}, step):
                found.setdefault(name, []).append(step)
    return found


ALL = {name: list(range(1, 11)) for name in ("loss", "accuracy", "new")}
CASES = {
    "offline": (None, {"loss": [9, 10], "accuracy": [6, 7, 8, 9, 10], "new": list(range(1, 11))}),
    "server-has-all": (8, {"loss": [9, 10], "accuracy": [6, 7, 8, 9, 10], "new": list(range(1, 11))}),
    "server-has-less": (6, {"loss": [7, 8, 9, 10], "accuracy": [6, 7, 8, 9, 10], "new": list(range(1, 11))}),
    "server-has-nothing": (-1, ALL),
}


@pytest.mark.parametrize(("received", "expected"), CASES.values(), ids=CASES)
def test_only_unsent_numbers_are_sent(path: Path, received: int | None, expected: dict[str, list[int]]) -> None:
    assert unsent(SentSteps(path, read_sent_record(path), "x", received)) == expected


def test_record_of_another_run_is_ignored(path: Path) -> None:
    assert unsent(SentSteps(path, read_sent_record(path), "y", None)) == ALL


def test_answer_of_the_server_counts_without_a_record(tmp_path: Path) -> None:
    """The run is resumed in another folder."""
    none = tmp_path / "none.json"
    sent = SentSteps(none, read_sent_record(none), "x", 7)
    assert unsent(sent) == {name: [8, 9, 10] for name in ALL}


def test_numbers_of_one_step_are_separate(path: Path) -> None:
    assert SentSteps(path, read_sent_record(path), "x", None).unsent({"loss": 1.0, "accuracy": 2.0}, 7) == {
        "accuracy": 2.0
    }


def test_repeated_number_of_one_step_is_sent(path: Path) -> None:
    """Only numbers that an earlier process has sent are left out."""
    sent = SentSteps(path, read_sent_record(path), "x", None)
    assert [sent.unsent({"loss": value}, 9) for value in (1.0, 2.0)] == [{"loss": 1.0}, {"loss": 2.0}]


def test_sent_steps_are_recorded(path: Path) -> None:
    sent = SentSteps(path, read_sent_record(path), "x", None)
    sent.unsent({"loss": 1.0}, 12)
    sent.write()
    assert json.loads(path.read_text()) == {"id": "x", "steps": {"loss": 12, "accuracy": 5}}
