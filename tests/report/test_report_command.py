"""The command ``lnsgd report``: the page that it writes, and the folders that it refuses."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from lnsgd.cli import main
from lnsgd.report.find import read_folders
from lnsgd.report.page import ROWS, render
from tests.figures.handmade import handmade_sweep
from tests.report import report_folders

# What a sweep measured over training: cell 0 at step 1.
ONE = [(0, 1, "val", "x", "", 1.0)]


def test_page_is_written_and_its_path_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    report_folders.figure(Path("tiny"))
    report_folders.run(Path("runs/r"))
    main(["report", "tiny", "runs"])
    size = Path("report.html").stat().st_size
    assert capsys.readouterr().out == f"Report: report.html ({size / 1e6:.1f} MB; 1 figure, 1 run)\n"
    main(["report", "tiny", "--out", "new/folder/page.html"])
    assert Path("new/folder/page.html").read_text(encoding="utf-8").lstrip().startswith("<!DOCTYPE html>")
    assert [path.name for path in Path("new/folder").iterdir()] == ["page.html"]


def page_of(*folders: Path) -> str:
    return render(read_folders(folders), datetime.now(UTC))


def test_page_loads_nothing(tmp_path: Path) -> None:
    report_folders.run(tmp_path / "r", config="see: https://example.org/x.js\n")
    page = page_of(report_folders.figure(tmp_path / "tiny"), tmp_path / "r")
    addresses = re.findall(r"\b(?:src|href|srcset|action|poster|background)\s*=\s*\"([^\"]*)", page)
    assert {address.partition(",")[0] for address in addresses if not address.startswith("#")} == {
        "data:image/png;base64"
    }
    assert not re.search(r"url\(|@import|\bimport\s*\(|fetch\(|XMLHttpRequest|<link|<iframe|<object", page)
    assert page.count("https://") == 1  # the text of the config


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    hostile = report_folders.HOSTILE.replace("/", "∕")  # no folder can have a name with a slash
    folder = report_folders.figure(tmp_path / hostile)
    report_folders.run(tmp_path / f'" onload="{hostile}', config=report_folders.HOSTILE)
    handmade_sweep(tmp_path / "swept", [({report_folders.HOSTILE: report_folders.HOSTILE}, {"x": 1.0})], {}, ONE)
    page = page_of(tmp_path)
    assert folder.name not in page
    assert page.count("<script") == 1
    assert page.count("&lt;script&gt;alert(1)") >= 5
    assert '"" onload' not in page
    assert not re.search(r"[\"'] onload=", page)


def test_further_rows_are_hidden_until_the_script_runs(tmp_path: Path) -> None:
    handmade_sweep(tmp_path, [({"i": i}, {"x": 1.5 * i}) for i in range(ROWS + 7)], {}, ONE)
    page = page_of(tmp_path)
    before, waiting = page.split("<template>")
    assert (before.count("<tr><td"), waiting.count("<tr><td")) == (ROWS, 7)
    assert f"The first {ROWS} rows" in before + waiting


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_record(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_claim(path: Path, **fields: object) -> None:
    record = json.loads(path.read_text())
    record["claims"][0] |= fields
    path.write_text(json.dumps(record))


Break = Callable[[Path], object]

BROKEN: dict[str, tuple[Break, tuple[str, ...]]] = {
    "claims": (lambda at: damage(at / "tiny/claims.json"), ("tiny/claims.json cannot be read",)),
    "claims-no-list": (
        lambda at: (at / "tiny/claims.json").write_text("{}"),
        ("tiny/claims.json", "no list of claims"),
    ),
    "claims-version": (
        lambda at: change_record(at / "tiny/claims.json", version=99),
        ("tiny/claims.json", "its version is 99"),
    ),
    "provenance": (
        lambda at: change_record(at / "tiny/claims.json", provenance={"seconds": "long"}),
        ("tiny/claims.json", "its seconds is 'long'"),
    ),
    "claim-no-object": (lambda at: (at / "tiny/claims.json").write_text("[1]"), ("claim 1", "fields claim, source")),
    "claim-field": (lambda at: change_claim(at / "tiny/claims.json", extra=1), ("claim 1", "fields claim, kind")),
    "claim-type": (lambda at: change_claim(at / "tiny/claims.json", n="five"), ("claim 1", "n = 'five'")),
    "verdict-type": (lambda at: change_claim(at / "tiny/claims.json", verdict="no"), ("claim 1", "verdict = 'no'")),
    "verdict-by-hand": (
        lambda at: change_claim(at / "tiny/claims.json", verdict="fails"),
        ("claim 1 has verdict = 'fails'", "'holds' follows from its interval and bounds"),
    ),
    "interval": (
        lambda at: change_claim(at / "tiny/claims.json", interval=[1, True]),
        ("claim 1", "interval = [1, True]"),
    ),
    "claim-kind": (lambda at: change_claim(at / "tiny/claims.json", kind="ours"), ("claim 1", "kind = 'ours'")),
    "claim-n": (lambda at: change_claim(at / "tiny/claims.json", n=0), ("claim 1", "n = 0")),
    "claim-large": (lambda at: change_claim(at / "tiny/claims.json", n=10**400), ("claim 1", "n above 1e+18")),
    "measured-bool": (lambda at: change_claim(at / "tiny/claims.json", measured=True), ("claim 1", "measured = True")),
    "picture-missing": (lambda at: (at / "tiny/tiny.png").unlink(), ("tiny/tiny.png is missing",)),
    "picture-damaged": (lambda at: (at / "tiny/tiny.png").write_text("no"), ("tiny/tiny.png is not a PNG",)),
    "settings": (lambda at: (at / "tiny/settings.json").write_text("["), ("tiny/settings.json cannot be read",)),
    "settings-no-object": (
        lambda at: (at / "tiny/settings.json").write_text("[]"),
        ("tiny/settings.json", "holds list"),
    ),
    "measures": (lambda at: damage(at / "r/measures.parquet"), ("r/measures.parquet cannot be read",)),
    "measures-column": (
        lambda at: pd.DataFrame({"step": [1]}).to_parquet(at / "r/measures.parquet"),
        ("r/measures.parquet has no column 'epoch'",),
    ),
    "finished": (lambda at: damage(at / "r/finished.json"), ("r/finished.json cannot be read",)),
    "finished-type": (lambda at: (at / "r/finished.json").write_text('{"steps": "x"}'), ("its steps is 'x'",)),
    "ended": (lambda at: (at / "r/finished.json").write_text('{"ended": "noon"}'), ("its ended is 'noon'",)),
    "ended-type": (lambda at: (at / "r/finished.json").write_text('{"ended": 12}'), ("its ended is 12",)),
    "replicas": (lambda at: (at / "r/replicas.csv").write_text("replica,seed\nx,1\n"), ("r/replicas.csv", "number")),
    "replicas-column": (lambda at: (at / "r/replicas.csv").write_text("a\n1\n"), ("no column 'replica'",)),
    "metrics": (lambda at: (at / "r/metrics.csv").write_text(""), ("r/metrics.csv cannot be read",)),
    "metrics-steps": (lambda at: (at / "r/metrics.csv").write_text("step,x\na,1\n"), ("r/metrics.csv has steps",)),
    "config": (lambda at: (at / "r/config.yaml").write_bytes(b"\xff"), ("r/config.yaml cannot be read",)),
    "run-picture": (
        lambda at: (at / "r/figures/replica0/firings.png").write_bytes(b"\x89PNG\r\n\x1a\n"),
        ("replica0/firings.png is not a PNG",),
    ),
    "planned": (lambda at: damage(at / "swept/planned.parquet"), ("swept/planned.parquet cannot be read",)),
    "piece": (lambda at: damage(at / "swept/cells/one.parquet"), ("swept/cells/one.parquet cannot be read",)),
    "piece-columns": (
        lambda at: pd.DataFrame({"cell": ["cell0"]}).to_parquet(at / "swept/cells/one.parquet"),
        ("the tables in", "swept do not fit together"),
    ),
    "trajectories": (lambda at: damage(at / "swept/trajectories/one.parquet"), ("trajectories/one.parquet cannot be",)),
    "sweep-file": (lambda at: (at / "swept/sweep.yaml").write_text("{"), ("swept/sweep.yaml cannot be read",)),
}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a figure, a run and a sweep into one folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LNSGD_DEBUG", raising=False)
    report_folders.figure(tmp_path / "in" / "tiny")
    report_folders.run(tmp_path / "in" / "r")
    handmade_sweep(tmp_path / "in" / "swept", [({"lr": 0.1}, {"x": 1.0})], {}, ONE)
    return tmp_path / "in"


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of a command that ends with 2 and writes nothing."""
    with pytest.raises(SystemExit) as ended:
        main(["report", *args])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lnsgd: error: ")
    assert [path.name for path in Path().iterdir() if path.suffix != ""] == []
    return line


