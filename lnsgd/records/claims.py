"""``claims.json``: the claims of a figure with their verdicts, and how they were made."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lnsgd.console.numbers import between
from lnsgd.records.provenance import Provenance, provenance_from
from lnsgd.records.verdicts import (
    FRACTION,
    HOLDS,
    Interval,
    Statistic,
    Verdict,
    counted_verdicts,
    interval_of,
    statistic_of,
    verdict_of,
)
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming
from lnsgd.untrusted.texts import load_json

if TYPE_CHECKING:
    import pandas as pd

# Version 1 was the bare list of claims. Versions 1 and 2 had no identifier, kind, statement, quotation, statistic,
# interval and reason, and said only whether the mean was within the bounds (``holds``).
VERSION = 3

# A statement of the paper, a check that the effect is what we think, or a question of our own. Files before version 3
# do not say which.
Kind = Literal["paper", "control", "beyond", ""]
KINDS: tuple[Kind, ...] = ("paper", "control", "beyond", "")
UNKNOWN_KIND = "kind not recorded"

# What each kind is called above a table.
HEADINGS: dict[Kind, str] = {
    "paper": "Statements of the paper",
    "control": "Controls",
    "beyond": "Beyond the paper",
    "": f"Claims ({UNKNOWN_KIND})",
}


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        claim: The statement, in words.
        kind: ``paper``, ``control`` or ``beyond``; empty if it is not recorded.
        source: Paper and section, or where the expectation comes from.
        paper: The paper's number, or a word for its statement where it gives none; may be empty.
        statistic: ``mean``, ``fraction`` or ``deterministic``, see `lnsgd.records.verdicts`.
        measured: Mean over runs, or the fraction of successes; NaN where it is not finite.
        std: Standard deviation over runs; ``None`` for one run.
        n: Number of runs.
        interval: The 95 % interval, or the range of a deterministic claim; ``None`` if there is none.
        low: The claim holds from here, fixed before running; ``None``: no lower bound.
        high: The claim holds up to here; ``None``: no upper bound.
        verdict: ``holds``, ``fails`` or ``undecided``.
        id: Short name of the claim, unique in its figure; empty in files before version 3.
        statement: Identifier of the paper's statement that the claim tests; empty for other kinds.
        quote: That statement in the paper's words.
        why: One sentence on why the claim fails, if that was found out.
    """

    claim: str
    kind: Kind
    source: str
    paper: float | str
    statistic: Statistic
    measured: float
    std: float | None
    n: int
    interval: Interval | None
    low: float | None
    high: float | None
    verdict: Verdict
    id: str = ""
    statement: str = ""
    quote: str = ""
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether the verdict is ``holds``."""
        return self.verdict == HOLDS

    @property
    def stated(self) -> str:
        """The paper's number or statement, as printed."""
        return self.paper if isinstance(self.paper, str) else f"{self.paper:.3g}"

    @property
    def found(self) -> str:
        """Measured value as text: successes and runs, or mean, standard deviation and number of runs."""
        if self.statistic == FRACTION:
            return f"{round(self.measured * self.n)} of {self.n}"
        spread = "" if self.std is None else f" ± {self.std:.2g}"
        return f"{self.measured:.3g}{spread} (n = {self.n})"


_CLAIM_KINDS: dict[str, tuple[type, ...]] = {
    "claim": (str,),
    "kind": (str,),
    "source": (str,),
    "paper": (int, float, str),
    "statistic": (str,),
    "measured": (int, float, type(None)),
    "std": (int, float, type(None)),
    "n": (int,),
    "interval": (list, type(None)),
    "low": (int, float, type(None)),
    "high": (int, float, type(None)),
    "verdict": (str,),
    "id": (str,),
    "statement": (str,),
    "quote": (str,),
    "why": (str,),
}
_OLD_CLAIM_KINDS: dict[str, tuple[type, ...]] = {
    **{name: _CLAIM_KINDS[name] for name in ("claim", "source", "paper", "measured", "std", "n", "low", "high")},
    "holds": (bool,),
}
_WORDS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "statistic": ("mean", "fraction", "deterministic"),
    "verdict": ("holds", "fails", "undecided"),
}

