"""Properties of every figure in the catalogue."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import lnsgd.figures
from lnsgd.figures.framework.catalogue import FIGURES
from lnsgd.figures.framework.figure import Figure
from lnsgd.figures.framework.runner import _folder_name

CONFIGS = Path(__file__).parents[3] / "configs" / "figures"
EVERY = pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)


def test_every_figure_is_in_the_catalogue_once() -> None:
    found = pkgutil.walk_packages(lnsgd.figures.__path__, "lnsgd.figures.")
    modules = [importlib.import_module(module.name) for module in found]
    figures = [module.FIGURE for module in modules if isinstance(getattr(module, "FIGURE", None), Figure)]
    assert sorted(figure.name for figure in figures) == sorted(FIGURES)


@EVERY
def test_names_and_titles(figure: Figure) -> None:
    assert FIGURES[figure.name] is figure
    assert figure.name == figure.name.lower().replace(" ", "-").replace("_", "-")
    assert figure.name != "list"  # the command's own word
    assert figure.title
    assert not figure.title.endswith(".")


@EVERY
def test_scales(figure: Figure) -> None:
    assert {"ci", "paper"} <= figure.scales.keys()
    for scale in figure.scales.values():
        assert scale.seeds >= 1
        assert scale.arms.keys() <= figure.arms.keys()
        assert not figure.compute or (not scale.options and not scale.arms)


@EVERY
def test_arms_have_folders_of_their_own(figure: Figure) -> None:
    assert len({_folder_name(arm) for arm in figure.arms}) == len(figure.arms)


@EVERY
def test_the_config_of_every_arm_is_shipped(figure: Figure) -> None:
    for path in map(figure.config_path, figure.arms):
        assert path.is_file()
        assert path.resolve().parent == CONFIGS
