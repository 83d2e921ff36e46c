"""Judge the central claims of a figure under each reading of what its paper leaves open: ``reproduce --variants``."""

import math
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Picture
from rich.console import Console
from rich.text import Text

from lnsgd.console.numbers import between, duration, number
from lnsgd.figures.framework.claims import Claim
from lnsgd.figures.framework.figure import Figure, Runs, Variant
from lnsgd.figures.framework.options import BUDGET
from lnsgd.figures.framework.runner import arm_runs, run_figure
from lnsgd.records.claims import count_claims
from lnsgd.records.provenance import read_provenance
from lnsgd.records.variants import ReadingResult, VariantsRecord, write_variants
from lnsgd.records.verdicts import FRACTION
from lnsgd.runs.writing import whole_file

# The name of the figure's own settings among the readings.
OWN = "the figure's own"

# A cell of the heat map has this size in inches, and a label of a claim so many characters a line.
_CELL, _LABEL = (1.15, 0.62), 46


def run_variants(
    figure: Figure,
    scale: str,
    seeds: int,
    out: Path,
    console: Console,
    budget: float = BUDGET,
    workers: int | None = None,
) -> VariantsRecord:
    """Run the figure under each reading, write ``variants.json`` and the heat map, and print the verdicts.

    The seeds of each arm are the replicas of one run, as in the figure itself. An arm in which a reading changes
    nothing is not run again: the figure's own run of it counts. Readings that were finished before are not run again,
    and cost no time. One reading is always run; a further one is begun only if it would still end within the budget if
    it took as long as the longest so far. The same command resumes with those that are left out.

    Args:
        figure: A figure with variants.
        scale: One of its scales.
        seeds: Number of seeds of each arm.
        out: Folder, with a folder for each reading.
        console: Where progress and verdicts are printed.
        budget: Minutes.
        workers: Number of jobs of a sweep at a time; by default as many as fit.

    Raises:
        ValueError: the figure has no variants, or a central claim has no id of its claims.
        SystemExit: training was interrupted, code 75.
    """
    if not figure.variants:
        raise ValueError(f"{figure.name} has no variants; leave out --variants")
    spent, longest = 0.0, 0.0
    own: Runs = {}
    results: list[ReadingResult] = []
    left_out: list[str] = []
    for name, variant in {OWN: Variant("the settings of the figure"), **figure.variants}.items():
        reading, folder = _changed_arms(figure, variant, own), out / _folder_name(name)
        planned = arm_runs(reading, scale, folder) if reading else {}
        finished = all(run.finished.exists() for run in planned.values())
        if not finished and spent and spent + longest > 60 * budget:
            left_out.append(name)
            continue
        console.print(Text(f"reading: {name}", style="bold"))
        started = time.monotonic()
        runs = run_figure(reading, scale, seeds, folder, console, workers) if reading else {}
        own = own or runs
        claims = _central(figure, figure.claims({**own, **runs}))
        results.append(ReadingResult(name, variant.about, _seconds(runs), claims))
        if not finished:
            spent += time.monotonic() - started
            longest = max(longest, time.monotonic() - started)
    command = f"lnsgd reproduce {figure.name} --variants --scale {scale} --seeds {seeds} --budget {budget:g}"
    record = VariantsRecord(command, figure.name, figure.title, scale, seeds, budget, results, left_out)
    write_variants(record, out / "variants.json")
    with whole_file(out / f"{figure.name}-variants.png") as part:
        draw_variants(record).savefig(part, format="png", dpi=150)
    _print_verdicts(console, record, out)
    return record


def depth(claim: Claim) -> float:
    """Return how far the measured number lies within its bounds: 0 at a bound, at most 1, and negative outside.

    Between two bounds it is 1 in the middle. With one bound it is 1 at the paper's number, or, where the paper gives
    none, one half-width of the interval inside the bound. It is at least −1, and NaN without a number or a bound.
    """
    bounds = [bound for bound in (claim.low, claim.high) if bound is not None]
    if not bounds or not math.isfinite(claim.measured):
        return math.nan
    if claim.low is not None and claim.high is not None and claim.low < claim.high:
        half = (claim.high - claim.low) / 2
        return max(-1.0, 1 - abs(claim.measured - claim.low - half) / half)
    inside = min(
        math.inf if claim.low is None else claim.measured - claim.low,
        math.inf if claim.high is None else claim.high - claim.measured,
    )
    scale = abs(claim.paper - bounds[0]) if isinstance(claim.paper, int | float) else 0.0
    if not scale and claim.interval is not None:
        scale = (claim.interval[1] - claim.interval[0]) / 2
    if not scale:
        return float(np.sign(inside)) if inside else 0.0
    return float(np.clip(inside / scale, -1, 1))


