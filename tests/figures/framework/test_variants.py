"""Claims under each reading of what a paper leaves open: runs, budget, depth, heat map, record and refusals."""

import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lnsgd.cli import main
from lnsgd.figures.framework import variants
from lnsgd.figures.framework.catalogue import FIGURES
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.configs import read_setting
from lnsgd.figures.framework.figure import Figure, Runs, Variant
from lnsgd.figures.framework.variants import OWN, _folder_name, dependence, depth, draw_variants, run_variants
from lnsgd.records.variants import ReadingResult, VariantsRecord, read_variants
from tests.figures import tiny
from tests.figures.listed import list_figures

VARIANTS = {
    "fast": Variant("a larger step", ["--model.optimizer.lr", "0.3"]),
    "more noise": Variant("p = 0.7 instead of 0.5", arms={"p = 0.5": ["--model.label_noise.p", "0.7"]}),
}


def figure(folder: Path, **changes: object) -> Figure:
    return tiny.figure(folder, **{"variants": VARIANTS, "central": ("none",), **changes})


def run(figure: Figure, out: Path, budget: float = 10.0) -> tuple[VariantsRecord, str]:
    printed = io.StringIO()
    return run_variants(figure, "ci", 2, out, Console(file=printed, width=200), budget), printed.getvalue()


def test_each_reading_has_its_own_settings_and_the_figures_claims(tmp_path: Path) -> None:
    record, printed = run(figure(tmp_path), tmp_path / "out")
    assert [reading.name for reading in record.readings] == [OWN, "fast", "more noise"]
    settings = {}
    for config in (tmp_path / "out").glob("*/*/config.yaml"):
        read = (read_setting(config, f"model.{setting}") for setting in ("optimizer.lr", "label_noise.p"))
        settings[config.parts[-3:-1]] = tuple(map(float, read))
    own = _folder_name(OWN)
    assert settings == {
        **{(own, "p_0"): (0.1, 0), (own, "p_0.5"): (0.1, 0.5)},
        **{("fast", "p_0"): (0.3, 0), ("fast", "p_0.5"): (0.3, 0.5)},
        ("more-noise", "p_0.5"): (0.1, 0.7),  # its other arm is the figure's own
    }
    assert [[claim.id for claim in reading.claims] for reading in record.readings] == [["none"]] * 3
    own = tiny.figure(tmp_path)
    assert record.readings[0].claims == [own.claims(tiny.run(own, tmp_path / "own"))[1]]
    assert read_variants(tmp_path / "out" / "variants.json") == record
    assert (tmp_path / "out" / "tiny-variants.png").read_bytes().startswith(b"\x89PNG")
    assert "0 of 1 verdicts depend on the reading." in printed


def test_only_central_arms_run_and_unchanged_ones_are_the_figures_own(tmp_path: Path) -> None:
    seen = []

    def claims(runs: Runs) -> list[Claim]:
        seen.append({arm: run.path.parent.name for arm, run in runs.items()})
        return tiny.claims({"p = 0": runs["p = 0.5"]})

    swapped = {"fast": VARIANTS["fast"], "others": Variant("nothing that counts", arms={"p = 0": ["--data.seed", "1"]})}
    run(figure(tmp_path, claims=claims, variants=swapped, central_arms=["p = 0.5"]), tmp_path / "out")
    own = _folder_name(OWN)
    assert seen == [{"p = 0.5": own}, {"p = 0.5": "fast"}, {"p = 0.5": own}]


def test_what_has_no_time_is_named_and_run_by_the_next_call(tmp_path: Path) -> None:
    first, printed = run(figure(tmp_path), tmp_path / "out", budget=1e-6)
    assert (len(first.readings), first.left_out) == (1, ["fast", "more noise"])
    assert "No time within 1e-06 minutes: fast, more noise." in printed
    second, _ = run(figure(tmp_path), tmp_path / "out", budget=1e-6)
    assert [reading.name for reading in second.readings] == [OWN, "fast"]
    assert second.readings[0] == first.readings[0]
    third, _ = run(figure(tmp_path), tmp_path / "out", budget=1e-6)
    assert third.left_out == []


def test_without_central_claims_those_on_the_paper_are_judged(tmp_path: Path) -> None:
    record, _ = run(figure(tmp_path, central=()), tmp_path / "out", budget=1e-6)
    assert [claim.kind for claim in record.readings[0].claims] == ["paper"]


def claim(measured: list[float], **options: object) -> Claim:
    return judge("c", "c", CONTROL, source="s", measured=measured, **options)  # type: ignore[arg-type]


DEPTHS = {
    "middle": ([2.0], {"low": 1, "high": 3}, 1.0),
    "between-bound-and-middle": ([1.5], {"low": 1, "high": 3}, 0.5),
    "at-a-bound": ([3.0], {"low": 1, "high": 3}, 0.0),
    "outside": ([3.5], {"low": 1, "high": 3}, -0.5),
    "far-outside": ([99.0], {"low": 1, "high": 3}, -1.0),
    "at-the-papers-number": ([0.24], {"high": 0.5, "paper": 0.24}, 1.0),
    "beyond-the-papers-number": ([0.1], {"high": 0.5, "paper": 0.24}, 1.0),
    "half-way-to-the-papers-number": ([0.37], {"high": 0.5, "paper": 0.24}, 0.5),
    "above-the-upper-bound": ([0.63], {"high": 0.5, "paper": 0.24}, -0.5),
    # Two values 1 ± 1/t: the half-width of the interval is t · (√2/t) / √2 = 1, and t₀.₉₇₅(1) = tan(0.475π).
    "half-of-a-half-width": ([1 - 1 / math.tan(0.475 * math.pi), 1 + 1 / math.tan(0.475 * math.pi)], {"low": 0.5}, 0.5),
    "one-run-without-a-number": ([2.0], {"low": 1}, 1.0),
    "equal-bounds": ([1.0], {"low": 1, "high": 1}, 0.0),
}


