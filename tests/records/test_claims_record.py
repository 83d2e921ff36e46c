"""``claims.json``: read back as it was written; verdicts of files of older versions are computed."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from lnsgd.records import claims as claims_module
from lnsgd.records import provenance as provenance_module
from lnsgd.records.claims import Claim, ClaimsRecord, claims_frame, count_claims, read_claims, write_claims
from lnsgd.records.provenance import Provenance, read_provenance, write_provenance

CLAIMS = [
    Claim(
        *("falls", "paper", "Smith, Fig. 1", "falls – ½", "mean", 0.1 + 0.2, 0.025, 2, (0.1, 0.5), None, 0.5, "holds"),
        *("falls", "smith/falls", "it falls – by ½"),
    ),
    Claim("rises", "control", "derived", 3, "mean", 1e-300, None, 1, None, 1.0, None, "undecided", "rises"),
    Claim("all", "beyond", "ours", "", "fraction", 0.0, 0.0, 5, (0.0, 0.52), 0.9, None, "fails", "all", why="Too few."),
]
PROVENANCE = Provenance(
    command="lnsgd reproduce tiny --scale ci --seeds 2",
    steps=100,
    seconds=1.25,
    ended="2026-01-01T00:00:00+00:00",
    device="abacus",
    threads=2,
    versions={"lnsgd": "0.1.0", "torch": "2.0"},
)
RECORD = ClaimsRecord(CLAIMS, "tiny", "Nothing much", "ci", 2, PROVENANCE)


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_claims(RECORD, tmp_path / "claims.json")
    assert read_claims(tmp_path / "claims.json") == RECORD


# Claims as versions 1 and 2 wrote them, with the verdict that follows from mean, standard deviation, number and bounds.
OLD = {"claim": "c", "source": "Fig. 1", "paper": 3, "std": 0.1, "n": 20, "low": None, "high": 0.5, "holds": True}
VERDICTS = {
    "mean-inside": ({"measured": 0.3}, "mean", "holds"),
    "mean-near-the-bound": ({"measured": 0.48}, "mean", "undecided"),
    "mean-outside": ({"measured": 0.9, "holds": False}, "mean", "fails"),
    "one-run": ({"measured": 0.3, "std": None, "n": 1}, "mean", "undecided"),
    "all-successes": ({"measured": 1, "std": 0.0, "low": 0.8, "high": None}, "fraction", "holds"),
    "few-successes-of-few": ({"measured": 1.0, "std": 0.0, "n": 4, "low": 0.8, "high": None}, "fraction", "undecided"),
    "diverged": ({"measured": None, "std": None, "holds": False}, "mean", "undecided"),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("change", "statistic", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_verdicts_of_older_versions_are_computed(
    version: int, change: dict[str, object], statistic: str, verdict: str, tmp_path: Path
) -> None:
    rows = [{**OLD, **change}]
    (tmp_path / "claims.json").write_text(json.dumps(rows if version == 1 else {"version": 2, "claims": rows}))
    (claim,) = read_claims(tmp_path / "claims.json").claims
    assert (claim.statistic, claim.verdict, claim.holds) == (statistic, verdict, verdict == "holds")
    assert (claim.id, claim.kind, claim.statement, claim.quote) == ("", "", "", "")


def test_number_that_was_not_finite_is_nan(tmp_path: Path) -> None:
    diverged = replace(CLAIMS[1], measured=math.inf, std=math.nan, n=2)
    write_claims(ClaimsRecord([diverged]), tmp_path / "c.json")
    (claim,) = read_claims(tmp_path / "c.json").claims
    assert math.isnan(claim.measured) and claim.std is None


def test_file_replaces_an_older_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "new" / "claims.json"
    for claims in (CLAIMS, []):
        write_claims(ClaimsRecord(claims), path)
    assert json.loads(path.read_text())["claims"] == []
    assert list(path.parent.iterdir()) == [path]


def test_claims_are_counted_by_kind_and_verdict() -> None:
    every = [*CLAIMS, CLAIMS[0], replace(CLAIMS[0], kind="")]
    assert count_claims(every) == (
        "paper: 2 of 2 hold; control: 0 of 1 hold, 1 undecided; beyond: 0 of 1 hold, 1 fails; "
        "kind not recorded: 1 of 1 holds"
    )
    assert count_claims([]) == ""


def test_frame_has_a_row_for_each_claim() -> None:
    frame = claims_frame(CLAIMS)
    assert list(frame["paper"]) == ["falls – ½", "3", ""]
    assert list(frame["interval"]) == ["0.1 … 0.5", "", "0 … 0.52"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "its version is 99"),
        ({"version": "two"}, "its version is 'two'"),
        ({"claims": None}, "it has no list of claims"),
        ({"title": 1}, "its title is 1"),
        ({"seeds": True}, "its seeds is True"),
        ({"provenance": []}, "it holds list where an object is expected"),
        ({"provenance": {"seconds": "long"}}, "its seconds is 'long'"),
        ({"provenance": {"versions": {"torch": 2}}}, "its versions is"),
    ],
)
def test_damaged_record_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_claims(RECORD, tmp_path / "claims.json")
    content = json.loads((tmp_path / "claims.json").read_text())
    (tmp_path / "claims.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ValueError, match=rf"claims\.json cannot be read \({message}"):
        read_claims(tmp_path / "claims.json")


def test_provenance_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_provenance(PROVENANCE, tmp_path / "finished.json")
    assert read_provenance(tmp_path / "finished.json", ["steps"]) == PROVENANCE
    assert set(json.loads((tmp_path / "finished.json").read_text())) == {
        *("command", "steps", "seconds", "ended", "device", "threads", "versions")
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "it has no steps"),
        ("[]", "it holds list"),
        ('{"steps": true}', "its steps is True"),
        ('{"steps": 1, "ended": "noon"}', "its ended is 'noon'"),
        ('{"steps": 1, "process_history": [1]}', "its process_history is"),
    ],
)
def test_damaged_provenance_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "finished.json").write_text(content)
    with pytest.raises(ValueError, match=rf"finished\.json cannot be read \({message}"):
        read_provenance(tmp_path / "finished.json", ["steps"])


def test_every_field_is_checked() -> None:
    assert set(claims_module._CLAIM_KINDS) == {field.name for field in fields(Claim)}
    assert set(provenance_module._KINDS) == {field.name for field in fields(Provenance)}
