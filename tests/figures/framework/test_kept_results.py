"""The results that are kept in ``docs/results``."""

from collections import Counter
from pathlib import Path

import pytest

from lnsgd.figures.framework.catalogue import FIGURES, STATEMENTS
from lnsgd.figures.framework.kept import kept_counts
from lnsgd.figures.framework.summary import summary
from lnsgd.records.claims import ClaimsRecord, read_claims
from lnsgd.records.verdicts import DETERMINISTIC, interval_of

RESULTS = sorted((Path(__file__).parents[3] / "docs" / "results").glob("*/claims.json"))


def test_results_are_found() -> None:
    assert len(RESULTS) >= 20


def test_counts_that_ship_with_the_package_are_those_of_the_results() -> None:
    kept = kept_counts()
    assert {path.parent.name for path in RESULTS} == kept.keys() <= FIGURES.keys()
    for path in RESULTS:
        claims = read_claims(path).claims
        assert kept[path.parent.name] == Counter((claim.kind, claim.verdict) for claim in claims)


# The paper's schedule needs a GPU.
KEPT_SCALE = {"cornacchia-cifar10": "cpu"}


@pytest.mark.parametrize("path", RESULTS, ids=[path.parent.name for path in RESULTS])
def test_intervals_follow_from_what_was_recorded(path: Path) -> None:
    for claim in read_claims(path).claims:
        if claim.statistic != DETERMINISTIC:
            expected = interval_of(claim.statistic, claim.measured, claim.std, claim.n)
            assert claim.interval == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("path", RESULTS, ids=[path.parent.name for path in RESULTS])
def test_statements_are_quoted_as_they_are_listed(path: Path) -> None:
    for claim in read_claims(path).claims:
        if claim.kind == "paper":
            statement = STATEMENTS[claim.statement]
            assert (claim.quote, claim.source) == (statement.quote, statement.source)


@pytest.mark.parametrize("path", RESULTS, ids=[path.parent.name for path in RESULTS])
def test_summary_is_made_from_the_record_alone(path: Path) -> None:
    """``scripts/write_summaries.py`` writes them anew."""
    record = read_claims(path)
    assert path.with_name("summary.md").read_text(encoding="utf-8") == summary(record)
    assert record.figure == path.parent.name in FIGURES
    assert record.scale == KEPT_SCALE.get(record.figure, "paper") and record.seeds
    assert record.provenance.seconds and record.provenance.device and record.provenance.versions["torch"]


def test_a_record_with_the_claims_alone_makes_no_summary() -> None:
    with pytest.raises(ValueError, match="has the claims alone; run `lnsgd reproduce` again"):
        summary(ClaimsRecord([]))