@pytest.mark.parametrize(("measured", "options", "expected"), DEPTHS.values(), ids=DEPTHS)
def test_depth_within_the_bounds(measured: list[float], options: dict[str, float], expected: float) -> None:
    assert depth(claim(measured, **options)) == pytest.approx(expected, abs=1e-9)


def test_depth_needs_a_number_and_a_bound() -> None:
    assert math.isnan(depth(claim([math.nan], low=1.0)))
    assert math.isnan(depth(claim([1.0])))


def record_of(*readings: list[Claim]) -> VariantsRecord:
    found = [ReadingResult(f"r{number}", "about", 1.0, claims) for number, claims in enumerate(readings)]
    return VariantsRecord("lnsgd", "tiny", "Nothing much", "ci", 2, 30.0, found)


def test_verdicts_that_depend_on_the_reading() -> None:
    holds, fails = claim([1.0, 1.01], low=0.0), claim([1.0, 1.01], low=9.0)
    always = replace(holds, id="always")
    assert dependence(record_of([holds, always], [fails, always], [holds, always])) == {
        "c": {"holds": ["r0", "r2"], "fails": ["r1"]},
        "always": {"holds": ["r0", "r1", "r2"]},
    }


def test_heat_map_has_a_cell_for_each_claim_and_reading() -> None:
    numbers, fraction = claim([1.04, 1.06], low=2.0, paper=3.0), claim([True, False], low=0.5)
    picture = draw_variants(record_of([numbers, fraction], [claim([math.nan], low=2.0), fraction]))
    axis = picture.axes[0]
    assert [text.get_text() for text in axis.texts] == [
        *("1.05\nfails", "1 of 2\nundecided"),
        *("–\nundecided", "1 of 2\nundecided"),
    ]
    (image,) = axis.images
    depths = np.ma.getdata(image.get_array())
    assert depths[0, 0] == pytest.approx(-0.95)
    assert np.ma.getmaskarray(image.get_array()).tolist() == [[False, True], [False, False]]


CHANGES = [
    *({"version": 2}, {"seeds": True}, {"readings": {}}, {"readings": [{}]}, {"left_out": 1}),
    *({"budget_minutes": "x"}, {"budget_minutes": 10**400}, {"title": 1}),
]


def test_damaged_record_is_named(tmp_path: Path) -> None:
    run(figure(tmp_path), tmp_path / "out", budget=1e-6)
    path = tmp_path / "out" / "variants.json"
    content = json.loads(path.read_text())
    for change in CHANGES:
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=r"variants\.json cannot be read"):
            read_variants(path)


REFUSED = {
    "no-variants": (["plain", "--variants"], "plain has no variants"),
    "budget-alone": (["tiny", "--budget", "3"], "--budget 3 is of --variants"),
    "no-time": (["tiny", "--variants", "--budget", "0"], "--budget 0: give the minutes"),
    "wandb": (["tiny", "--variants", "--wandb", "p"], "--wandb does not track --variants"),
}


@pytest.mark.parametrize(("args", "message"), REFUSED.values(), ids=REFUSED)
def test_command_refuses(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = figure(tmp_path)
    list_figures(monkeypatch, {"tiny": tiny, "plain": replace(tiny, name="plain", variants={})}, tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", *args])
    assert message in capsys.readouterr().err


def test_a_stopped_command_says_that_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    list_figures(monkeypatch, {"tiny": figure(tmp_path)}, tmp_path)
    monkeypatch.setattr(variants, "run_figure", stop)
    with pytest.raises(SystemExit, match="75"):
        main(["reproduce", "tiny", "--variants"])
    assert "the same command resumes from there" in capsys.readouterr().err


def stop(*args: object) -> None:
    """End as a run that SIGTERM stops does."""
    raise SystemExit(os.EX_TEMPFAIL)


def test_a_central_claim_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'typo' is central, but its claims are some, none"):
        run(figure(tmp_path, central=("typo",)), tmp_path / "out", budget=1e-6)


def test_a_figure_that_trains_nothing_has_no_variants() -> None:
    with pytest.raises(ValueError, match="figure computed: variants are options of training runs"):
        tiny.computed_figure(variants=VARIANTS)


@pytest.mark.parametrize("figure", [figure for figure in FIGURES.values() if figure.variants], ids=lambda one: one.name)
def test_variants_of_figures(figure: Figure) -> None:
    assert len({_folder_name(name) for name in (OWN, *figure.variants)}) == len(figure.variants) + 1
    for variant in figure.variants.values():
        assert variant.about and not variant.about.endswith(".")
        assert variant.options or variant.arms
        assert variant.arms.keys() <= figure.arms.keys()
