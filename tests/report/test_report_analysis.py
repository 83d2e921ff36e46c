"""Sections of analyses: trajectories, single checkpoints, comparisons, and analyses in the folder of a run."""

from pathlib import Path

import pandas as pd
import pytest

from lnsgd.cli import main
from lnsgd.report.analysis_section import read_analysis
from lnsgd.report.content import Section, Table
from lnsgd.report.find import read_folders
from lnsgd.report.kinds import analyses_in, is_analysis
from lnsgd.report.plot import BOTTOM, TOP
from lnsgd.report.run_section import read_run
from tests.analysis.analyzed_runs import analyzed_config
from tests.report import report_folders
from tests.report.report_folders import RUN, analysis, comparison
from tests.small_config import fit


def rows_of(table: Table) -> list[dict[str, str]]:
    names = [column.name for column in table.columns]
    return [dict(zip(names, (cell.text for cell in row))) for row in table.rows]


def test_several_checkpoints_have_two_tables_and_curves(tmp_path: Path) -> None:
    section = read_analysis(analysis(tmp_path / "x", RUN))
    assert (section.kind, section.state, section.lead) == ("analysis", "3 networks, 9 numbers", "Checkpoints of a.")
    last, every = section.tables
    assert [row["value"] for row in rows_of(last)] == ["109.00 ± 0.25", "0.01", "3"]  # the headline measure first
    assert dict(last.same)["file"] == "e=1.ckpt"
    assert len(every.rows) == 9
    assert [row["step"] for row in rows_of(every)] == ["0"] * 3 + ["9"] * 3 + ["99"] * 3
    (drawn,) = section.plots
    assert drawn.title == "Over checkpoints: value with standard error"
    assert [plot.title for plot in drawn.whole] == ["hessian_trace/train", "loss/val"]
    assert [plot.title for plot in drawn.layers] == ["norm/net.0.weight"]
    assert drawn.whole[1].lines[0].bands == []  # the loss is exact
    assert len(drawn.whole[0].lines[0].bands) == 1
    assert "0.01 at step 99" in drawn.whole[1].says
    assert section.results == [("trace", "10.00 ± 0.25 → 109.00 ± 0.25")]


def test_error_band_has_the_height_of_the_error(tmp_path: Path) -> None:
    """The traces are 10, 19 and 109 ± 50: the first band reaches from −40 to 60, the last from 59 to 159."""
    (drawn,) = read_analysis(analysis(tmp_path / "x", RUN, stderr=50.0)).plots
    (band,) = drawn.whole[0].lines[0].bands
    heights = [float(point.partition(",")[2]) for point in band.split()]
    unit = (BOTTOM - TOP) / (159 - (-40))
    expected = [BOTTOM - unit * (value + 40) for value in (60, 69, 159, 59, -31, -40)]
    assert heights == pytest.approx(expected, abs=0.06)


def test_two_runs_have_two_curves_and_two_last_rows(tmp_path: Path) -> None:
    other = [(path.replace("runs/a", "runs/b"), step, replica) for path, step, replica in RUN[:2]]
    section = read_analysis(analysis(tmp_path / "x", [*RUN, *other]))
    assert section.plots[0].legend == ["a", "b"]
    losses = [row for row in rows_of(section.tables[0]) if row["measure"] == "loss"]
    assert [(row["run"], row["step"], row["value"]) for row in losses] == [("a", "99", "0.01"), ("b", "9", "0.1")]
    far = [(path.replace("runs/a", "elsewhere/a"), step, replica) for path, step, replica in RUN]
    assert read_analysis(analysis(tmp_path / "y", [*RUN, *far])).plots[0].legend == ["runs/a", "elsewhere/a"]


def test_replicas_are_averaged_with_standard_deviation(tmp_path: Path) -> None:
    each = [(path, step, replica) for path, step, _ in RUN for replica in (0, 1, 2)]
    section = read_analysis(analysis(tmp_path / "x", each))
    assert section.state == "9 networks, 27 numbers"
    trace, loss, _ = rows_of(section.tables[0])
    assert loss["mean ± std"] == "1.01 ± 1.00"
    assert trace["stderr of one replica"] == "0.25"
    assert section.plots[0].title == "Over checkpoints: mean and standard deviation over replicas"
    assert len(section.plots[0].whole[0].lines[0].bands) == 1


def test_weight_files_have_a_table_and_no_curves(tmp_path: Path) -> None:
    section = read_analysis(analysis(tmp_path / "x", [("w/one.pt", None, 0), ("w/two.pt", None, 0)]))
    (table,) = section.tables
    assert [row["file"] for row in rows_of(table)] == ["one.pt"] * 3 + ["two.pt"] * 3
    assert section.plots == []


