"""The plots of the saved view show the names that real runs log."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import wandb

from lnsgd.cli import main
from tests.loggers.wandb.offline_runs import SMALL, isolate, merged_history

SCRIPT = Path(__file__).parents[1] / "scripts" / "wandb_workspace.py"
CURVATURE = [
    *("--trainer.callbacks+", "lnsgd.callbacks.TopEigenvalues"),
    *("--trainer.callbacks+", "lnsgd.callbacks.ImplicitRegularizer"),
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wandb_workspace", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def view(script: ModuleType) -> dict[str, Any]:
    """Return what is sent to W&B to save the view."""
    pytest.importorskip("wandb_workspaces")
    return json.loads(script.workspace("me", "lnsgd", [])._to_model().model_dump_json(by_alias=True))


def panels(view: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the settings of the plots, by section."""
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: [panel["config"] for panel in section["panels"]] for section in sections}


def names_logged(folder: Path, *options: str) -> set[str]:
    """Return the names of all numbers that are logged over an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        patch.setenv("WANDB_SILENT", "true")
        main(["fit", *SMALL, "--run_dir", "run", "--trainer.max_epochs", "1", *options])
        wandb.teardown()
        rows = merged_history(folder / "run").values()
        return {name for row in rows for name, value in row.items() if isinstance(value, int | float)}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    groups = ["--replicas.seeds", "2", "--replicas.noise", "[0.0,0.1]"]
    yield {
        "alone": names_logged(tmp_path_factory.mktemp("alone"), *CURVATURE),
        "seeds": names_logged(tmp_path_factory.mktemp("seeds"), *CURVATURE, "--replicas.seeds", "2"),
        "groups": names_logged(tmp_path_factory.mktemp("groups"), *groups),
    }


def matched(panel: dict[str, Any], names: set[str]) -> set[str]:
    return {name for name in names if re.search(panel["metricRegex"], name)}


def test_sections(view: dict[str, Any]) -> None:
    assert list(panels(view)) == ["Sparsity", "Class association", "Distance", "Curvature", "Training"]


def test_every_plot_shows_something_that_a_run_logs(view: dict[str, Any], logged: dict[str, set[str]]) -> None:
    for section in panels(view).values():
        for panel in section:
            assert matched(panel, logged["alone"]), f"{panel['chartTitle']}: {panel['metricRegex']}"


def test_every_plot_shows_means_that_a_replicated_run_logs(view: dict[str, Any], logged: dict[str, set[str]]) -> None:
    """The replicas of this run are not validated."""
    of_one_run = ("Training accuracy, clean labels", "Validation loss", "Validation accuracy")
    for section in panels(view).values():
        for panel in section:
            if panel["chartTitle"] in of_one_run:
                continue
            found = matched(panel, logged["seeds"])
            assert found and all(number.endswith("/mean") for number in found), panel["metricRegex"]


def test_plots_of_a_run_show_one_line_for_a_number(view: dict[str, Any], logged: dict[str, set[str]]) -> None:
    """A plot shows the one site of this network and the total over sites, without standard errors and parts."""
    for section in panels(view).values():
        for panel in section:
            found = {name for name in matched(panel, logged["alone"]) if not name.endswith("/total")}
            assert len(found) == 1, panel["metricRegex"]


def test_plots_of_replicas_show_the_mean_of_each_group(view: dict[str, Any], logged: dict[str, set[str]]) -> None:
    (distance,) = panels(view)["Distance"]
    assert matched(distance, logged["groups"]) == {f"distance_from_init/noise={p}/mean" for p in ("0.0", "0.1")}
    assert matched(distance, logged["seeds"]) == {"distance_from_init/mean"}


def test_lines_are_means_with_bands_over_the_steps_of_training(view: dict[str, Any]) -> None:
    for section in panels(view).values():
        for panel in section:
            assert panel["xAxis"] == "trainer/global_step"
            assert (panel["groupAgg"], panel["groupArea"]) == ("mean", "stddev")
            assert panel["useMetricRegex"] is True


def test_runs_are_grouped_by_arm(view: dict[str, Any], script: ModuleType) -> None:
    def grouping(found: dict[str, Any]) -> list[tuple[str, str]]:
        (runset,) = found["spec"]["section"]["runSets"]
        return [(key["section"], key["name"]) for key in runset["grouping"]]

    assert grouping(view) == [("run", "group"), ("run", "tags")]
    other = script.workspace("me", "lnsgd", ["data.init_args.subset"])._to_model()
    assert grouping(json.loads(other.model_dump_json(by_alias=True))) == [("config", "data.value.init_args.subset")]


BAD = {"no-entity": (["lnsgd"], "'lnsgd' is no project"), "no-key": (["me/lnsgd"], "does not take the view")}


@pytest.mark.parametrize(("args", "says"), BAD.values(), ids=BAD)
def test_bad_input_ends_with_exit_code_2(
    script: ModuleType,
    args: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    isolate(monkeypatch, tmp_path)
    with pytest.raises(SystemExit) as ended:
        script.main(args)
    wandb.teardown()  # what it has started knows this environment
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
