"""Resolved configs of cells equal those of ``lnsgd fit`` with the same options."""

from pathlib import Path

import pytest
import yaml

from lnsgd.cli import main
from lnsgd.sweep.cells import leaves
from lnsgd.sweep.config_reader import ConfigReader, fit_arguments
from lnsgd.sweep.grid import read_sweep
from tests.sweep.small_sweeps import write_sweep


def reader(folder: Path, **given) -> ConfigReader:
    return ConfigReader(read_sweep(write_sweep(folder, **given)))


def test_resolved_config_equals_the_config_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = read_sweep(write_sweep(tmp_path, options={"trainer.max_steps": 2}, seeds=[0, 3]))
    options = {"model.net.widths": [784, 5, 10], "model.loss": "CrossEntropy", "seed_everything": 3}
    main(["fit", *fit_arguments(sweep, options), "--run_dir", "run"])
    of_run = leaves(yaml.safe_load(Path("run/config.yaml").read_text()))
    resolved = ConfigReader(sweep)(options)
    linked = {"model.init_args.seed": 3, "data.init_args.seed": 3}  # follow from the seed
    assert leaves(resolved) == linked | {path: of_run[path] for path in of_run if path not in ("run_dir", "ckpt_path")}


def test_config_of_missing_data_is_resolved(tmp_path):
    """The run itself reports the missing data, in the row of its cell."""
    options = {"data.data_dir": "/nowhere", "data.source": "full", "trainer.max_steps": 7}
    assert reader(tmp_path)(options)["trainer"]["max_steps"] == 7


REFUSED = {
    "unknown-option": ({"model.net.width": [3]}, "no option 'width'"),
    "wrong-type": ({"trainer.max_steps": "many"}, "trainer.max_steps = many: expected int"),
    "unknown-class": ({"model.loss": "Logistc"}, "Logistc"),
    "seed": ({"seed_everything": -1}, "seed_everything = -1"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_options_refused_by_fit_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match="small: ") as refused:
        reader(tmp_path)(options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_replicas_in_a_sweep_are_refused(tmp_path):
    with pytest.raises(ValueError, match="leave them out of its base config"):
        reader(tmp_path)({"replicas.seeds": 3})


def test_options_of_all_cells_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"no option --trainer\.max_stps"):
        reader(tmp_path, options={"trainer.max_stps": 3})({})
