"""Running the arms of a figure that are sweeps."""

import json
from pathlib import Path

import pytest
import yaml

from lnsgd.figures.framework.figure import Figure, Scale
from lnsgd.figures.framework.summary import claims_record, write_summary
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep import load
from tests.figures.handmade import handmade_sweep
from tests.figures.nagarajan.nagarajan_cells import cell
from tests.figures.tiny import run, swept_figure


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Figure, Path, dict[str, RunFolder]]:
    """The figure, its folder and its arms, trained once."""
    folder = tmp_path_factory.mktemp("swept")
    figure = swept_figure(folder)
    return figure, folder / "out", run(figure, folder / "out")


def test_every_cell_is_trained_once(done):
    _, out, runs = done
    assert list(runs) == ["p = 0"]
    table = load(out / "p_0")
    assert table.status.tolist() == ["done"] * 8
    settings = table[["model.net.widths", "data.subset", "seed_everything"]].to_numpy().tolist()
    assert settings == [[[6, h, 1], m, seed] for h in (4, 8) for m in (10, 20) for seed in (0, 1)]
    assert table.steps.tolist() == [20] * 8


def test_the_sweep_is_kept_as_a_file(done):
    figure, out, _ = done
    assert yaml.safe_load((out / "p_0.yaml").read_text()) == {
        "base": str(figure.config_path("p = 0")),
        "options": {"model.label_noise.p": "0"},
        "grid": {"model.net.widths": [[6, 4, 1], [6, 8, 1]], "data.subset": [10, 20]},
        "seeds": 2,
    }
    assert (out / "p_0" / "sweep.yaml").read_text() == (out / "p_0.yaml").read_text()


def test_a_second_call_trains_nothing(done):
    figure, out, runs = done
    before = {path: path.stat().st_mtime_ns for path in (out / "p_0").rglob("*") if path.is_file()}
    again = run(figure, out)
    assert {arm: folder.path for arm, folder in again.items()} == {arm: folder.path for arm, folder in runs.items()}
    assert {path: path.stat().st_mtime_ns for path in (out / "p_0").rglob("*") if path.is_file()} == before


def test_another_grid_is_refused(done):
    figure, out, _ = done
    other = swept_figure(out.parent, scales={"ci": Scale(seeds=2, grids={"p = 0": {"data.subset": [20]}})})
    with pytest.raises(ValueError, match="holds runs with other settings"):
        run(other, out)
    assert run(figure, out)


def test_a_failed_cell_is_an_error_that_says_why(tmp_path):
    grids = {"p = 0": {"model.net.widths": [[6, 4, 1], [7, 4, 1]]}}
    figure = swept_figure(tmp_path, scales={"ci": Scale(seeds=1, grids=grids)})
    with pytest.raises(ValueError, match=r"^1 of 2 cells failed: .*; see lnsgd table .*p_0$"):
        run(figure, tmp_path / "out", seeds=1)
    assert not (tmp_path / "out" / "p_0" / "finished.json").exists()
    assert sorted(load(tmp_path / "out" / "p_0").status) == ["done", "failed"]


def test_an_interrupted_sweep_ends_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("lnsgd.sweep.run.run_sweep", lambda *args, **options: False)
    figure = swept_figure(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(figure, tmp_path / "out")
    assert ended.value.code == 75
    assert not (tmp_path / "out" / "p_0" / "finished.json").exists()


def test_grids_at_one_scale_only_are_refused(tmp_path):
    with pytest.raises(ValueError, match="give grids at all scales, or at none"):
        swept_figure(tmp_path, scales={"ci": Scale(seeds=1, grids={"p = 0": {"data.subset": [20]}}), "paper": Scale(3)})


def test_arms_at_a_scale_are_those_with_a_grid(tmp_path):
    figure = swept_figure(tmp_path)
    assert figure.swept
    assert [figure.arms_at(scale) for scale in ("ci", "paper")] == [["p = 0"], ["p = 0", "p = 0.5"]]


def test_summary_says_how_many_jobs_ran(tmp_path):
    runs = {"a": handmade_sweep(tmp_path / "a", [cell(40, 64, 0, 1.0)])}
    runs["b"] = handmade_sweep(tmp_path / "b", [cell(40, 64, 0, 1.0)])
    write_summary(claims_record(swept_figure(tmp_path), "ci", 2, runs, []), tmp_path / "summary.md")
    assert "--seeds 2`, 9 s in 6 jobs on abacus, 2 at a time (lnsgd" in (tmp_path / "summary.md").read_text()


def test_seconds_are_those_of_all_jobs(done):
    _, out, _ = done
    ended = json.loads((out / "p_0" / "finished.json").read_text())
    assert ended["seconds"] == pytest.approx(load(out / "p_0").seconds.sum(), abs=0.05)
    assert ended["jobs"] == load(out / "p_0").job.nunique()
