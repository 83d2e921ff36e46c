"""A figure's claims on one page, to be kept."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from lnsgd import __version__
from lnsgd.figures.claims import Claim
from lnsgd.figures.figure import Figure, Runs
from lnsgd.figures.results import seconds
from lnsgd.untrusted.tables import read_record
from lnsgd.writing import whole_file


def write_summary(figure: Figure, scale: str, seeds: int, runs: Runs, claims: Sequence[Claim], path: Path) -> None:
    """Writes the claims as a Markdown table, with the command, the time it took and on what."""
    lines = [
        f"# {figure.name}",
        "",
        f"{figure.title}.",
        "",
        f"![{figure.title}]({figure.name}.png)",
        "",
        "| claim | source | paper | holds from … to | measured | holds |",
        "|---|---|---|---|---|---|",
        *(_row(claim) for claim in claims),
        "",
        "Measured: mean ± standard deviation over n seeds, or over what the claim counts.",
        "",
        f"`lnsgd reproduce {figure.name} --scale {scale} --seeds {seeds}`, {_cost(runs)}.",
    ]
    with whole_file(path) as part:
        part.write_text("\n".join(lines) + "\n")


def _row(claim: Claim) -> str:
    bounds = " … ".join("" if bound is None else f"{bound:.3g}" for bound in (claim.low, claim.high))
    cells = (claim.claim, claim.source, claim.stated, bounds, claim.found, "yes" if claim.holds else "**no**")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cost(runs: Runs) -> str:
    ended = [read_record(run.finished, {}) for run in runs.values()]
    took = f"{sum(seconds(run) for run in runs.values()):.0f} s"
    versions = f"lnsgd {__version__}, torch {ended[0]['versions']['torch']}"
    if "jobs" in ended[0]:  # sweeps
        at_once = ended[0]["jobs_at_once"]
        took += f" in {sum(sweep['jobs'] for sweep in ended):,} jobs"
        return f"{took} on {ended[0]['device']}, {at_once} at a time ({versions})"
    if "steps" in ended[0]:  # it was trained
        took += f" for {sum(run['steps'] for run in ended):,} steps of every seed"
        versions += f", numba {version('numba')}"
    threads = f"{ended[0]['threads']} thread{'s' if ended[0]['threads'] > 1 else ''}"
    return f"{took} on {ended[0]['device']} with {threads} ({versions})"
