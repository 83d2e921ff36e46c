"""What the runs of ResNet-20 on CIFAR-10 have measured; names and settings of `lnsgd.figures.cornacchia.cifar10`."""

from typing import Any

import numpy as np
import pandas as pd

from lnsgd.figures.framework.configs import read_setting
from lnsgd.figures.framework.results import last_by_layer, measured
from lnsgd.figures.framework.style import BLUE, GREEN, ORANGE
from lnsgd.records.measures import MEASURE, read_measures
from lnsgd.runs.folder import RunFolder

STANDARD, SMOOTH, NOISY = "p = 0", "smoothing 0.1", "label noise 0.1"
SOURCE = "Cornacchia et al., §6.4"

# The paper's numbers: active units of the last activation site, in percent of its 4,096.
PAPER_ACTIVE = {STANDARD: 46.9, SMOOTH: 27.5}

# The paper's width of the network, number of images (all) and number of epochs.
PAPER_WIDTH, PAPER_SUBSET, PAPER_EPOCHS = 16, None, 200

# The last stage; it includes the site before pooling.
LAST_STAGE = "layer3"

LINES: dict[str, dict[str, Any]] = {
    STANDARD: {"color": BLUE, "linewidth": 2.2},
    SMOOTH: {"color": ORANGE, "linewidth": 2.2},
    NOISY: {"color": GREEN, "linewidth": 1.2},
}


def accuracy(run: RunFolder) -> np.ndarray:
    """Return the accuracy in percent on the test set, or on held-out images if there are any; (R,)."""
    return 100 * (1 - measured(run, "error", "val").last)


def active_percent(run: RunFolder) -> pd.DataFrame:
    """Return the percentage of units active on the training set at the end: R rows, 19 sites by depth."""
    return 100 * last_by_layer(run, "active_fraction", "train")


def select_last_stage(by_site: pd.DataFrame) -> np.ndarray:
    """Select the columns of the sites of the last stage."""
    return by_site.filter(like=f".{LAST_STAGE}.").to_numpy()


def cluster_ratio(run: RunFolder) -> np.ndarray:
    """Return the variance of the last hidden layer within classes over that between their means, training set; (R,)."""
    return measured(run, "class_variance_ratio", "train").last


def has_papers_network(run: RunFolder) -> bool:
    """Tell whether a run trains the paper's network on the paper's data."""
    width, subset = (read_setting(run.config, name) for name in ("model.net.width", "data.subset"))
    return (width, subset) == (PAPER_WIDTH, PAPER_SUBSET)


def is_papers_run(run: RunFolder) -> bool:
    """Tell whether a run trains the paper's network on the paper's data for as long as the paper."""
    return has_papers_network(run) and read_setting(run.config, "trainer.max_epochs") == PAPER_EPOCHS


def validation_images(run: RunFolder) -> str:
    """Name the images that accuracy is measured on: the test set, unless images were held out."""
    held_out = read_setting(run.config, "data.val_size")
    return f"{held_out:,} held-out images" if held_out else "test set"


def has_curvature(run: RunFolder) -> bool:
    """Tell whether a run has measured the Hessian, which the scale ``ci`` does without."""
    return "hessian_trace" in set(read_measures(run.measures)[MEASURE])


def trace_by_stage(run: RunFolder) -> pd.DataFrame:
    """Return the trace of the Hessian at the end by stage: R rows; columns stem, layer1, layer2, layer3, output.

    The trace of a stage is the sum of the traces of the diagonal blocks of its weights.
    """
    traces = last_by_layer(run, "hessian_trace", "train")
    stages = [_stage_of_weight(str(name)) for name in traces]
    return traces.T.groupby(stages, sort=False).sum(min_count=1).T


def _stage_of_weight(name: str) -> str:
    part = name.split(".")[1]
    return part if part.startswith("layer") else "output" if part == "linear" else "stem"
