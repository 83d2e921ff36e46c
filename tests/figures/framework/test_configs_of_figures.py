"""Settings that figures read from configs."""

from pathlib import Path

import pytest

from lnsgd.figures.framework.configs import read_setting, shipped_config

CONFIG = """\
model:
  class_path: lnsgd.modules.Classifier
  init_args:
    net: {class_path: lnsgd.models.MLP, init_args: {widths: [6, 8, 1], bias: null}}
data: lnsgd.data.Points1D
data_of_a_run: {init_args: {size: 20}}
trainer:
  callbacks:
    - {class_path: lnsgd.callbacks.WeightNorms, init_args: {log_spaced: 1}}
    - {class_path: lnsgd.callbacks.ClusterCount, init_args: {tolerance: 0.03}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path / "config.yaml"


FOUND = {
    "data_of_a_run.size": 20,
    "model.net.widths": [6, 8, 1],
    "model.net.bias": None,
    "data": "lnsgd.data.Points1D",
    "trainer.callbacks.ClusterCount.tolerance": 0.03,
    "trainer.callbacks.WeightNorms.log_spaced": 1,
}


@pytest.mark.parametrize(("name", "value"), FOUND.items(), ids=FOUND)
def test_settings_are_named_as_on_the_command_line(config: Path, name: str, value: object) -> None:
    assert read_setting(config, name) == value


MISSING = {
    "model.net.depth": "depth",
    "model.nets": "nets",
    "data.size": "size",
    "trainer.callbacks.HessianTrace.rtol": "HessianTrace",
    "model.net.widths.0": "0",
}


@pytest.mark.parametrize(("name", "part"), MISSING.items(), ids=MISSING)
def test_a_missing_setting_is_named(config: Path, name: str, part: str) -> None:
    with pytest.raises(ValueError, match=f"config.yaml has no setting '{name}'; '{part}' is missing there"):
        read_setting(config, name)


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config\.yaml"):
        read_setting(tmp_path / "config.yaml", "a")


def test_shipped_configs_are_those_of_the_repository() -> None:
    assert shipped_config("mnist.yaml").resolve() == Path(__file__).parents[3] / "configs" / "mnist.yaml"
