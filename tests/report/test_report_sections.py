"""Sections of folders, and how the folders are found."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lnsgd.console.numbers import plus_minus
from lnsgd.report.content import Section
from lnsgd.report.figure_section import read_figure
from lnsgd.report.find import read_folders
from lnsgd.report.run_section import read_run
from lnsgd.report.sweep_section import read_sweep
from tests.figures import tiny
from tests.figures.handmade import handmade, handmade_sweep
from tests.report import report_folders

ONE = np.ones((1, 1))

OPTIONS = {"model.label_noise.p": 0.1, "model.net.widths": [6, 4, 1]}


def sweep(folder: Path) -> Path:
    """Write a sweep of 6 cells, of which one failed and one diverged."""
    cells = [
        (
            {**OPTIONS, "data.subset": 10 * (1 + i // 2), "seed_everything": i % 2},
            {"loss/val": 0.5 - 0.1 * i, "trace": 1.0 + i, "trace/stderr": 0.25},
        )
        for i in range(6)
    ]
    curves = [(i, step, "val", "loss", "", i + 1 / step) for i in range(6) for step in (1, 10)]
    handmade_sweep(folder, cells, {2: "failed", 5: "diverged"}, curves)
    piece = folder / "cells" / "one.parquet"
    table = pd.read_parquet(piece)
    table.loc[2, "reason"] = f"ValueError: {report_folders.HOSTILE}"
    table.loc[2, "attempts"] = 3
    table.to_parquet(piece)
    (folder / "sweep.yaml").write_text("base: mnist.yaml\ngrid: {data.subset: [10, 20, 30]}\nseeds: 2\n")
    return folder


def cells(section: Section, number: int = 0) -> list[dict[str, str]]:
    """Return the texts of a table by the names of its columns."""
    table = section.tables[number]
    names = [column.name for column in table.columns]
    return [dict(zip(names, (cell.text for cell in row))) for row in table.rows]


def test_figure_as_kept_in_the_repository(tmp_path: Path) -> None:
    section = read_figure(report_folders.figure(tmp_path / "tiny"))
    assert (section.kind, section.name, section.lead) == ("figure", "tiny", "Nothing much.")
    assert section.state == "paper: 1 of 2 holds, 1 fails; control: 0 of 1 hold, 1 undecided"
    assert [claim.holds for claim in section.claims] == [True, False, False]
    assert section.claims[:2] == report_folders.CLAIMS[:2]
    facts = dict(section.facts)
    assert facts["command"] == "lnsgd reproduce tiny --scale ci --seeds 2"
    assert (facts["time"], facts["steps"]) == ("61.7 s", "1,000")
    assert (facts["device"], facts["threads"]) == ("abacus", "2")
    assert facts["versions"].startswith("lnsgd ")
    (picture,) = section.pictures
    assert (picture.width, picture.height) == (60, 40)
    failed = f"error {report_folders.HOSTILE}"
    assert picture.alt == f"Nothing much. Holds: |N| falls. Undecided: diverges. Fails: {failed}."
    assert section.parts == []


def test_figure_with_its_arms(tmp_path: Path) -> None:
    runs = tiny.run(tiny.computed_figure(), tmp_path / "out")
    (tmp_path / "out" / "claims.json").write_text("[]")
    report_folders.png(tmp_path / "out" / "computed.png")
    section = read_figure(tmp_path / "out")
    assert dict(section.facts) == {"scale": "ci", "seeds": "2"}
    (part,) = section.parts
    assert (part.name, part.state) == ("computed", "computed")
    table = pd.read_parquet(runs["computed"].measures)
    assert [int(row["square"]) for row in cells(part)] == table["square"].tolist()
    assert [text.title for text in section.texts] == ["Options of all arms"]


def test_unfinished_figure_with_sweeps_as_arms(tmp_path: Path) -> None:
    sweep(tmp_path / "out" / "p_0")
    config = "# why\nmodel: x\n"
    settings = {"figure": "swept", "scale": "ci", "seeds": 2, "configs": {"p = 0": config, "p = 1": config}}
    (tmp_path / "out" / "settings.json").write_text(json.dumps(settings))
    (section,) = read_folders([tmp_path])
    assert (section.kind, section.state, section.claims, section.pictures) == ("figure", "not finished", [], [])
    assert "resumes the figure" in section.notes[0]
    assert [part.kind for part in section.parts] == ["sweep"]
    assert [(text.title, text.text) for text in section.texts[1:]] == [("Config as shipped, of p = 0; p = 1", config)]


def test_sweep(tmp_path: Path) -> None:
    section = read_sweep(sweep(tmp_path / "swept"))
    assert section.state == "6 cells: 4 done, 1 diverged, 1 failed"
    assert section.lead == "Over data.subset."
    assert dict(section.tables[0].same)["model.net.widths"] == "[6, 4, 1]"
    rows = cells(section)
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done", "done", "diverged"]
    assert rows[2]["reason"] == f"ValueError: {report_folders.HOSTILE}"
    assert [row["trace"] for row in rows] == [f"{1 + i}.00 ± 0.25" for i in range(6)]
    assert list(rows[0])[:4] == ["model.label_noise.p", "data.subset", "seed_everything", "status"]
    assert cells(section, 1) == [{"reason": rows[2]["reason"], "cells": "1", "attempts": "3", "jobs": "one"}]
    (drawn,) = section.plots
    assert drawn.legend == ["subset = 10", "subset = 20", "subset = 30"]
    assert "subset = 20: 3.5 at step 1, 2.6 at step 10" in drawn.whole[0].says
    assert [text.title for text in section.texts] == ["sweep.yaml"]


def test_sweep_begins_with_its_headline_measures(tmp_path: Path) -> None:
    values = {0.0: (0.5, 0.3), 0.1: (0.2, 0.4)}
    grid = [(p, seed, value) for p, of_p in values.items() for seed, value in enumerate(of_p)]
    done = [
        ({"p": p, "seed_everything": seed}, {"active_fraction/val/total": value, "loss/val": 2 * value})
        for p, seed, value in grid
    ]
    section = read_sweep(handmade_sweep(tmp_path / "swept", done, trajectories=[(0, 1, "", "x", "", 1.0)]).path)
    assert section.results == [("active", "0.3 … 0.4")]
    assert section.tables[0].title == "Headline measures: mean ± standard deviation over seeds"
    assert section.tables[0].stacked
    shown = [(row["p"], row["active_fraction/val/total"]) for row in cells(section)]
    assert shown == [("0.0", "0.40 ± 0.14"), ("0.1", "0.30 ± 0.14")]
    assert not section.tables[1].stacked


def test_sweep_without_results(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "swept")
    (folder / "cells" / "one.parquet").unlink()
    (folder / "finished.json").unlink()
    section = read_sweep(folder)
    assert section.state == "6 cells: 6 missing"
    assert section.notes == ["6 cells without a result so far."]
    assert section.plots == []


def test_run_of_replicas(tmp_path: Path) -> None:
    section = read_run(report_folders.run(tmp_path / "r").path)
    assert section.state == "100 steps"
    assert [table.title.partition(":")[0] for table in section.tables] == ["Replicas", "Final measures"]
    final = [(row["measure"], row["layer"], row["group"], row["mean ± std"]) for row in cells(section, 1)]
    assert final == [
        ("active_fraction", "net.relu", "noise = 0.0", "0.210 ± 0.014"),
        ("active_fraction", "net.relu", "noise = 0.1", "0.250 ± 0.014"),
        ("loss", "", "noise = 0.0", "0.150 ± 0.071"),
        ("loss", "", "noise = 0.1", "0.350 ± 0.071"),
    ]
    (drawn,) = section.plots
    assert drawn.legend == ["noise = 0.0", "noise = 0.1"]
    assert [plot.title for plot in drawn.whole] == ["loss/val", "train/loss"]
    assert [plot.title for plot in drawn.layers] == ["active_fraction/train/net.relu"]
    assert [picture.alt for picture in section.pictures] == ["replica0/firings of run r"]
    assert [(text.title, text.text) for text in section.texts] == [("Config, resolved", "model: tiny\n")]


def test_results_of_a_run_are_its_headline_measures_and_its_accuracy(tmp_path: Path) -> None:
    rows = [
        *((step, 0, "train", "active_fraction", "total", value) for step, value in ((0, 0.5), (5, 0.25))),
        *((step, 0, "train", "active_fraction", "relu", value) for step, value in ((0, 0.5), (5, 0.25))),
        *((step, 0, "", "distance_from_init", "", value) for step, value in ((0, 0.0), (5, 3.0))),
        (5, 0, "val", "hessian_trace", "", 8.0),
        (5, 0, "val", "loss", "", 1.0),
    ]
    run = tiny.hand_made_run(tmp_path / "r", rows, [None])
    run.metrics.write_text("step,epoch,train/loss,val/accuracy\n2,0,0.5,0.75\n5,1,0.25,\n")
    assert read_run(run.path).results == [
        ("active", "0.500 ± 0.050 → 0.250 ± 0.025"),  # handmade: an error of a tenth of the value
        ("distance", "3.00 ± 0.30"),
        ("val trace", "8.00 ± 0.80"),
        ("val accuracy", "0.75"),
    ]


def test_replicas_of_several_settings_have_no_common_result(tmp_path: Path) -> None:
    run = report_folders.run(tmp_path / "r")
    table = pd.read_parquet(run.measures)
    table.assign(layer=table.layer.replace("net.relu", "total")).to_parquet(run.measures)
    assert read_run(run.path).results == []
    settings = pd.read_csv(run.replicas).assign(noise=0.1)
    settings.to_csv(run.replicas, index=False)
    shown = table[(table.measure == "active_fraction") & (table.step == 100)].value
    (name, text), *_ = read_run(run.path).results
    assert (name, text) == ("active", f"0.5 ± 0 → {plus_minus(shown.mean(), shown.std(ddof=1))}")


def test_ordinary_run_has_standard_errors(tmp_path: Path) -> None:
    run = tiny.hand_made_run(tmp_path / "r", [(0, 0, "val", "trace", "", 9.0), (5, 0, "val", "trace", "", 2.0)], [None])
    section = read_run(run.path)
    assert [row["value"] for row in cells(section)] == ["2.00 ± 0.20"]  # handmade: a tenth of the value


def test_number_measured_before_the_last_step_is_shown_with_its_step(tmp_path: Path) -> None:
    rows = [(0, 0, "", "fit", "", 1.0), (3, 0, "", "fit", "", 2.0), (5, 0, "", "loss", "", 4.0)]
    section = read_run(tiny.hand_made_run(tmp_path / "r", rows, [None]).path)
    found = [(row["measure"], row["step"], row["value"]) for row in cells(section)]
    assert found == [("fit", "3", "2.00 ± 0.20"), ("loss", "5", "4.00 ± 0.40")]


def test_replicas_that_diverged_have_no_final_measures(tmp_path: Path) -> None:
    rows = [(step, replica, "", "loss", "", float(replica)) for step in (0, 5) for replica in (0, 1, 2)]
    rows = [row for row in rows if row[:2] != (5, 2)]  # it diverged at step 3
    section = read_run(tiny.hand_made_run(tmp_path / "r", rows, [None, None, 3]).path)
    assert [(row["mean ± std"], row["n"]) for row in cells(section, 1)] == [("0.50 ± 0.71", "2")]


def test_replicas_measured_at_different_steps(tmp_path: Path) -> None:
    rows = [(3, 0, "", "fit", "", 1.0), (5, 1, "", "fit", "", 2.0)]
    section = read_run(tiny.hand_made_run(tmp_path / "r", rows).path)
    assert [row["step"] for row in cells(section)] == ["3 to 5"]


def test_when_a_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the time zone of the machine. Records of older versions have no end; the time of writing is shown instead."""
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        run = report_folders.run(tmp_path / "r")
        os.utime(run.finished, (1_800_000_000, 1_800_000_000))
        older = dict(read_run(run.path).facts)
        run.finished.write_text(
            json.dumps({**json.loads(run.finished.read_text()), "ended": "2026-03-01T23:30:00+00:00"})
        )
        newer = dict(read_run(run.path).facts)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert older["written"].startswith("2027-01-15 10:00")
    assert newer["ended"].startswith("2026-03-02 01:30")
    assert ("ended" in older, "written" in newer) == (False, False)


