"""Norms after one step (Theorem 1): computation, claims and picture."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lnsgd.figures.cornacchia import norm_step_networks as theorem1
from lnsgd.figures.cornacchia.norm_step import (
    BIASES,
    CONVOLUTIONS,
    CORRECT,
    FIGURE,
    FLOW,
    FURTHER,
    MISCLASSIFIED,
    RELU,
    TANH,
)
from lnsgd.runs.folder import RunFolder
from tests.figures import tiny
from tests.figures.handmade import within_bounds

# Which claim is which.
HINGE, LOGISTIC, SHARP, IDENTITY, GROWS, LEAKY, AFFINE, OUTPUTS, SHARED, ALONG_FLOW, WITH_BIASES, WITH_TANH = range(12)

ARMS = [(kind, sample, loss) for kind, cases in theorem1.CASES.items() for sample, loss in cases]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute few and shallow networks."""
    monkeypatch.setattr(theorem1, "NETS", 2)
    monkeypatch.setattr(theorem1, "DEPTHS", (1, 2))


def by_hand() -> pd.DataFrame:
    """Make rows of two seeds of a two-layer network whose norms fall up to h = 1; a layer of each control grows."""
    rows = []
    for seed in range(2):
        for kind, sample, loss in ARMS:
            euler = 2.0 if sample == MISCLASSIFIED else -2.0
            for layer in range(2):
                alignment = -1.0 if kind in (BIASES, TANH) and layer else euler
                rows.append((seed, kind, 1, theorem1.UNIFORM, 0, sample, loss, layer, euler, 9.0, alignment, 4.0, 0.5))
    columns = "seed kind depth init net sample loss layer euler squared_norm alignment squared_gradient guaranteed"
    flow = [
        {"seed": seed, "kind": FLOW, "sample": FLOW, "loss": "hinge", "layer": layer, "rise": -1e-4, "fall": 0.1}
        for seed in range(2)
        for layer in range(3)
    ]
    return pd.concat([pd.DataFrame(rows, columns=columns.split()), pd.DataFrame(flow)], ignore_index=True)


def runs_of(table: pd.DataFrame, folder: Path) -> dict[str, RunFolder]:
    run = RunFolder(folder)
    table.to_parquet(run.measures)
    return {"computed": run}


def where(table: pd.DataFrame, kind: str = RELU, sample: str = MISCLASSIFIED, loss: str = "logistic") -> pd.Series:
    return (table["kind"] == kind) & (table["sample"] == sample) & (table["loss"] == loss)


# --- what is computed ---


@pytest.mark.usefixtures("few")
def test_rows_are_every_layer_of_every_network_and_case() -> None:
    table = FIGURE.compute(0)
    flow = table["kind"] == FLOW
    assert table[flow]["layer"].tolist() == [0, 1, 2]
    table = table[~flow]
    keys = ["kind", "depth", "init", "net", "sample", "loss"]
    layers = table.groupby(keys)["layer"].agg(list)
    assert all(found == list(range(depth + 1)) for (_, depth, *_), found in layers.items())
    cases = set(table[["kind", "sample", "loss"]].itertuples(index=False, name=None))
    assert cases == set(ARMS)
    assert set(table[table["kind"] == BIASES]["init"]) == {theorem1.UNIFORM, "PyTorch default"}
    assert set(table[table["kind"] == CONVOLUTIONS]["init"]) == {theorem1.UNIFORM, "PyTorch default"}
    assert set(table[table["kind"] == RELU]["init"]) == set(theorem1.INITS)
    assert (table[table["sample"] == MISCLASSIFIED]["euler"] > 0).all()
    assert (table[table["sample"] == CORRECT]["euler"] <= 0).all()


