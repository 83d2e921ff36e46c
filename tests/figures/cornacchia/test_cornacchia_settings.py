"""Other settings of the hypercube problem: claims, table and picture."""

import numpy as np

from lnsgd.figures.cornacchia.settings import CLEAN, FIGURE, NOISY, SETTINGS, arm
from lnsgd.figures.framework.figure import Runs
from tests.figures.handmade import handmade, within_bounds


def runs_of(folder, active, error) -> Runs:
    """Write runs of two seeds, whose numbers at the end are functions of setting and noise."""
    runs = {}
    for setting in SETTINGS:
        for noise in (CLEAN, NOISY):
            ends = {
                ("active_count", "train", "net.activations.0"): active(setting, noise),
                ("error", "test", ""): error(setting, noise),
                ("error", "train", ""): 0.0,
            }
            curves = {name: np.array([[0.5, end], [0.5, end]]) for name, end in ends.items()}
            runs[arm(setting, noise)] = handmade(folder / arm(setting, noise), [0, 100], curves)
    return runs


def test_claims_compare_networks_of_one_setting(tmp_path):
    """The number of active neurons without noise differs between settings; each has its own half."""
    begin = {setting: 20.0 * (place + 1) for place, setting in enumerate(SETTINGS)}
    dense = list(SETTINGS)[1]

    def active(setting: str, noise: float) -> float:
        return begin[setting] * (1 if noise == CLEAN else 0.6 if setting == dense else 0.4)

    claims = FIGURE.claims(runs_of(tmp_path, active, lambda _, noise: 0.4 if noise == CLEAN else 0.3))
    assert [claim.id for claim in claims if not within_bounds(claim)] == ["half-the-step-size-half-active"]
    errors = [claim.measured for claim in claims if claim.id.endswith("lower-error")]
    np.testing.assert_allclose(errors, [-10.0] * len(SETTINGS))


def test_batches_test_the_statement_on_batches_and_the_others_that_on_all_settings(tmp_path):
    runs = runs_of(tmp_path, lambda *_: 10.0, lambda *_: 0.1)
    statements = [claim.statement for claim in FIGURE.claims(runs)]
    assert statements == ["cornacchia/larger-batches"] * 2 + ["cornacchia/other-parameters"] * 8
    assert FIGURE.table(runs).row_count == 2 * len(SETTINGS)
    FIGURE.draw(runs).savefig(tmp_path / "picture.png")
