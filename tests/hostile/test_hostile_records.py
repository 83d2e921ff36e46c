"""Untrusted runs, sweeps and figures: a report of them stays small, contains no code and reads only their folders."""

import json
import os
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lnsgd.cli import main
from lnsgd.figures.framework.claims import judge
from lnsgd.figures.framework.statements import Statement
from lnsgd.records.jobs import Attempts, JobSpec
from lnsgd.report.figure_section import read_figure
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.job_result import write_result
from lnsgd.sweep.table import load, load_trajectories
from lnsgd.untrusted.tables import read_arrow, read_parquet, read_record
from tests.figures.handmade import handmade_sweep
from tests.hostile.guarded import guarded
from tests.report import report_folders

ROW = [(0, 1, "val", "x", "", 1.0)]


def repeated(value: object, rows: int, **columns: object) -> pa.Table:
    """Make a table with one value in all rows, which takes hardly any space on disk."""
    indices = pa.array(np.zeros(rows, dtype=np.int32))
    return pa.table({"cell": pa.DictionaryArray.from_arrays(indices, pa.array([value])), **columns})


def write_rows(path, groups: int) -> None:
    """Write groups of ten million rows."""
    table = repeated(1.0, 10_000_000)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(groups):
            writer.write_table(table)


BOMBS = {
    "rows": (lambda path: write_rows(path, 3), "30,000,000 rows of 1 columns"),
    "texts": (lambda path: pq.write_table(repeated("x" * 1_000_000, 1_000_000), path, compression="zstd"), "its texts"),
    "nested": (
        lambda path: pq.write_table(pa.table({"cell": [[1, 2]] * 3}), path),
        "the column 'cell' holds nested tables",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_table_that_grows_in_memory_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr("lnsgd.untrusted.tables._MAX_FIELDS", 20_000_000)  # writing more takes too long for a test
    write, reason = BOMBS[name]
    path = tmp_path / "x.parquet"
    write(path)
    assert path.stat().st_size < 1 << 20
    for read in (read_parquet, read_arrow):
        with pytest.raises(ValueError, match=reason) as raised, guarded():
            read(path)
        assert str(raised.value).startswith(str(path))


def test_pickled_type_in_a_table_is_not_unpickled(tmp_path):
    """CVE-2023-47248: Arrow used to make types from pickles in the file."""
    bomb = b"cos\nsystem\n(X\x09\x00\x00\x00touch rantR."
    field = pa.field("cell", pa.int64(), metadata={
        b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb,
    })  # fmt: skip
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1])], schema=pa.schema([field])), path)
    with guarded():
        read_parquet(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.parquet"]


KINDS = {"pipe": lambda path: os.mkfifo(path), "device": lambda path: path.symlink_to("/dev/zero")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["finished.json", "metrics.csv", "measures.parquet", "config.yaml", "replicas.csv"])
def test_run_with_a_pipe_or_device_is_refused(tmp_path, capsys, name, kind):
    """Reading it would never end."""
    run = report_folders.run(tmp_path / "r")
    path = run.path / name
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    with pytest.raises(SystemExit) as ended, guarded():
        main(["report", str(run.path), "--out", str(tmp_path / "report.html")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "r/" + name in line
    assert not (tmp_path / "report.html").exists()


def test_figure_reads_no_picture_from_another_folder(tmp_path):
    report_folders.png(tmp_path / "private.png")
    folder = report_folders.figure(tmp_path / "tiny")
    for name in ("../private", str(tmp_path / "private")):
        (folder / "settings.json").write_text(json.dumps({"figure": name}))
        with pytest.raises(ValueError, match=r"tiny/private\.png is missing"):
            read_figure(folder)


def test_sweep_reads_no_table_from_another_folder(tmp_path):
    folder = tmp_path / "swept"
    handmade_sweep(folder, [({"a": 1}, {"x": 1.0})], {}, ROW)
    sweep = SweepFolder(folder)
    pd.DataFrame({"cell": load(folder).cell, "step": [99]}).to_parquet(tmp_path / "private.parquet")
    result = sweep.result("one")
    pd.read_parquet(result).assign(job="../../private").to_parquet(result)
    assert load_trajectories(folder).empty


def test_contradicting_tables_are_named(tmp_path, capsys):
    """An option has the name of a measure."""
    handmade_sweep(tmp_path / "swept", [({"x": n, "b": n}, {"x": 1.0}) for n in range(2)], {1: "failed"}, ROW)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path), "--out", str(tmp_path / "report.html")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "swept") in line


BROKEN = {
    "job-cut": ("jobs/a.json", '{"name"', lambda sweep: sweep.read_job("a")),
    "job-list": ("jobs/a.json", "[]", lambda sweep: sweep.read_job("a")),
    "job-key": ("jobs/a.json", '{"cells": [], "evil": 1}', lambda sweep: sweep.read_job("a")),
    "job-cells": ("jobs/a.json", '{"cells": [1]}', lambda sweep: sweep.read_job("a")),
    "attempts-cut": ("attempts/a.json", "", lambda sweep: sweep.read_attempts("a")),
    "attempts-text": ("attempts/a.json", '{"starts": "x", "errors": []}', lambda sweep: sweep.read_attempts("a")),
    "planned": ("planned.parquet", "PAR1", lambda sweep: load(sweep.path)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_file_of_a_sweep_is_named(tmp_path, name):
    file, content, read = BROKEN[name]
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(ValueError, match=file) as raised, guarded():
        read(SweepFolder(tmp_path))
    assert len(str(raised.value).splitlines()) == 1


def test_damaged_record_of_a_run_makes_no_result(tmp_path):
    """A partial result would count as a complete cell."""
    handmade_sweep(tmp_path, [({"a": 1}, {"x": 1.0})], {}, ROW)
    sweep = SweepFolder(tmp_path)
    run = RunFolder(sweep.run("two").path)
    run.path.mkdir(parents=True)
    run.finished.write_text('{"steps": "many"}')
    spec = JobSpec("two", [("c", {})], {}, [], False, "")
    with pytest.raises(ValueError, match=r"two/finished\.json cannot be read \(its steps is 'many'\)"):
        write_result(sweep, spec, Attempts([0]))
    assert not sweep.result("two").exists()


@pytest.mark.parametrize("value", ["true", '"1"', "null", "[1]"])
def test_field_of_another_type_is_named(tmp_path, value):
    (tmp_path / "x.json").write_text(f'{{"steps": {value}}}')
    with pytest.raises(ValueError, match=r"x\.json cannot be read \(its steps is"):
        read_record(tmp_path / "x.json", {"steps": int})


# -- the page

PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style></pre></td><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" data-evil="',
    "' onfocus='alert(1)' autofocus='",
    "<svg/onload=alert(1)>",
    "<a href=\"javascript:alert(1)\">x</a>",
    "{{ 7 * 7 }}{% for x in y %}",
    "<base href=//evil.example><meta http-equiv=refresh content=0>",
    "]]><!--",
    "\u202egnp.exe\u2028\x85",
)  # fmt: skip


class Page(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_content_of_files_is_escaped_in_the_page(tmp_path, payload):
    """Claims, names, configs, columns, options, reasons, measures, layers, versions, devices and summaries."""
    name = payload.replace("/", "∕")  # no folder can have a name with a slash
    statement = Statement(payload, payload, payload, payload)
    claim = judge("c", payload, statement, paper=payload, measured=[0.5, 0.5], high=0.1, why=payload)
    folder = report_folders.figure(tmp_path / f"f{name}", [claim])
    summary = folder / "summary.md"
    summary.write_text(summary.read_text().replace("Nothing much.", payload))
    (folder / "settings.json").write_text(
        json.dumps({"figure": "tiny", "scale": payload, "configs": {payload: payload}, "arms": {payload: [payload]}})
    )
    run = report_folders.run(tmp_path / f"r{name}", config=f"a: {payload}\n")
    table = pd.read_parquet(run.measures)
    table.assign(measure=payload, layer=payload, split=payload).to_parquet(run.measures)
    run.metrics.write_text(pd.DataFrame({"step": [1, 2], payload: [1.0, 2.0]}).to_csv(index=False))
    run.finished.write_text(
        json.dumps({"steps": 1, "device": payload, "versions": {payload: payload}, "stopped_by": payload})
    )
    cells = [({payload: payload, "b": n}, {f"{payload} measure": 1.0}) for n in range(2)]
    handmade_sweep(tmp_path / f"s{name}", cells, {1: "failed"}, ROW)
    out = tmp_path / "report.html"
    main(["report", str(tmp_path), "--out", str(out)])
    page = Page(out.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == tags.count("style") == 1
    assert not {"iframe", "object", "embed", "link", "base"} & set(tags)
    for tag, attributes in page.elements:
        assert not [attribute for attribute in attributes if attribute.startswith("on")], (tag, attributes)
        assert "data-evil" not in attributes
        for attribute in ("src", "href"):
            if (address := attributes.get(attribute)) is not None:
                assert address.startswith(("data:image/png;base64,", "#")), (tag, attributes)
        assert tag != "meta" or attributes.get("http-equiv") in (None, "Content-Security-Policy")
