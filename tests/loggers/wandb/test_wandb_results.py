"""Figures, sweeps and reports are sent to a small W&B server on this machine."""

import json
from pathlib import Path

import pytest

from lnsgd.cli import main
from lnsgd.console.numbers import between
from lnsgd.figures.framework.runner import write_sweep
from lnsgd.loggers.wandb import WandbGroup
from lnsgd.sweep.grid import read_sweep
from tests.figures import tiny as tiny_figures
from tests.figures.listed import list_figures
from tests.loggers.wandb.server import WandbServer
from tests.report import report_folders


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add two figures to the catalogue: one of replicas, one trained seed by seed."""
    (tmp_path / "one").mkdir()
    figures = {"tiny": tiny_figures.figure(tmp_path), "seeds": tiny_figures.figure_seed_by_seed(tmp_path / "one")}
    list_figures(monkeypatch, figures, tmp_path / "one")


def describe_runs(server: WandbServer) -> list[tuple[str, ...]]:
    """Return project, group, job type and name of every run."""
    keys = ("project", "groupName", "jobType", "displayName")
    return sorted(tuple(run.about[key] for key in keys) for run in server.runs.values())


def test_arms_and_claims_of_a_figure_are_one_group(server: WandbServer, tiny: None, tmp_path: Path) -> None:
    main(["reproduce", "tiny", "--wandb", "papers", "--out", "out"])
    assert describe_runs(server) == [
        ("papers", "tiny ci", "claims", "tiny ci claims"),
        ("papers", "tiny ci", "train", "p = 0"),
        ("papers", "tiny ci", "train", "p = 0.5"),
    ]
    claims = server.runs[(tmp_path / "out" / "wandb-run-id").read_text().strip()]
    assert claims.summary["figure"]["_type"] == "image-file"
    (picture,) = [content for path, content in server.uploads.items() if "media/images/figure" in path]
    assert picture.startswith(b"\x89PNG")
    (table,) = [json.loads(sent) for path, sent in server.uploads.items() if path.endswith("claims.table.json")]
    kept = json.loads((tmp_path / "out" / "claims.json").read_text())["claims"]
    assert table["columns"] == list(kept[0])
    assert [row["paper"] for row in kept] == ["some", 0.0]
    for row in kept:  # as they are printed
        row |= {"paper": str(row["paper"]).removesuffix(".0"), "interval": between(*row["interval"])}
    assert table["data"] == [list(row.values()) for row in kept]
    logged = {name for run in server.runs.values() for row in run.history for name in row}
    # The first of the two seeds of each arm.
    assert [name for name in logged if "firing_rate" in name] == ["firing_rate/train/replica0/net.activations.0"]
    assert [run.about["tags"] for run in server.runs.values() if run.about["jobType"] == "train"] == [
        ["p = 0"],
        ["p = 0.5"],
    ]


def test_repeated_figure_has_the_same_runs(server: WandbServer, tiny: None, tmp_path: Path) -> None:
    main(["reproduce", "seeds", "--wandb", "--seeds", "1", "--out", "out"])
    before = describe_runs(server)
    assert before == [
        ("lnsgd", "tiny ci", "claims", "tiny ci claims"),
        ("lnsgd", "tiny ci", "train", "p = 0 seed 0"),
        ("lnsgd", "tiny ci", "train", "p = 0.5 seed 0"),
    ]
    claims = server.runs[(tmp_path / "out" / "wandb-run-id").read_text().strip()]
    main(["reproduce", "seeds", "--wandb", "--seeds", "1", "--out", "out"])
    assert describe_runs(server) == before
    rows = claims.history
    assert [row["_step"] for row in rows] == [0, 1]
    assert claims.summary["_step"] == 1  # the newest row is displayed
    assert rows[0]["claims"]["sha256"] == rows[1]["claims"]["sha256"]


def test_runs_of_a_sweep_are_a_group(server: WandbServer, tmp_path: Path) -> None:
    """The file of the sweep names the group, and nothing else changes."""
    figure, group = tiny_figures.swept_figure(tmp_path), WandbGroup("tiny ci", "papers")
    for wandb_group, name in ((None, "without.yaml"), (group, "with.yaml")):
        write_sweep(figure, "ci", "p = 0", 1, tmp_path / name, wandb_group)
    without, tracked = (read_sweep(tmp_path / name) for name in ("without.yaml", "with.yaml"))
    assert (without.wandb, tracked.wandb) == (None, group)
    assert (tracked.base, tracked.options, tracked.axes) == (without.base, without.options, without.axes)


def test_report_is_sent_as_a_run(server: WandbServer, tmp_path: Path) -> None:
    report_folders.figure(tmp_path / "tiny")
    report_folders.run(tmp_path / "r")
    main(["report", "tiny", "r", "--out", "pages/all.html", "--wandb", "papers"])
    run = server.only_run
    assert [run.about.get(key) for key in ("project", "jobType", "displayName")] == ["papers", "report", "all"]
    sent = {Path(path).name.partition("_")[0]: content for path, content in server.uploads.items() if "/media/" in path}
    assert sent["report"] == (tmp_path / "pages" / "all.html").read_bytes()
    assert sent["tiny.png"] == (tmp_path / "tiny" / "tiny.png").read_bytes() or sent["tiny.png"].startswith(b"\x89PNG")
    (table,) = [json.loads(sent) for path, sent in server.uploads.items() if path.endswith("claims.table.json")]
    assert table["columns"][0] == "figure"
    assert [row[1] for row in table["data"]] == [claim.claim for claim in report_folders.CLAIMS]
    main(["report", "tiny", "--out", "pages/all.html", "--wandb", "papers"])
    assert len(server.runs) == 2


@pytest.mark.parametrize("args", [["reproduce", "tiny"], ["report", "folder"]], ids=["reproduce", "report"])
def test_invalid_project_is_refused_before_anything_is_written(
    server: WandbServer, tiny: None, args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main([*args, "--wandb", "me/papers"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "W&B project 'me/papers'" in line
    assert sorted(tmp_path.rglob("*")) == before
