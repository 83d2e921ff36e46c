"""Clusters of the classes: claims from handmade runs, the plane of three templates, and the hidden layer as trained."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from lnsgd.figures.cornacchia.clusters import (
    FIGURE,
    NOISY,
    SMOOTH,
    STANDARD,
    _test_images,
    hidden_layer,
    plane_of_templates,
)
from lnsgd.figures.framework.figure import Runs
from lnsgd.figures.framework.runner import _folder_name
from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.figures.handmade import handmade, within_bounds

STEPS = [0, 10, 20]


AS_PAPER = {STANDARD: 1.0, SMOOTH: 0.5, NOISY: 0.7}


def runs_of(folder: Path, ends: Mapping[str, float] = AS_PAPER) -> Runs:
    runs = {}
    for arm, end in ends.items():
        ratio = np.linspace([2.0, 2.0], [end, end + 0.01], len(STEPS)).T
        curves = {("class_variance_ratio", split, "net.layers.1"): ratio for split in ("train", "test")}
        curves |= {("error", "test", ""): ratio / 20, ("associated_count", "train", "total"): ratio}
        runs[arm] = handmade(folder / _folder_name(arm), STEPS, curves)
        runs[arm].finished.write_text(json.dumps({"seconds": 1.0, "steps": STEPS[-1], "epochs": 2}))
    return runs


@pytest.mark.parametrize(
    ("ends", "holds"),
    [
        (AS_PAPER, [True, True, True, True]),
        ({STANDARD: 1.0, SMOOTH: 1.2, NOISY: 0.7}, [False, False, True, True]),
        ({STANDARD: 1.0, SMOOTH: 0.5, NOISY: 3.0}, [True, True, False, False]),
    ],
)
def test_claims(tmp_path: Path, ends: dict[str, float], holds: list[bool]) -> None:
    claims = FIGURE.claims(runs_of(tmp_path, ends))
    assert [within_bounds(claim) for claim in claims] == holds
    assert claims[0].measured == pytest.approx(ends[SMOOTH], rel=0.01)


def test_the_plane_keeps_the_distances_of_the_templates() -> None:
    templates = np.random.default_rng(0).normal(size=(3, 7))
    basis = plane_of_templates(templates)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-12)
    places = (templates - templates[0]) @ basis
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(places[a] - places[b]) == pytest.approx(np.linalg.norm(templates[a] - templates[b]))
    assert places[1] == pytest.approx([np.linalg.norm(templates[1] - templates[0]), 0], abs=1e-12)


def test_the_hidden_layer_is_that_of_the_trained_network(tmp_path: Path) -> None:
    options = [
        *("--run_dir", str(tmp_path / "run"), "--data.source", "sample", "--data.subset", "200"),
        *("--trainer.max_epochs", "1", "--replicas.seeds", "1"),
    ]
    train(["fit", "--config", str(FIGURE.config_path(STANDARD)), *options])
    run = RunFolder(tmp_path / "run")
    images, labels = _test_images(run)
    assert images.min() == 0 and images.max() == 1 and set(labels) == {3, 5, 8}
    state = torch.load(run.last_checkpoint, weights_only=True)["state_dict"]
    inputs = torch.from_numpy(images).float()
    by_torch = torch.relu(inputs @ state["stack.net.layers.0.weight"][0].T + state["stack.net.layers.0.bias"][0])
    np.testing.assert_allclose(hidden_layer(run, images), by_torch, atol=1e-5)
