"""A figure's claims on one page, made from ``claims.json`` alone."""

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from lnsgd import __version__
from lnsgd.console.numbers import between
from lnsgd.figures.framework.figure import Figure, Runs
from lnsgd.records.claims import HEADINGS, Claim, ClaimsRecord, Kind, by_kind, count_claims
from lnsgd.records.provenance import Provenance, now, read_provenance
from lnsgd.runs.writing import whole_file


def claims_record(figure: Figure, scale: str, seeds: int, runs: Runs, claims: Sequence[Claim]) -> ClaimsRecord:
    """Return the claims of a figure with the command that made them, and the time and hardware of all arms together.

    Args:
        figure: The figure.
        scale: The scale at which it was run.
        seeds: Number of seeds of each arm.
        runs: The finished run of each arm.
        claims: The claims with their verdicts.

    Raises:
        ValueError: the record of a run is missing or damaged, or two claims have the same id.
    """
    if twice := [id for id, count in Counter(claim.id for claim in claims).items() if count > 1]:
        raise ValueError(f"figure {figure.name}: two claims have the id {twice[0]!r}; each needs one of its own")
    ended = [read_provenance(run.finished, ["seconds"]) for run in runs.values()]
    first = ended[0]
    trained = first.jobs is None and first.steps is not None
    provenance = Provenance(
        command=f"lnsgd reproduce {figure.name} --scale {scale} --seeds {seeds}",
        steps=sum(run.steps or 0 for run in ended) if trained else None,
        seconds=sum(run.seconds or 0.0 for run in ended),
        ended=max((run.ended for run in ended if run.ended is not None), default=now()),
        device=first.device,
        threads=first.threads,
        jobs=None if first.jobs is None else sum(run.jobs or 0 for run in ended),
        jobs_at_once=first.jobs_at_once,
        versions={
            "lnsgd": __version__,
            "torch": first.versions["torch"],
            **({"numba": version("numba")} if trained else {}),
        },
    )
    return ClaimsRecord(claims, figure.name, figure.title, scale, seeds, provenance)


def write_summary(record: ClaimsRecord, path: Path) -> None:
    """Write the claims as a Markdown table, with the command, the time it took, and the hardware.

    Args:
        record: The content of ``claims.json``.
        path: The file; written whole or not at all.

    Raises:
        ValueError: the record is of an older version, which has the claims alone.
    """
    with whole_file(path) as part:
        part.write_text(summary(record), encoding="utf-8")


def summary(record: ClaimsRecord) -> str:
    """Return the text of `write_summary`."""
    if not record.figure:
        raise ValueError("a claims.json of an older version has the claims alone; run `lnsgd reproduce` again")
    lines = [
        f"# {record.figure}",
        "",
        f"{record.title}.",
        "",
        f"![{record.title}]({record.figure}.png)",
        "",
        f"**{count_claims(record.claims)}**",
        *(line for kind, claims in by_kind(record.claims).items() for line in _table(kind, claims)),
        "",
        "Measured: mean ± standard deviation over n seeds, or successes of n. A claim holds if the whole 95 % interval "
        "(Student's t for means, Clopper-Pearson for successes) lies within the bounds, fails if it lies outside, and "
        "is undecided otherwise. Where a statement is about each exact computation, the interval is the range of the "
        "values.",
        "",
        f"`{record.provenance.command}`, {_cost(record.provenance)}.",
    ]
    return "\n".join(lines) + "\n"


def _table(kind: Kind, claims: Sequence[Claim]) -> list[str]:
    return [
        "",
        f"## {HEADINGS[kind]}",
        "",
        "| claim | paper | holds if | measured | interval | verdict |",
        "|---|---|---|---|---|---|",
        *(_row(claim) for claim in claims),
    ]


def _row(claim: Claim) -> str:
    source = f"“{claim.quote}” ({claim.source})" if claim.quote else claim.source
    verdict = claim.verdict if claim.holds else f"**{claim.verdict}**"
    cells = (
        f"{claim.claim}<br>{source}",
        claim.stated,
        between(claim.low, claim.high),
        claim.found,
        "none" if claim.interval is None else between(*claim.interval),
        f"{verdict}: {claim.why}" if claim.why else verdict,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cost(provenance: Provenance) -> str:
    """Return time, hardware and versions as a phrase."""
    took = f"{provenance.seconds:.0f} s"
    versions = ", ".join(f"{name} {number}" for name, number in provenance.versions.items())
    if provenance.jobs is not None:
        at_once = f"{provenance.jobs_at_once} at a time"
        return f"{took} in {provenance.jobs:,} jobs on {provenance.device}, {at_once} ({versions})"
    if provenance.steps is not None:
        took += f" for {provenance.steps:,} steps of every seed"
    threads = f"{provenance.threads} thread{'' if provenance.threads == 1 else 's'}"
    return f"{took} on {provenance.device} with {threads} ({versions})"
