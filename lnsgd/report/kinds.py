"""The kinds of folders that a report can show: how each is recognized by its files, and what reads it.

What reads a folder is imported when there is one of its kind, because runs, sweeps and analyses take data frames, which
are not imported in a moment; the claims of a figure do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from lnsgd.report.content import Section
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep.folder import SweepFolder


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        fits: Whether a folder is of this kind.
        reader: The function that reads a folder of this kind, with its module in this package.
    """

    fits: Callable[[Path], bool]
    reader: str

    def read(self, folder: Path) -> Section:
        """Return the section of a folder of this kind.

        Raises:
            ValueError: a file is missing or damaged.
        """
        module, _, name = self.reader.partition(".")
        section: Section = getattr(import_module(f"lnsgd.report.{module}"), name)(folder)
        return section


def is_figure(folder: Path) -> bool:
    """Whether ``lnsgd reproduce`` has written here, or its results were copied here."""
    return (folder / "claims.json").is_file() or (folder / "settings.json").is_file()


def is_sweep(folder: Path) -> bool:
    """Whether ``lnsgd sweep`` has written here."""
    return SweepFolder(folder).planned.is_file()


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run, finished or not, or what a figure has computed."""
    run = RunFolder(folder)
    begun = (run.init, run.metrics, run.finished)
    return run.measures.is_file() or (run.config.is_file() and any(path.is_file() for path in begun))


def is_analysis(folder: Path) -> bool:
    """Whether ``lnsgd analyze``, with or without ``--compare``, has written its tables here."""
    return (folder / "analysis.parquet").is_file() or is_comparison(folder)


def is_comparison(folder: Path) -> bool:
    """Whether ``lnsgd analyze --compare`` has written its tables here."""
    return (folder / "differences.parquet").is_file()


FIGURE = Kind(is_figure, "figure_section.read_figure")
SWEEP = Kind(is_sweep, "sweep_section.read_sweep")
RUN = Kind(is_run, "run_section.read_run")
ANALYSIS = Kind(is_analysis, "analysis_section.read_analysis")

# The first that fits counts: an arm of a figure that is a sweep also has what a finished run has.
KINDS: Sequence[Kind] = (FIGURE, SWEEP, RUN, ANALYSIS)


def kind_of(folder: Path, kinds: Sequence[Kind] = KINDS) -> Kind | None:
    """Return the first of some kinds that fits a folder, or ``None``."""
    return next((kind for kind in kinds if kind.fits(folder)), None)


def analyses_in(folder: Path) -> list[Path]:
    """Return the folders of analyses in the folder of a run: the folder itself, or folders in it."""
    return [path for path in (folder, *inner_folders(folder)) if is_analysis(path)]


def inner_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder in the order of their names, except hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