def test_comparison_of_two_networks(tmp_path: Path) -> None:
    section = read_analysis(comparison(tmp_path / "a-vs-b"))
    assert (section.kind, section.name, section.state) == ("comparison", "a-vs-b", "A against B")
    differences, alike, line = section.tables
    found = rows_of(differences)
    assert (found[0]["A"], found[0]["B"], found[0]["B − A"]) == ("2.00 ± 0.10", "5.00 ± 0.20", "3.00 ± 0.50")
    assert (found[1]["A"], found[1]["B − A"]) == ("2", "3")
    assert rows_of(alike)[0]["value"] == "0.5"
    assert [row["loss"] for row in rows_of(line)] == ["1", "0.5", "0"]
    assert section.results == [("trace", "2 → 5 (+150\N{NO-BREAK SPACE}%)")]
    assert [picture.name for picture in section.pictures] == ["path.png"]


def test_comparison_of_pairs_is_averaged(tmp_path: Path) -> None:
    _, alike, line = read_analysis(comparison(tmp_path / "a-vs-b", seeds=2)).tables
    assert rows_of(alike)[0]["value"] == "0.60 ± 0.14"
    assert rows_of(line)[0]["loss"] == "1.50 ± 0.71"


def section_of(folder: Path) -> Section:
    (section,) = read_folders([folder])
    return section


def test_analyses_are_found_beside_runs_and_inside_a_run(tmp_path: Path) -> None:
    report_folders.run(tmp_path / "runs" / "r")
    analysis(tmp_path / "runs" / "analysis" / "x", RUN)
    comparison(tmp_path / "runs" / "analysis" / "y")
    assert [section.kind for section in read_folders([tmp_path / "runs"])] == ["analysis", "comparison", "run"]
    analysis(tmp_path / "runs" / "r", RUN)
    comparison(tmp_path / "runs" / "r" / "against")
    assert [part.kind for part in read_run(tmp_path / "runs" / "r").parts] == ["analysis", "comparison"]
    comparison(tmp_path / "runs" / "analysis" / "x")
    both = section_of(tmp_path / "runs" / "analysis" / "x")
    assert both.state == "3 networks, 9 numbers; A against B"
    assert len(both.tables) == 5
    assert analyses_in(tmp_path / "runs" / "analysis") == [tmp_path / "runs" / "analysis" / name for name in "xy"]
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "measured.jsonl").touch()
    assert not is_analysis(tmp_path / "unfinished")


def test_analysis_written_by_the_command_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The analysis, the comparison and the report are made by the commands."""
    config = analyzed_config(keep_all=True, max_epochs=2)
    config["data"]["init_args"]["subset"] = 24
    config["trainer"]["callbacks"] = config["trainer"]["callbacks"][-1:]  # no measures
    made = fit(config, tmp_path / "made").path
    few = ["--measures", "Performance,HessianTrace"]
    main(["analyze", str(made), *few, "--out", str(tmp_path / "out" / "x")])
    ends = [str(made / "init.safetensors"), str(made)]
    main(["analyze", "--compare", *ends, *few, "--points", "3", "--out", str(tmp_path / "out" / "y")])
    capsys.readouterr()
    main(["report", str(tmp_path / "out"), "--out", str(tmp_path / "report.html")])
    assert "1 analysis, 1 comparison" in capsys.readouterr().out
    one, two = read_folders([tmp_path / "out"])
    table = pd.read_parquet(tmp_path / "out" / "x" / "analysis.parquet")
    assert len(one.tables[1].rows) == len(table)
    assert [picture.name for picture in one.pictures] == ["trajectories.png"]
    assert len(two.tables) == 3
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 2
    assert "Over checkpoints" in page
    said = [dict(section.facts) for section in (one, two)]
    assert said[0]["command"] == f"lnsgd analyze {made} {' '.join(few)} --out {tmp_path / 'out' / 'x'}"
    assert said[1]["command"].startswith(f"lnsgd analyze --compare {ends[0]} {made} ")
    assert all({"ended", "device", "threads", "versions"} <= set(facts) for facts in said)


BROKEN = {
    "table": ("x/analysis.parquet", b"no", "x/analysis.parquet cannot be read"),
    "differences": ("y/differences.parquet", b"no", "y/differences.parquet cannot be read"),
    "ended": ("x/analysis.json", b"{", "x/analysis.json cannot be read"),
    "picture": ("y/path.png", b"no", "y/path.png is not a PNG"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_file_gives_a_one_line_error(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    analysis(tmp_path / "in" / "x", RUN)
    comparison(tmp_path / "in" / "y")
    file, content, says = BROKEN[name]
    (tmp_path / "in" / file).write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "in"), "--out", str(tmp_path / "page.html")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "page.html").exists()


def test_missing_file_of_a_comparison_is_named(tmp_path: Path) -> None:
    (comparison(tmp_path / "y") / "similarity.parquet").unlink()
    with pytest.raises(ValueError, match=r"y/similarity\.parquet is missing; make it again, or leave this folder out"):
        read_folders([tmp_path])
    pd.DataFrame({"step": [1]}).to_parquet(tmp_path / "y" / "differences.parquet")
    with pytest.raises(ValueError, match=r"y/differences\.parquet has no column 'split'"):
        read_folders([tmp_path])
