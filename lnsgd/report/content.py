"""The parts of a report, before they are HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lnsgd.records.claims import Claim, count_claims


@dataclass(frozen=True)
class Picture:
    """A picture that is embedded in the page.

    Attributes:
        name: Name of its file.
        alt: Description for readers who cannot see it.
        data: Its content as a ``data:`` URI.
        width: Width in pixels.
        height: Height in pixels.
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
        numeric: Whether its cells are sorted as numbers.
    """

    name: str
    numeric: bool


class Entry(NamedTuple):
    """A cell of a table.

    Attributes:
        text: The text on the page; may be empty.
        key: The number by which it is sorted, if the text is not that number.
        mark: A status, which gives the cell its colour.
    """

    text: str
    key: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort by every column.

    Attributes:
        title: Description of its rows.
        columns: C columns.
        rows: Rows of C cells.
        stacked: Whether a row is a paragraph on a phone, where its columns would not fit beside each other.
        same: Names and values that are the same in all rows and therefore are not columns.
        left_out: Number of further rows that are not on the page.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Entry]]
    same: Sequence[tuple[str, str]] = ()
    left_out: int = 0
    stacked: bool = False


class Line(NamedTuple):
    """A curve in the coordinates of its plot.

    Attributes:
        color: Number of its color in the palette.
        paths: Points of its unbroken parts, as ``points`` of an SVG polyline takes them.
        bands: For each part the outline of one standard deviation to both sides; empty if there is none.
        dots: Centers of points that are not joined: parts of one point, and curves of one or two.
        bars: For dots with a deviation, x and both ends of one standard deviation.
    """

    color: int
    paths: Sequence[str]
    bands: Sequence[str]
    dots: Sequence[tuple[float, float]]
    bars: Sequence[tuple[float, float, float]] = ()


class Tick(NamedTuple):
    """A tick of an axis: its coordinate and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """A small line plot, in SVG's coordinates.

    Attributes:
        title: Name of the number that is plotted.
        says: The plot in words.
        lines: The curves.
        x_ticks: Ticks of the axis of steps.
        y_ticks: Ticks of the axis of values.
        log: Whether the axis of values is logarithmic.
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
        title: Description of all plots.
        legend: Label of each color; empty for one curve.
        whole: Plots of whole networks.
        layers: Plots of layers and tensors.
        note: A sentence on what is not shown; may be empty.
    """

    title: str
    legend: Sequence[str]
    whole: Sequence[Plot]
    layers: Sequence[Plot]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A text from a file, shown unchanged."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """The section of a folder; its parts are shown in this order, and any may be missing.

    Attributes:
        kind: ``figure``, ``sweep``, ``run``, ``analysis`` or ``comparison``.
        name: The folder's name.
        path: The folder as it was given.
        lead: A sentence on the content.
        state: Progress or result in a few words.
        results: Names and values of what came out, shown here and in the overview.
        facts: Names and values, such as command, time, hardware and versions.
        notes: Warnings to the reader, for example that a run is not finished.
        claims: Claims with their verdicts.
        pictures: Pictures.
        tables: Tables.
        plots: Plots.
        texts: Configs and other files.
        parts: Sections of folders that belong to it: the arms of a figure, the analyses of a run.
    """

    kind: str
    name: str
    path: str
    lead: str = ""
    state: str = ""
    results: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    claims: Sequence[Claim] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plots] = ()
    texts: Sequence[Text] = ()
    parts: "Sequence[Section]" = field(default=())

    @property
    def counts(self) -> str:
        """Number of its claims by kind and verdict, in words."""
        return count_claims(self.claims)
