"""What a report's page is made of, before it is HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lnsgd.figures.claims import Claim


@dataclass(frozen=True)
class Picture:
    """A picture, embedded.

    Attributes:
        name: Its file's name.
        alt: What it shows, for those who do not see it.
        data: It as a ``data:`` URI.
        width: In pixels.
        height: In pixels.
    """

    name: str
    alt: str
    data: str
    width: int
    height: int


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its full name.
        numeric: Whether it is sorted as numbers.
    """

    name: str
    numeric: bool


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: What is shown; empty where there is nothing.
        key: The number it is sorted by, where the text does not say it.
        mark: A status, which is also coloured.
    """

    text: str
    key: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by every column.

    Attributes:
        title: What its rows are.
        columns: C columns.
        rows: Rows of C cells.
        same: Name and value of what is the same in all rows, and so is no column.
        left_out: How many further rows there are, which are too many for a page.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    same: Sequence[tuple[str, str]] = ()
    left_out: int = 0


class Line(NamedTuple):
    """A curve in the coordinates of its plot.

    Attributes:
        color: Which color of the palette.
        paths: Points of its unbroken parts, as ``points`` of an SVG polyline takes them.
        bands: For each part the outline of one standard deviation to both sides; empty without.
        dots: Centers of parts that are one point only.
    """

    color: int
    paths: Sequence[str]
    bands: Sequence[str]
    dots: Sequence[tuple[float, float]]


class Tick(NamedTuple):
    """A tick of an axis: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """A small line plot, in SVG's coordinates.

    Attributes:
        title: What is plotted.
        says: The plot in words.
        lines: The curves.
        x_ticks: Of the axis of steps.
        y_ticks: Of the axis of values.
        log: Whether values are on a logarithmic axis.
    """

    title: str
    says: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    log: bool


@dataclass(frozen=True)
class Plots:
    """Plots with the same curves.

    Attributes:
        title: What they show.
        legend: What each color is; empty for one curve.
        whole: Plots of whole networks.
        layers: Plots of layers and tensors.
        note: What is not shown, if anything.
    """

    title: str
    legend: Sequence[str]
    whole: Sequence[Plot]
    layers: Sequence[Plot]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A text as it stands in a file."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A folder on the page: any of these, in this order.

    Attributes:
        kind: ``figure``, ``sweep``, ``run``, ``analysis`` or ``comparison``.
        name: The folder's name.
        path: The folder as it was given.
        lead: What it shows, in a sentence.
        state: How far it is, in a few words.
        facts: Names and values: command, time, hardware, versions.
        notes: What a reader must know, such as that it is not finished.
        claims: Claims with their verdicts.
        pictures: Pictures.
        tables: Tables.
        plots: Plots.
        texts: Configs and the like.
        parts: What it is made of: the arms of a figure, analyses of a run.
    """

    kind: str
    name: str
    path: str
    lead: str = ""
    state: str = ""
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    claims: Sequence[Claim] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plots] = ()
    texts: Sequence[Text] = ()
    parts: "Sequence[Section]" = field(default=())

    @property
    def holding(self) -> int:
        """How many of its claims hold."""
        return sum(claim.holds for claim in self.claims)
