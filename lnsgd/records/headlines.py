"""What a run came to, in a few numbers: its headline measures at the start and at the end, and its performance."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lnsgd.console.numbers import number, plus_minus
from lnsgd.records.measures import (
    HEADLINES,
    LAYER,
    MEASURE,
    REPLICA,
    SPLIT,
    STDERR,
    STEP,
    TRAINED,
    VALUE,
    WEIGHTS,
    WHOLE,
    final,
    initial,
    with_weights,
)
from lnsgd.records.metrics import last_logged

if TYPE_CHECKING:
    import pandas as pd

# What modules log in validation or in training; the first one that a run has is its performance.
PERFORMANCE = ("val/accuracy", "train/accuracy", "val/loss", "train/loss")


# How a start at zero is written: of one run, and of replicas.
_ZERO = ("0", "0 ± 0")


class Headline(NamedTuple):
    """A number of a run.

    Attributes:
        name: Its short name, with the split if it was not measured on the training set.
        start: Its value before the first step, with the standard error; of replicas, mean ± standard deviation. Empty
            if it was not measured then.
        end: Its last value.
        step: The step of the last value; ``None`` if it is not known, or replicas have it at different steps.
    """

    name: str
    start: str
    end: str
    step: int | None

    @property
    def change(self) -> str:
        """Its value at the start and at the end; the end alone if it has none at the start, or started at zero."""
        return self.end if self.start in ("", *_ZERO) else f"{self.start} → {self.end}"


def headlines_of(measured: "pd.DataFrame", diverged: Sequence[int] = ()) -> Iterator[Headline]:
    """Yield the headline measures of a run, those of the trained weights of the whole network.

    Args:
        measured: Rows of ``measures.parquet``.
        diverged: Numbers of the replicas that have diverged, which do not count.
    """
    rows = with_weights(measured)
    rows = rows[rows[WEIGHTS].eq(TRAINED) & rows[LAYER].isin(WHOLE) & ~rows[REPLICA].isin(diverged)]
    first, last = initial(rows), final(rows)
    for measure, name in HEADLINES.items():
        of_measure = last[last[MEASURE] == measure]
        if of_measure.empty:
            continue
        splits = list(dict.fromkeys(of_measure[SPLIT]))
        split = "train" if "train" in splits else splits[0]
        at_end = of_measure[of_measure[SPLIT] == split]
        at_start = first[(first[MEASURE] == measure) & (first[SPLIT] == split)]
        steps = set(at_end[STEP]) if at_end[STEP].notna().all() else set()
        own = name if split in ("train", "") else f"{split} {name}"
        yield Headline(own, _text(at_start), _text(at_end), int(steps.pop()) if len(steps) == 1 else None)


def performance(metrics: Path) -> tuple[str, str] | None:
    """Return name and last value of the accuracy or the loss that a run has logged; ``None`` if there is neither.

    Args:
        metrics: Its ``metrics.csv``; that of a replicated run has means and standard deviations.

    Raises:
        ValueError: the file is missing or damaged.
    """
    last = last_logged(metrics, [f"{name}{end}" for name in PERFORMANCE for end in ("", "/mean", "/std")])
    for name in PERFORMANCE:
        if name in last:
            return name.replace("/", " "), number(last[name])
        if f"{name}/mean" in last:
            return name.replace("/", " "), plus_minus(last[f"{name}/mean"], last.get(f"{name}/std"))
    return None


def _text(rows: "pd.DataFrame") -> str:
    """Format the number of one run with its standard error, or those of replicas with their deviation."""
    if rows.empty:
        return ""
    if len(rows) > 1:
        return plus_minus(rows[VALUE].mean(), rows[VALUE].std(ddof=1))
    return plus_minus(rows[VALUE].iloc[0], rows[STDERR].iloc[0])
