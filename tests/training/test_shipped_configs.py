"""Configs that ship with lnsgd are found by name, wherever the command runs."""

from pathlib import Path

import pytest

from lnsgd.cli import main
from lnsgd.training.shipped_configs import config_path, shipped_configs, with_config_paths

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_config_of_a_run_has_a_name() -> None:
    others = {CONFIGS / "figures", CONFIGS / "sweeps"}
    files = {path for path in CONFIGS.rglob("*.yaml") if not others & set(path.parents)}
    assert {path.resolve() for path in shipped_configs().values()} == files
    assert {"mnist", "trainer/ddp", "debug/mnist_sample"} <= set(shipped_configs())


def test_file_comes_before_a_shipped_config_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_path("mnist").resolve() == CONFIGS / "mnist.yaml"
    Path("mnist").write_text("trainer: {}")
    assert config_path("mnist") == Path("mnist")


def test_names_become_paths_in_each_spelling() -> None:
    path = str(shipped_configs()["mnist"])
    given = ["fit", "--config", "mnist", "-c", "mnist", "--config=mnist", "--data.source", "mnist"]
    assert with_config_paths(given) == [
        "fit",
        "--config",
        path,
        "-c",
        path,
        f"--config={path}",
        "--data.source",
        "mnist",
    ]


def test_misspelled_name_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "minst"])
    assert ended.value.code == 2
    assert "--config minst does not exist" in (said := capsys.readouterr().err)
    assert "did you mean mnist?" in said


def test_run_and_sweep_start_by_name_outside_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["--data.subset", "100", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    main(["fit", "--config", "debug/mnist_sample", *quick])
    assert [path.name for path in Path("runs").iterdir()] == ["mnist_sample"]
    main(["sweep", "mnist-sample", "--dry-run"])
    assert "12 cells" in capsys.readouterr().out
