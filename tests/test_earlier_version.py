"""Files that lnsgd 0.1.0 wrote (see ``tests/fixtures/README.md``) are read, resumed and reported."""

import json
import shutil
from pathlib import Path

import matplotlib.figure
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lnsgd.cli import main
from lnsgd.records.analyses import read_analysis_table
from lnsgd.records.measures import read_measures
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep import load

FILES = Path(__file__).parent / "fixtures" / "version_0_1_0"

# On a processor that takes sums in another order. With generic code of PyTorch, MKL and Numba instead of AVX-512 the
# weights differed by 3e-7 and the measures by 5e-7, relative to their size.
TOLERANCE = 1e-5


def processor() -> dict[str, str]:
    """Return the properties that determine the order of sums."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    known = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    names = ("vendor_id", "cpu family", "model", "model name")
    kind = {name: known[name] for name in names if name in known}
    return {**kind, "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


@pytest.fixture(scope="module")
def rtol() -> float:
    """0 on the kind of machine that wrote the files."""
    recorded = json.loads((FILES / "machine.json").read_text())
    return 0.0 if Path("/proc/cpuinfo").exists() and processor() == recorded else TOLERANCE


def without_totals(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the totals over activation sites, which version 0.1.0 did not measure."""
    if "layer" in table:
        return table[table.layer != "total"].reset_index(drop=True)
    return table.drop(columns=[name for name in table if "/total" in name])


def copied(source: Path, target: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(source, target)
    return target


@pytest.fixture(scope="module")
def resumed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    """The stopped run, resumed to its end, and the same run as version 0.1.0 ended it."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    run = copied(FILES / kind / "stopped", folder / kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", str(FILES / f"{kind}.yaml"), "--run_dir", str(run), "--ckpt_path", "auto"])
    return RunFolder(run), RunFolder(FILES / kind / "finished")


BOTH = pytest.mark.parametrize("resumed", ["ordinary", "replicated"], indirect=True, ids=str)


@BOTH
def test_a_stopped_run_resumes_to_the_same_weights(resumed, rtol):
    run, finished = resumed
    found, expected = (torch.load(f.last_checkpoint, weights_only=False)["state_dict"] for f in (run, finished))
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol)
    torch.testing.assert_close(load_file(run.init), load_file(finished.init), rtol=0, atol=0)


@BOTH
def test_a_resumed_run_measures_the_same_numbers(resumed, rtol):
    run, finished = resumed
    for read, name in ((read_measures, "measures"), (pd.read_csv, "metrics")):
        found, expected = (read(getattr(folder, name)) for folder in (run, finished))
        found = without_totals(found)
        assert set(found) == set(expected)
        pd.testing.assert_frame_equal(found[expected.columns], expected, check_exact=rtol == 0, rtol=rtol, atol=rtol)
    found, expected = (load_file(folder.path / "spectral_density_train.safetensors") for folder in (run, finished))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol)
    torch.testing.assert_close(load_file(run.firings), load_file(finished.firings), rtol=0, atol=0)


@BOTH
def test_a_resumed_run_ends_for_the_same_reason(resumed):
    run, finished = resumed
    found, expected = (json.loads((folder.path / "finished.json").read_text()) for folder in (run, finished))
    for name in ("epochs", "steps", "stopped_by"):
        assert found[name] == expected[name]
    if (finished.path / "replicas.csv").exists():
        found, expected = (pd.read_csv(folder.path / "replicas.csv") for folder in (run, finished))
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("kept", [False, True], ids=["new-folder", "folder-of-the-earlier-analysis"])
def test_a_finished_run_is_analyzed(tmp_path, monkeypatch, rtol, kept):
    """The measures of its checkpoints are those that version 0.1.0 found."""
    monkeypatch.chdir(tmp_path)
    copied(FILES / "ordinary" / "finished", tmp_path / "ordinary")
    if kept:
        copied(FILES / "analysis", tmp_path / "analysis")
    main(["analyze", "ordinary", "--out", "analysis"])
    found, expected = (read_analysis_table(f / "analysis.parquet") for f in (tmp_path / "analysis", FILES / "analysis"))
    found = without_totals(found)
    pd.testing.assert_frame_equal(found, expected, check_exact=rtol == 0, rtol=rtol, atol=rtol)


def test_a_finished_sweep_has_the_same_table(tmp_path):
    found = load(copied(FILES / "sweep" / "finished", tmp_path / "sweep"))
    expected = pd.read_parquet(FILES / "sweep" / "table.parquet")
    column = "model.net.widths"  # lists, which Parquet gives back as arrays
    assert [list(widths) for widths in found[column]] == [list(widths) for widths in expected[column]]
    pd.testing.assert_frame_equal(found.drop(columns=column), expected.drop(columns=column), check_dtype=False)


def test_a_finished_sweep_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    copied(FILES / "sweep", tmp_path / "sweep")
    table = load(Path("sweep/finished"))
    main(["sweep", "sweep/sweep.yaml", "--out", "sweep/finished"])
    assert "8 cells: 8 done" in capsys.readouterr().out
    pd.testing.assert_frame_equal(load(Path("sweep/finished")), table)


def test_a_report_shows_all_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ordinary", "replicated"):
        copied(FILES / name / "finished", tmp_path / name)
    for name in ("sweep/finished", "analysis", "figure/blanc-single-point"):
        copied(FILES / name, tmp_path / name)
    # Its picture is not among the files.
    matplotlib.figure.Figure(figsize=(0.6, 0.4)).savefig(tmp_path / "figure/blanc-single-point/blanc-single-point.png")
    main(["report", "ordinary", "replicated", "sweep/finished", "analysis", "figure", "--out", "page.html"])
    page = (tmp_path / "page.html").read_text()
    claims = json.loads((FILES / "figure" / "blanc-single-point" / "claims.json").read_text())
    assert len(claims) > 5
    for claim in claims:
        assert claim["claim"] in page
    for text in ("StopAtLoss", "active_fraction", "hessian_trace", "model.net.widths"):
        assert text in page