@pytest.mark.usefixtures("few")
def test_numbers_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = FIGURE.compute(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    pd.testing.assert_frame_equal(FIGURE.compute(0), first, check_exact=True)
    assert not FIGURE.compute(1)["squared_norm"].dropna().isin(first["squared_norm"]).any()


@pytest.mark.usefixtures("few")
def test_claims_hold_on_a_few_networks_and_are_reproducible(tmp_path: Path) -> None:
    claims = FIGURE.claims(tiny.run(FIGURE, tmp_path / "one"))
    assert [within_bounds(claim) for claim in claims] == [True] * 12
    assert {claim.n for claim in claims} == {2}
    assert FIGURE.claims(tiny.run(FIGURE, tmp_path / "two")) == claims


# --- what is judged ---


def test_claims_on_handmade_rows(tmp_path: Path) -> None:
    claims = FIGURE.claims(runs_of(by_hand(), tmp_path))
    assert [within_bounds(claim) for claim in claims] == [True] * 12
    assert [claim.measured for claim in claims] == [1, 1, 1, 0, 1, *[1] * 5, 0.5, 0.5]
    assert [(claim.low, claim.high) for claim in claims] == [
        *([(1.0, None)] * 3),
        *[(None, 1e-12), (1.0, None)],
        *([(1.0, None)] * 5),
        *([(None, 0.99)] * 2),
    ]


# Where it is changed, what, and the claims that fail then.
BROKEN = {
    "hinge-promises-too-much": ((RELU, MISCLASSIFIED, "hinge"), {"guaranteed": 2.0}, {HINGE}),
    "logistic-promises-too-much": ((RELU, MISCLASSIFIED, "logistic"), {"guaranteed": 2.0}, {LOGISTIC}),
    "falls-too-long": ((RELU, MISCLASSIFIED, "logistic"), {"alignment": 2.1}, {SHARP, IDENTITY}),
    "falls-too-short": ((RELU, MISCLASSIFIED, "hinge"), {"alignment": 1.9}, {SHARP, IDENTITY}),
    "not-quite-euler": ((RELU, MISCLASSIFIED, "hinge"), {"alignment": 2 + 1e-10}, {IDENTITY}),
    "never-falls": ((RELU, MISCLASSIFIED, "logistic"), {"alignment": -2.0}, {LOGISTIC, SHARP, IDENTITY}),
    "correct-one-falls": ((RELU, CORRECT, "logistic"), {"alignment": 1e-9}, {GROWS}),
    "biases-do-not-matter": ((BIASES, MISCLASSIFIED, "logistic"), {"alignment": 1.0}, {WITH_BIASES}),
    "leaky-falls-too-short": ((theorem1.LEAKY, MISCLASSIFIED, "logistic"), {"alignment": 1.9}, {LEAKY}),
    "affine-never-falls": ((theorem1.AFFINE, MISCLASSIFIED, "logistic"), {"alignment": -2.0}, {AFFINE}),
    "output-falls-too-long": ((theorem1.OUTPUTS, MISCLASSIFIED, "logistic"), {"alignment": 2.1}, {OUTPUTS}),
    "shared-weights-never-fall": ((CONVOLUTIONS, MISCLASSIFIED, "logistic"), {"alignment": -2.0}, {SHARED}),
    "flow-rises": ((FLOW, FLOW, "hinge"), {"rise": 1e-5}, {ALONG_FLOW}),
    "flow-stays": ((FLOW, FLOW, "hinge"), {"fall": 0.0}, {ALONG_FLOW}),
    "tanh-does-not-matter": ((TANH, MISCLASSIFIED, "logistic"), {"alignment": 1.0}, {WITH_TANH}),
}


@pytest.mark.parametrize(("arm", "changes", "fail"), BROKEN.values(), ids=BROKEN)
def test_each_claim_can_fail(
    arm: tuple[str, str, str], changes: dict[str, float], fail: set[int], tmp_path: Path
) -> None:
    table = by_hand()
    table.loc[where(table, *arm), list(changes)] = list(changes.values())
    claims = FIGURE.claims(runs_of(table, tmp_path))
    assert {number for number, claim in enumerate(claims) if not within_bounds(claim)} == fail


def test_one_layer_of_one_seed_is_enough_to_fail(tmp_path: Path) -> None:
    table = by_hand()
    table.loc[where(table) & (table["seed"] == 1) & (table["layer"] == 0), "alignment"] = -2.0
    claim = FIGURE.claims(runs_of(table, tmp_path))[LOGISTIC]
    assert (claim.measured, claim.std, within_bounds(claim)) == (0.75, pytest.approx(np.std([1, 0.5], ddof=1)), False)


def test_the_step_size_is_the_same_for_all_layers(tmp_path: Path) -> None:
    """The smallest guaranteed step of all layers counts, so that a too large one of another layer does not matter."""
    table = by_hand()
    table.loc[where(table) & (table["layer"] == 0), "guaranteed"] = 2.0
    assert FIGURE.claims(runs_of(table, tmp_path))[LOGISTIC].holds


def test_layers_whose_gradient_underflows_do_not_count(tmp_path: Path) -> None:
    table = by_hand()
    silent = where(table, sample=CORRECT) & (table["layer"] == 0)
    table.loc[silent, ["euler", "alignment", "squared_gradient"]] = 0.0
    assert FIGURE.claims(runs_of(table, tmp_path))[GROWS].measured == 1


# --- what is drawn ---


def test_picture(tmp_path: Path) -> None:
    table = pd.concat([by_hand().assign(depth=depth) for depth in theorem1.DEPTHS], ignore_index=True)
    picture = FIGURE.draw(runs_of(table, tmp_path))
    picture.savefig(tmp_path / "picture.png")
    change, falling, controls = picture.axes
    assert all(axis.get_xlabel() and axis.get_ylabel() and axis.get_legend() for axis in picture.axes)
    assert [text.get_text() for text in change.get_legend().get_texts()][:2] == ["1 hidden layer", "2 hidden layers"]
    steps, fractions = falling.lines[0].get_data()
    assert set(fractions[steps < 0.99]) == {1}
    assert set(fractions[steps > 1.01]) <= {0}
    curves = {line.get_label(): line.get_data() for line in controls.lines}
    assert len(curves) == 8
    kinds = ((kind, 1) for kind in (RELU, *FURTHER))
    for label, before in (*kinds, (BIASES, 0.5), (TANH, 0.5), (f"{RELU};\nsample classified correctly", 0)):
        multiples, fractions = curves[label]
        assert set(fractions[multiples < 0.49]) == {before}
        assert set(fractions[multiples > 1.01]) == {0}
