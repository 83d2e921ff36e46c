"""All figures by their names on the command line, and all statements of the papers by their identifiers."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from lnsgd.figures.blanc.statements import STATEMENTS as BLANC
from lnsgd.figures.cornacchia.statements import STATEMENTS as CORNACCHIA
from lnsgd.figures.framework.statements import Statement
from lnsgd.figures.nagarajan.statements import STATEMENTS as NAGARAJAN
from lnsgd.figures.sharpness.statements import STATEMENTS as SHARPNESS

if TYPE_CHECKING:
    from lnsgd.figures.framework.figure import Figure


class Catalogue(Mapping[str, "Figure"]):
    """Figures by name; the module of a figure is imported when the figure is asked for, because that takes seconds.

    Args:
        modules: The module below ``lnsgd.figures`` of each figure, which has it as ``FIGURE``.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> "Figure":
        """Import a figure."""
        found: Figure = import_module(f"lnsgd.figures.{self._modules[name]}").FIGURE
        return found

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order in which they are listed."""
        return iter(self._modules)

    def __len__(self) -> int:
        """Return the number of figures."""
        return len(self._modules)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a figure of this name."""
        return name in self._modules


FIGURES = Catalogue(
    {
        "cornacchia-hypercube": "cornacchia.hypercube",
        "cornacchia-neuron": "cornacchia.neuron",
        "cornacchia-pure-noise": "cornacchia.pure_noise",
        "cornacchia-basis": "cornacchia.basis",
        "cornacchia-mnist-pure-noise": "cornacchia.mnist_pure_noise",
        "cornacchia-mnist": "cornacchia.mnist",
        "cornacchia-cifar10": "cornacchia.cifar10",
        "cornacchia-sparsity-curve": "cornacchia.sparsity_curve",
        "cornacchia-clusters": "cornacchia.clusters",
        "cornacchia-norm-step": "cornacchia.norm_step",
        "cornacchia-settings": "cornacchia.settings",
        "nagarajan-width": "nagarajan.width",
        "nagarajan-noise": "nagarajan.noise",
        "nagarajan-norms": "nagarajan.norms",
        "nagarajan-initialization": "nagarajan.initialization",
        "nagarajan-label-noise": "beyond.nagarajan_label_noise",
        "blanc-matrix-sensing": "blanc.matrix_sensing",
        "blanc-relu-1d": "blanc.relu_1d",
        "blanc-single-point": "blanc.single_point",
        "blanc-few-points": "blanc.few_points",
        "blanc-escape": "blanc.escape",
        "blanc-near-zero": "blanc.near_zero",
        "sharpness-rank-one": "sharpness.rank_one",
        "sharpness-clusters": "sharpness.clusters",
        "sharpness-rank-two": "sharpness.rank_two",
        "sharpness-flow": "sharpness.flow",
        "sharpness-settings": "sharpness.settings",
        "beyond-trace-mnist": "beyond.trace_mnist",
    }
)

# In the order in which tables show them.
STATEMENTS: dict[str, Statement] = {
    statement.id: statement for of_paper in (CORNACCHIA, BLANC, NAGARAJAN, SHARPNESS) for statement in of_paper.values()
}