# Larger integers are not written by lnsgd, and not all of them are floating-point numbers.
_LARGEST = 10**18


@dataclass(frozen=True)
class ClaimsRecord:
    """The content of ``claims.json``.

    Attributes:
        claims: The claims, in the order in which the figure states them.
        figure: Name of the figure; empty in a file of version 1, which has the claims alone.
        title: What the figure shows, in one line.
        scale: Its scale.
        seeds: Number of seeds of each arm.
        provenance: Command, time and hardware of all arms together.
    """

    claims: Sequence[Claim]
    figure: str = ""
    title: str = ""
    scale: str = ""
    seeds: int | None = None
    provenance: Provenance = field(default_factory=Provenance)


def by_kind(claims: Iterable[Claim]) -> dict[Kind, list[Claim]]:
    """Sort claims by kind, in the order paper, control, beyond, not recorded; kinds without claims are left out.

    Args:
        claims: The claims, whose order is kept within each kind.
    """
    every = list(claims)
    found = {kind: [claim for claim in every if claim.kind == kind] for kind in KINDS}
    return {kind: of_kind for kind, of_kind in found.items() if of_kind}


def count_claims(claims: Iterable[Claim]) -> str:
    """Count claims by kind and verdict, in words; empty if there are no claims.

    Args:
        claims: The claims.

    Returns:
        Text such as ``paper: 23 of 27 hold, 2 undecided, 2 fail; control: 5 of 5 hold``.
    """
    return in_words(Counter((claim.kind, claim.verdict) for claim in claims))


def in_words(counts: Mapping[tuple[Kind, Verdict], int]) -> str:
    """Return numbers of claims in words.

    Args:
        counts: Number of claims of each kind with each verdict.

    Example:
        >>> in_words({("control", "holds"): 1, ("paper", "fails"): 2})
        'paper: 0 of 2 hold, 2 fail; control: 1 of 1 holds'
    """
    of_kinds = {kind: {verdict: n for (of, verdict), n in counts.items() if of == kind} for kind in KINDS}
    return "; ".join(f"{kind or UNKNOWN_KIND}: {counted_verdicts(found)}" for kind, found in of_kinds.items() if found)


