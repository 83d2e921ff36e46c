"""What ``lnsgd fit`` prints at the end of a run, compared with the files of the run."""

import contextlib
import io
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from lnsgd.cli import main
from lnsgd.records.provenance import Provenance, write_provenance
from lnsgd.runs.folder import RunFolder
from lnsgd.training import train
from lnsgd.training.end_screen import end_screen
from tests.small_config import instance, small_config, write_config

MEASURES = [
    instance("lnsgd.callbacks.ActiveNeurons"),
    instance("lnsgd.callbacks.ClassAssociation"),
    instance("lnsgd.callbacks.DistanceFromInit"),
    instance("lnsgd.callbacks.HessianTrace", every_n_epochs=2),
]
HEADS = ["active", "associated", "distance", "trace", "val", "accuracy"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("end-screen")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_config(folder / "small.yaml", small_config(callbacks=MEASURES))
        yield folder


@pytest.fixture(scope="module")
def printed(folder: Path) -> list[str]:
    """Return what the command prints at the end of a run in the folder ``run``."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        main(["fit", "--config", "small.yaml", "--run_dir", "run"])
    lines = text.getvalue().splitlines()
    return lines[lines.index("The run is in run") :]


def value(run: Path, step: int, measure: str, layer: str = "total", column: str = "value") -> float:
    table = pd.read_parquet(run / "measures.parquet")
    chosen = table[(table.step == step) & (table.measure == measure) & (table.layer == layer) & (table.split != "val")]
    return float(chosen[column].item())


def close(text: str, number: float) -> bool:
    """Whether a printed number is another one, rounded to four digits or more."""
    return math.isclose(float(text.replace("−", "-")), number, rel_tol=1e-3, abs_tol=1e-9)


def test_end_of_a_run_is_shown_against_its_start(folder: Path, printed: list[str]) -> None:
    assert len(printed) == 6
    assert max(map(len, printed)) <= 80
    assert printed[1].split() == HEADS
    run = folder / "run"
    for line, step in ((printed[2], 0), (printed[3], 15)):
        label, at, active, associated, distance, trace, _, error, accuracy = line.split()
        assert (label, int(at)) == ("step", step)
        assert close(active, value(run, step, "active_fraction"))
        assert float(associated) == value(run, step, "associated_count")
        assert close(distance, value(run, step, "distance_from_init", ""))
        assert math.isclose(float(trace), value(run, step, "hessian_trace", ""), abs_tol=float(error) / 10)
        assert math.isclose(float(error), value(run, step, "hessian_trace", "", "stderr"), rel_tol=0.05)
        assert step == 0 or close(accuracy, pd.read_csv(run / "metrics.csv")["val/accuracy"].dropna().iloc[-1])


def test_number_that_was_not_measured_at_the_end_says_when(folder: Path, printed: list[str]) -> None:
    shutil.copytree(folder / "run", folder / "earlier")
    table = pd.read_parquet(folder / "run" / "measures.parquet")
    table[(table.measure != "hessian_trace") | (table.step < 15)].to_parquet(folder / "earlier" / "measures.parquet")
    head, _, end, *_ = end_screen(RunFolder(Path("earlier")), 80)
    assert "trace (step 10)" in head
    earlier = value(folder / "run", 10, "hessian_trace", "")
    assert math.isclose(float(end.split()[5]), earlier, rel_tol=1e-3)


def test_last_lines_say_what_to_do_next(folder: Path, printed: list[str]) -> None:
    assert printed[4] == "measure more:   lnsgd analyze run; lnsgd report run"
    assert printed[5] == "train further:  lnsgd fit --resume run --trainer.max_epochs 6"
    shutil.copytree(folder / "run", folder / "copy")
    main(printed[5].replace(" run ", " copy ").split()[3:])
    assert pd.read_csv(folder / "copy" / "metrics.csv").step.max() == 30


def test_nothing_is_shown_where_there_was_nothing_to_do(printed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--resume", "run"])
    assert capsys.readouterr().out == "The run in run has reached its end already\n"


def test_runs_of_sweeps_and_figures_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    train(["fit", "--config", "small.yaml", "--run_dir", "part", "--trainer.max_steps", "1"])
    assert capsys.readouterr().out.splitlines()[-1] == "The run is in part"


def test_columns_without_room_are_left_out_whole(printed: list[str]) -> None:
    lines = end_screen(RunFolder(Path("run")), width=45)
    assert [line.split() for line in lines[:3]] == [line.split()[:n] for line, n in zip(printed[1:4], (3, 5, 5))]


def test_run_that_a_rule_has_stopped_is_not_to_be_resumed(folder: Path, printed: list[str]) -> None:
    shutil.copytree(folder / "run", folder / "stopped")
    run = RunFolder(Path("stopped"))
    write_provenance(Provenance(steps=15, epochs=3, stopped_by="StopAtLoss"), run.finished)
    assert len(end_screen(run, 80)) == 4


def test_replicas_are_shown_by_mean_and_deviation(folder: Path) -> None:
    main(["fit", "--config", "small.yaml", "--run_dir", "replicas", "--replicas.seeds", "3"])
    lines = end_screen(RunFolder(Path("replicas")), 100)
    assert lines[0].startswith("mean ± std ")
    table = pd.read_parquet(folder / "replicas" / "measures.parquet")
    at_end = table[(table.step == 15) & (table.measure == "active_fraction") & (table.layer == "total")]
    active = at_end[at_end.split == "train"].value
    assert len(active) == 3
    mean, _, std = lines[2].split()[2:5]
    assert math.isclose(float(std), active.std(ddof=1), rel_tol=0.05)
    assert math.isclose(float(mean), active.mean(), abs_tol=float(std) / 10)


def test_replicas_of_several_settings_have_no_common_mean() -> None:
    main(["fit", "--config", "small.yaml", "--run_dir", "grid", "--replicas.noise=[0.0,0.5]"])
    lines = end_screen(RunFolder(Path("grid")), 80)
    assert [line.partition(":")[0] for line in lines] == ["measure more", "train further"]
