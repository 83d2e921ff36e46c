"""Claims: what a paper states, what was measured, and whether it holds."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from lnsgd.run_folder import whole_file


@dataclass(frozen=True)
class Claim:
    """One claim; the fields are those of ``claims.json``.

    Attributes:
        claim: The statement, in words.
        source: Paper and figure.
        paper: The paper's number.
        measured: Mean over runs.
        std: Standard deviation over runs; ``None`` for one run.
        n: Number of runs.
        low: The claim holds from here, fixed before running; ``None``: no lower bound.
        high: The claim holds up to here; ``None``: no upper bound.
        holds: Whether ``measured`` is in [low, high].
    """

    claim: str
    source: str
    paper: float
    measured: float
    std: float | None
    n: int
    low: float | None
    high: float | None
    holds: bool


def judge(
    claim: str,
    *,
    source: str,
    paper: float,
    measured: Sequence[float],
    low: float | None = None,
    high: float | None = None,
) -> Claim:
    """The claim with its verdict; NaN never holds."""
    mean = fmean(measured)
    holds = (-math.inf if low is None else low) <= mean <= (math.inf if high is None else high)
    std = stdev(measured) if len(measured) > 1 else None
    return Claim(claim, source, paper, mean, std, len(measured), low, high, holds)


def write_claims(claims: Sequence[Claim], path: Path) -> None:
    """Writes ``claims.json``."""
    with whole_file(path) as part:
        part.write_text(json.dumps([asdict(claim) for claim in claims], indent=2, ensure_ascii=False) + "\n")