def write_claims(record: ClaimsRecord, path: Path) -> None:
    """Write ``claims.json``; numbers that are not finite are ``null``.

    Args:
        record: The claims and how they were made.
        path: The file; written whole or not at all.
    """
    content = {
        "version": VERSION,
        "figure": record.figure,
        "title": record.title,
        "scale": record.scale,
        "seeds": record.seeds,
        "provenance": record.provenance.as_fields(),
        "claims": [claim_fields(claim) for claim in record.claims],
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def claim_fields(claim: Claim) -> dict[str, object]:
    """Return the fields of a claim as they are written to JSON; numbers that are not finite are ``None``.

    Args:
        claim: The claim.
    """
    return {name: _finite_or_none(getattr(claim, name)) for name in _CLAIM_KINDS}


def read_claims(path: Path) -> ClaimsRecord:
    """Read ``claims.json`` of this or an older version.

    Files before version 3 have neither interval nor verdict. Both are computed from mean, standard deviation, number
    and bounds, by the rules of `lnsgd.records.verdicts`; identifier, kind and quotation stay empty.

    Args:
        path: The file.

    Raises:
        ValueError: the file is missing or damaged, a field has a value that lnsgd never writes, or a verdict does not
            follow from the interval and the bounds.
    """
    with naming(path):
        content = load_json(path)
        if isinstance(content, list):  # version 1
            content = {"claims": content}
        if not isinstance(content, dict):
            raise UnreadableError(f"it holds {type(content).__name__} where an object is expected")
        if not isinstance(content.get("claims"), list):
            raise UnreadableError("it has no list of claims")
        version = content.get("version", 1)
        if version not in range(1, VERSION + 1):
            raise UnreadableError(f"its version is {version!r:.20}, and this lnsgd reads up to {VERSION}")
        texts = {name: content.get(name, "") for name in ("figure", "title", "scale")}
        seeds = content.get("seeds")
        if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
            raise UnreadableError(f"its {wrong[0]} is {texts[wrong[0]]!r:.80}")
        if not isinstance(seeds, int | None) or isinstance(seeds, bool):
            raise UnreadableError(f"its seeds is {seeds!r:.80}")
        read = _old_claim if version < VERSION else claim_from
        claims = [read(row, number) for number, row in enumerate(content["claims"], 1)]
        return ClaimsRecord(claims, **texts, seeds=seeds, provenance=provenance_from(content.get("provenance", {})))


def claims_frame(claims: Sequence[Claim]) -> "pd.DataFrame":
    """Return claims as rows with the fields of ``claims.json``; ``paper`` and ``interval`` are text.

    Args:
        claims: In the order of the rows.
    """
    import pandas as pd

    intervals = ["" if claim.interval is None else between(*claim.interval) for claim in claims]
    printed = zip(claims, intervals)
    return pd.DataFrame([{**asdict(claim), "paper": claim.stated, "interval": interval} for claim, interval in printed])


def claim_from(row: Any, number: int) -> Claim:
    """Make a claim from the fields that `claim_fields` returned.

    Args:
        row: The fields as read from a file.
        number: Its place among the claims, named if a field is damaged.

    Raises:
        UnreadableError: a field is missing or has a value that lnsgd never writes, or the verdict does not follow from
            the interval and the bounds.
    """
    fields = _checked(row, number, _CLAIM_KINDS)
    for name, words in _WORDS.items():
        if fields[name] not in words:
            raise UnreadableError(f"claim {number} has {name} = {fields[name]!r:.80}")
    if fields["interval"] is not None:
        if len(fields["interval"]) != 2 or not all(_is_number(end) for end in fields["interval"]):
            raise UnreadableError(f"claim {number} has interval = {fields['interval']!r:.80}")
        fields["interval"] = tuple(map(float, fields["interval"]))
    claim = Claim(**fields)
    follows = verdict_of(claim.interval, claim.low, claim.high, claim.statistic)
    if claim.verdict != follows:
        raise UnreadableError(
            f"claim {number} has verdict = {claim.verdict!r}, but {follows!r} follows from its interval and bounds"
        )
    return claim


def _old_claim(row: Any, number: int) -> Claim:
    fields = _checked(row, number, _OLD_CLAIM_KINDS)
    fields.pop("holds")
    mean, std, n = fields["measured"], fields["std"], fields["n"]
    statistic = statistic_of(mean, std, n)
    interval = interval_of(statistic, mean, std, n)
    verdict = verdict_of(interval, fields["low"], fields["high"], statistic)
    return Claim(**fields, kind="", statistic=statistic, interval=interval, verdict=verdict)


def _checked(row: Any, number: int, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Check the fields of a claim, because a page of wrong claims is worse than none."""
    if not isinstance(row, Mapping) or set(row) != set(kinds):
        raise UnreadableError(f"claim {number} must have the fields {', '.join(kinds)}, and no others")
    for name, allowed in kinds.items():
        value = row[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise UnreadableError(f"claim {number} has {name} = {value!r:.80}")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise UnreadableError(f"claim {number} has a {name} above {_LARGEST:.0e}")
    if row["n"] < 1:
        raise UnreadableError(f"claim {number} has n = {row['n']!r:.80}")
    return {**row, "measured": math.nan if row["measured"] is None else row["measured"]}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _finite_or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