def draw_variants(record: VariantsRecord) -> Picture:
    """Draw the claims (rows) under the readings (columns): colour is `depth`, and the cell says what was measured.

    Args:
        record: At least one reading; all have the same claims.
    """
    claims = record.readings[0].claims
    width, height = _CELL
    picture = Picture(figsize=(4.2 + width * len(record.readings), 1.9 + height * len(claims)), layout="constrained")
    axis = picture.subplots()
    depths = np.array([[depth(claim) for claim in reading.claims] for reading in record.readings]).T
    colors = mpl.colormaps["RdBu"].with_extremes(bad="0.85")
    image = axis.imshow(np.ma.masked_invalid(depths), cmap=colors, norm=Normalize(-1, 1), aspect="auto")
    for column, reading in enumerate(record.readings):
        for row, claim in enumerate(reading.claims):
            dark = abs(depths[row, column]) > 0.65
            axis.text(
                column,
                row,
                f"{_measured(claim)}\n{claim.verdict}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
                fontweight="normal" if claim.holds else "bold",
            )
    names = [textwrap.fill(reading.name, 14) for reading in record.readings]
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_yticks(range(len(claims)), [_label(claim) for claim in claims], fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    bar = picture.colorbar(image, ax=axis, shrink=0.7, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["far outside", "at a bound", "well inside"], fontsize=8)
    picture.suptitle(
        f"{record.figure}: claims under each reading (scale {record.scale}, n = {record.seeds})", fontsize=10
    )
    return picture


def dependence(record: VariantsRecord) -> dict[str, dict[str, list[str]]]:
    """Return for each claim, by id, the names of the readings with each verdict."""
    found: dict[str, dict[str, list[str]]] = {}
    for reading in record.readings:
        for claim in reading.claims:
            found.setdefault(claim.id, {}).setdefault(claim.verdict, []).append(reading.name)
    return found


def _changed_arms(figure: Figure, variant: Variant, own: Runs) -> Figure | None:
    """Return the figure under a reading, with those arms only that differ from the figure's own runs, if any does."""
    reading = figure.under(variant)
    changed = [arm for arm in reading.arms if variant.options or arm in variant.arms or not own]
    return reading.restricted_to(changed) if changed else None


def _central(figure: Figure, claims: Sequence[Claim]) -> list[Claim]:
    by_id = {claim.id: claim for claim in claims}
    if missing := [id for id in figure.central if id not in by_id]:
        raise ValueError(f"figure {figure.name}: {missing[0]!r} is central, but its claims are {', '.join(by_id)}")
    return [by_id[id] for id in figure.central] or [claim for claim in claims if claim.kind == "paper"]


def _seconds(runs: Runs) -> float:
    return round(sum(read_provenance(run.finished, ["seconds"]).seconds or 0.0 for run in runs.values()), 1)


def _folder_name(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _measured(claim: Claim) -> str:
    return claim.found if claim.statistic == FRACTION else number(claim.measured, 3)


def _label(claim: Claim) -> str:
    return textwrap.fill(f"{claim.claim}: {between(claim.low, claim.high)}", _LABEL, max_lines=3, placeholder=" …")


def _print_verdicts(console: Console, record: VariantsRecord, out: Path) -> None:
    """Print the counts of each reading, the claims whose verdicts depend on the reading, and what was left out."""
    console.print()
    for reading in record.readings:
        console.print(Text(f"{reading.name}: {count_claims(reading.claims)} ({duration(reading.seconds)})"))
    by_reading: Mapping[str, Mapping[str, Sequence[str]]] = dependence(record)
    depending = {id: verdicts for id, verdicts in by_reading.items() if len(verdicts) > 1}
    console.print(Text(f"\n{len(depending)} of {len(by_reading)} verdicts depend on the reading."))
    for id, verdicts in depending.items():
        said = "; ".join(f"{verdict} with {', '.join(names)}" for verdict, names in verdicts.items())
        console.print(Text(f"{id}: {said}"))
    if record.left_out:
        names = ", ".join(record.left_out)
        console.print(Text(f"\nNo time within {record.budget_minutes:g} minutes: {names}. The same command goes on."))
    console.print(Text(f"\nIn {out}: {record.figure}-variants.png, variants.json"))