def test_unbroken_folders_are_shown(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(folders)])
    assert "1 run, 1 sweep, 1 figure" in capsys.readouterr().out


@pytest.mark.parametrize(("breaks", "says"), BROKEN.values(), ids=BROKEN)
def test_damaged_file(folders: Path, capsys: pytest.CaptureFixture[str], breaks: Break, says: tuple[str, ...]) -> None:
    breaks(folders)
    line = refused([str(folders)], capsys)
    assert [part for part in says if part not in line] == []


def test_folder_without_results_is_refused(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "empty").mkdir()
    assert "empty holds nothing to report; give folders" in refused([str(folders), str(folders / "empty")], capsys)
    assert "nowhere is not a folder; give" in refused(["nowhere"], capsys)
    assert "--help" in refused([], capsys)


def test_unwritable_output_is_refused(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--out {folders} is a folder; give a file" in refused([str(folders), "--out", str(folders)], capsys)
    out = folders / "r" / "config.yaml" / "report.html"
    assert "cannot write to" in refused([str(folders), "--out", str(out)], capsys)


def test_old_page_is_kept_after_an_error(folders: Path) -> None:
    Path("page").write_text("old")
    damage(folders / "tiny" / "claims.json")
    with pytest.raises(SystemExit):
        main(["report", str(folders), "--out", "page"])
    assert Path("page").read_text() == "old"
