"""Judge claims: what a paper states against what was measured."""

import re
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lnsgd.figures.framework.statements import Statement
from lnsgd.records.claims import Claim
from lnsgd.records.verdicts import (
    DETERMINISTIC,
    FAILS,
    FRACTION,
    MEAN,
    Interval,
    Statistic,
    interval_of,
    interval_of_fraction,
    verdict_of,
)

__all__ = ["BEYOND", "CONTROL", "Claim", "interval_of_fraction", "judge", "slug"]

CONTROL: Literal["control"] = "control"
"""The kind of a claim that checks that an effect is what we think."""

BEYOND: Literal["beyond"] = "beyond"
"""The kind of a claim that answers a question which the papers do not ask."""

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def judge(
    id: str,
    claim: str,
    of: Statement | Literal["control", "beyond"],
    *,
    measured: ArrayLike,
    low: float | None = None,
    high: float | None = None,
    paper: float | str = "",
    source: str = "",
    deterministic: bool = False,
    why: str = "",
) -> Claim:
    """Return the claim with its verdict.

    The verdict is ``holds`` if the 95 % interval over runs lies in [low, high], ``fails`` if it lies outside, and
    otherwise ``undecided``, see `lnsgd.records.verdicts`. Numbers are judged by their mean. Truth values are judged by
    the fraction that is true. A single run, or a number that is NaN or infinite, leaves the claim undecided.

    Args:
        id: Short name, unique in the figure and the same at every scale, such as ``noisy-active``.
        claim: The statement, in words, with what is measured, where and when.
        of: The paper's statement that the claim tests, or `CONTROL`, or `BEYOND`.
        measured: The number of each run, or whether each run does what is claimed; one for each independent seed.
        low: The claim holds from here; ``None``: no lower bound.
        high: The claim holds up to here; ``None``: no upper bound.
        paper: The paper's number, or one word for its statement where it gives none.
        source: Where the expectation comes from, for `CONTROL` and `BEYOND`; a statement has its own.
        deterministic: Whether the statement is about each exact computation, such as a theorem without probability or
            an identity. It then holds if every value lies within the bounds and otherwise fails, also for one run.
        why: One sentence on why the claim fails, if that was found out. It is dropped if the claim does not fail.

    Raises:
        ValueError: nothing was measured, the name is not of lower-case words with hyphens, or the source is missing
            or given twice.

    Example:
        >>> judge("falls", "the error falls", CONTROL, measured=[-2.0, -2.1, -1.9], high=0, source="chosen").verdict
        'holds'
    """
    if not _ID.fullmatch(id):
        raise ValueError(f"the claim {id!r} needs an id of lower-case words and hyphens, such as 'noisy-active'")
    if isinstance(of, Statement) == bool(source):
        raise ValueError(f"claim {id!r}: give a source for a control or a question beyond, and none for a statement")
    values = np.asarray(measured)
    if not values.size:
        raise ValueError(f"no runs for the claim {id!r}; at least one is needed")
    statistic = DETERMINISTIC if deterministic else FRACTION if values.dtype == bool else MEAN
    numbers = values.astype(float).ravel()
    with np.errstate(invalid="ignore"):  # infinite values have a NaN for a standard deviation
        std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
        mean = float(np.mean(numbers))
    interval = _interval(statistic, numbers, mean, std)
    verdict = verdict_of(interval, low, high, statistic)
    return Claim(
        id=id,
        claim=claim,
        kind="paper" if isinstance(of, Statement) else of,
        statement=of.id if isinstance(of, Statement) else "",
        source=of.source if isinstance(of, Statement) else source,
        quote=of.quote if isinstance(of, Statement) else "",
        paper=paper,
        statistic=statistic,
        measured=mean,
        std=std,
        n=len(numbers),
        interval=interval,
        low=low,
        high=high,
        verdict=verdict,
        why=why if verdict == FAILS else "",
    )


def slug(text: str) -> str:
    """Turn the name of an arm into a part of a claim's id.

    Args:
        text: Any text with a letter or digit.

    Example:
        >>> slug("MNIST, squared loss (A)"), slug("p = 0.2")
        ('mnist-squared-loss-a', 'p-0-2')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _interval(statistic: Statistic, values: np.ndarray, mean: float, std: float | None) -> Interval | None:
    if not np.isfinite(values).all():
        return None
    if statistic == DETERMINISTIC:
        return float(values.min()), float(values.max())
    return interval_of(statistic, mean, std, len(values))
