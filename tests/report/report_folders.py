"""Folders for reports, written by hand."""

import io
from pathlib import Path

import matplotlib.figure
import numpy as np

from lnsgd.figures.claims import Claim, judge, write_claims
from lnsgd.figures.summary import write_summary
from lnsgd.run_folder import RunFolder
from tests.figures import tiny
from tests.figures.handmade import handmade

HOSTILE = "<script>alert(1)</script>"

CLAIMS = [
    judge("|N| falls", source="Theorem 1", paper="falls", measured=[0.25, 0.75], high=1.0),
    judge(f"error {HOSTILE}", source="Fig. 1", paper=0.21, measured=[0.3333], low=0.1, high=0.2),
    judge("diverges", source="Fig. 2", paper=3, measured=[float("nan"), 1.0], low=4),
]


def png(path: Path) -> Path:
    """A picture of 60 × 40 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.figure.Figure(figsize=(0.6, 0.4), dpi=100).savefig(path, format="png")
    return path


def figure(folder: Path, claims: list[Claim] = CLAIMS) -> Path:
    """A figure's results in their committed form: as `lnsgd.figures` writes them, without arms."""
    folder.mkdir(parents=True)
    write_claims(claims, folder / "claims.json")
    png(folder / "tiny.png")
    runs = {"p = 0": tiny.hand_made_run(folder / "arm", [], seconds=61.7, steps=1000)}
    write_summary(tiny.figure(folder), "ci", 2, runs, claims, folder / "summary.md")
    for path in [*(folder / "arm").iterdir(), folder / "tiny.yaml"]:
        path.unlink()
    (folder / "arm").rmdir()
    return folder


def run(folder: Path, *, config: str = "model: tiny\n") -> RunFolder:
    """A finished run of four replicas: two seeds at two levels of noise."""
    steps = [0, 1, 10, 100]
    curves = {
        ("active_fraction", "train", "net.relu"): np.array([[0.5, 0.4, 0.3, 0.2 + 0.02 * r] for r in range(4)]),
        ("loss", "val", ""): np.array([[100.0, 10.0, 1.0, 0.1 * (r + 1)] for r in range(4)]),
    }
    made = handmade(folder, steps, curves, [{"seed": r % 2, "noise": 0.1 * (r // 2)} for r in range(4)])
    made.config.write_text(config)
    png(made.figures / "replica0" / "firings.png")
    text = io.StringIO("step,epoch,train/loss/noise=0.0/mean,train/loss/noise=0.0/std,loss/val/noise=0.0/mean\n")
    made.metrics.write_text(text.getvalue() + "10,0,0.5,0.1,1.0\n100,1,0.25,0.05,0.15\n")
    return made