def test_unfinished_run(tmp_path: Path) -> None:
    run = report_folders.run(tmp_path / "r")
    run.finished.unlink()
    run.measures.unlink()
    section = read_run(run.path)
    assert (section.state, section.notes) == ("not finished", ["The run has not reached its end."])
    assert [plot.title for plot in section.plots[0].whole] == ["train/loss", "loss/val"]


def test_folders_are_found_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b/two", "b/one", "a", ".hidden/x"):
        handmade(tmp_path / name, [1], {("loss", "val", ""): ONE})
    sweep(tmp_path / "b" / "swept")
    handmade(tmp_path / "b" / "swept" / "runs" / "inner", [1], {("loss", "val", ""): ONE})
    for name in ("back", "again"):  # followed, two such links would lead through 2^40 folders
        (tmp_path / "b" / name).symlink_to(tmp_path)
    (tmp_path / "unknown").mkdir()
    found = read_folders([tmp_path / "b" / "one", tmp_path, tmp_path / "a" / ".." / "a"])
    assert [(section.kind, section.name) for section in found] == [
        ("run", "one"),
        ("run", "a"),
        ("sweep", "swept"),
        ("run", "two"),
    ]


def test_current_folder_is_shown_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(report_folders.run(tmp_path / "r").path)
    assert read_folders([Path()])[0].name == "r"
