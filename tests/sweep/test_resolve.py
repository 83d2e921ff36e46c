"""Resolved configs of cells: those that ``lnsgd fit`` has with the same options."""

from pathlib import Path

import pytest
import yaml

from lnsgd.cli import main
from lnsgd.sweep.cells import leaves
from lnsgd.sweep.grid import read_sweep
from lnsgd.sweep.resolve import ConfigReader, arguments
from tests.sweep.small_sweeps import write_sweep


def reader(folder: Path, **given) -> ConfigReader:
    return ConfigReader(read_sweep(write_sweep(folder, **given)))


def test_it_is_the_config_that_a_run_leaves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = read_sweep(write_sweep(tmp_path, options={"trainer.max_steps": 2}, seeds=[0, 3]))
    options = {"model.net.widths": [784, 5, 10], "model.loss": "CrossEntropy", "seed_everything": 3}
    main(["fit", *arguments(sweep, options), "--run_dir", "run"])
    left = leaves(yaml.safe_load(Path("run/config.yaml").read_text()))
    resolved = ConfigReader(sweep)(options)
    linked = {"model.init_args.seed": 3, "data.init_args.seed": 3}  # follow from the seed
    assert leaves(resolved) == linked | {path: left[path] for path in left if path not in ("run_dir", "ckpt_path")}


def test_reading_does_not_wait_for_a_run_to_be_possible(tmp_path):
    """Data that is not there is found out by the run, with a row that says so."""
    options = {"data.data_dir": "/nowhere", "data.source": "full", "trainer.max_steps": 7}
    assert reader(tmp_path)(options)["trainer"]["max_steps"] == 7


REFUSED = {
    "unknown-option": ({"model.net.width": [3]}, "no option 'width'"),
    "wrong-type": ({"trainer.max_steps": "many"}, "trainer.max_steps = many: expected int"),
    "unknown-class": ({"model.loss": "Logistc"}, "Logistc"),
    "seed": ({"seed_everything": -1}, "seed_everything = -1"),
}


@pytest.mark.parametrize(("options", "says"), REFUSED.values(), ids=REFUSED)
def test_what_fit_refuses_is_refused(options, says, tmp_path):
    with pytest.raises(ValueError, match="small: ") as refused:
        reader(tmp_path)(options)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_replicas_are_the_sweeps_own_business(tmp_path):
    with pytest.raises(ValueError, match="leave them out of its base"):
        reader(tmp_path)({"replicas.seeds": 3})


def test_an_option_of_all_cells_is_checked_too(tmp_path):
    with pytest.raises(ValueError, match=r"no option --trainer\.max_stps"):
        reader(tmp_path, options={"trainer.max_stps": 3})({})
