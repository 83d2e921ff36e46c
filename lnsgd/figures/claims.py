"""Claims: what a paper states, what was measured, and whether it holds."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lnsgd.writing import whole_file


@dataclass(frozen=True)
class Claim:
    """One claim; the fields are those of ``claims.json``.

    Attributes:
        claim: The statement, in words.
        source: Paper and figure.
        paper: The paper's number, or its statement where it gives none.
        measured: Mean over runs.
        std: Standard deviation over runs; ``None`` for one run.
        n: Number of runs.
        low: The claim holds from here, fixed before running; ``None``: no lower bound.
        high: The claim holds up to here; ``None``: no upper bound.
        holds: Whether ``measured`` is in [low, high].
    """

    claim: str
    source: str
    paper: float | str
    measured: float
    std: float | None
    n: int
    low: float | None
    high: float | None
    holds: bool

    @property
    def stated(self) -> str:
        """The paper's number or statement, as printed."""
        return self.paper if isinstance(self.paper, str) else f"{self.paper:.3g}"

    @property
    def found(self) -> str:
        """What was measured, as printed."""
        spread = "" if self.std is None else f" ± {self.std:.2g}"
        return f"{self.measured:.3g}{spread} (n = {self.n})"


def judge(
    claim: str,
    *,
    source: str,
    paper: float | str,
    measured: Sequence[float],
    low: float | None = None,
    high: float | None = None,
) -> Claim:
    """The claim with its verdict; a mean that is NaN or infinite never holds.

    Args:
        claim: The statement, in words.
        source: Paper and figure.
        paper: The paper's number, or its statement where it gives none.
        measured: The number of each run, or of whatever the claim counts.
        low: The claim holds from here; ``None``: no lower bound.
        high: The claim holds up to here; ``None``: no upper bound.

    Raises:
        ValueError: nothing was measured.
    """
    if not measured:
        raise ValueError(f"no runs for the claim {claim!r}; at least one is needed")
    mean = float(np.mean(measured))
    holds = math.isfinite(mean) and (-math.inf if low is None else low) <= mean <= (math.inf if high is None else high)
    std = float(np.std(measured, ddof=1)) if len(measured) > 1 else None
    return Claim(claim, source, paper, mean, std, len(measured), low, high, holds)


def write_claims(claims: Sequence[Claim], path: Path) -> None:
    """Writes ``claims.json``; numbers that are not finite are ``null``.

    Args:
        claims: In the order of the file.
        path: The file; written whole or not at all.
    """
    rows = [{name: _finite_or_none(value) for name, value in asdict(claim).items()} for claim in claims]
    with whole_file(path) as part:
        part.write_text(json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def claims_frame(claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims as rows, with the fields of ``claims.json``; ``paper`` is text.

    Args:
        claims: In the order of the rows.
    """
    return pd.DataFrame([{**asdict(claim), "paper": claim.stated} for claim in claims])


def _finite_or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
