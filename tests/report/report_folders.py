"""Write folders for reports by hand."""

import io
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd

from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.figures.framework.summary import claims_record, write_summary
from lnsgd.records.analyses import analysis_table
from lnsgd.records.claims import write_claims
from lnsgd.runs.folder import RunFolder
from tests.figures import tiny
from tests.figures.handmade import handmade

HOSTILE = "<script>alert(1)</script>"

CLAIMS = [
    judge("falls", "|N| falls", tiny.STATEMENT, paper="falls", measured=[0.49, 0.51], high=1.0),
    judge(
        "error", f"error {HOSTILE}", tiny.STATEMENT, paper=0.21, measured=[0.33, 0.34], low=0.1, high=0.2, why=HOSTILE
    ),
    judge("diverges", "diverges", CONTROL, source="Fig. 2", paper=3, measured=[float("nan"), 1.0], low=4),
]


def png(path: Path) -> Path:
    """Write a picture of 60 × 40 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.figure.Figure(figsize=(0.6, 0.4), dpi=100).savefig(path, format="png")
    return path


def figure(folder: Path, claims: list[Claim] = CLAIMS) -> Path:
    """Write the results of a figure as they are kept in ``docs/results``, without arms."""
    folder.mkdir(parents=True)
    png(folder / "tiny.png")
    runs = {"p = 0": tiny.hand_made_run(folder / "arm", [], seconds=61.7, steps=1000)}
    record = claims_record(tiny.figure(folder), "ci", 2, runs, claims)
    write_claims(record, folder / "claims.json")
    write_summary(record, folder / "summary.md")
    for path in [*(folder / "arm").iterdir(), folder / "tiny.yaml"]:
        path.unlink()
    (folder / "arm").rmdir()
    return folder


def run(folder: Path, *, config: str = "model: tiny\n") -> RunFolder:
    """Write a finished run of four replicas: two seeds at two levels of noise."""
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


# Checkpoints of a run: file, step, replica.
RUN = [("runs/a/init.safetensors", 0, 0), ("runs/a/checkpoints/e=0.ckpt", 9, 0), ("runs/a/checkpoints/e=1.ckpt", 99, 0)]


def analysis(folder: Path, checkpoints: list[tuple[str, int | None, int]], stderr: float = 0.25) -> Path:
    """Write an analysis of checkpoints (file, step, replica).

    The loss is 1 / (step + 1) + replica; the trace has an error; the norm is exact.
    """
    rows = []
    for path, step, replica in checkpoints:
        where = {"checkpoint": path, "step": step, "epoch": None, "replica": replica}
        values = [
            ("loss", "val", "", 1 / ((step or 0) + 1) + replica, np.nan),
            ("hessian_trace", "train", "", 10.0 + (step or 0), stderr),
            ("norm", "", "net.0.weight", 3.0, np.nan),
        ]
        names = ("measure", "split", "layer", "value", "stderr")
        rows += [{**where, **dict(zip(names, of_measure))} for of_measure in values]
    folder.mkdir(parents=True, exist_ok=True)
    analysis_table(rows).to_parquet(folder / "analysis.parquet")
    return folder


def comparison(folder: Path, seeds: int = 1) -> Path:
    """Write a comparison of two networks or of pairs: a trace with errors, an exact loss, and the line between."""
    folder.mkdir(parents=True, exist_ok=True)
    difference = {
        "a": 2.0,
        "b": 5.0,
        "difference": 3.0,
        "stderr": 0.5,
        "stderr_a": 0.1,
        "stderr_b": 0.2,
        "pairs": seeds,
    }
    names = [("train", "hessian_trace", ""), ("val", "loss", "")]
    rows = [{"split": split, "measure": measure, "layer": layer, **difference} for split, measure, layer in names]
    rows[1] |= dict.fromkeys(("stderr", "stderr_a", "stderr_b"), np.nan)
    pd.DataFrame(rows).to_parquet(folder / "differences.parquet")
    alike = [{"seed": s, "split": "val", "measure": "cka", "layer": "", "value": 0.5 + 0.2 * s} for s in range(seeds)]
    pd.DataFrame(alike).to_parquet(folder / "similarity.parquet")
    line = [{"seed": s, "split": "val", "t": t, "loss": 1 - t + s} for s in range(seeds) for t in (0, 0.5, 1)]
    pd.DataFrame(line).to_parquet(folder / "path.parquet")
    png(folder / "path.png")
    return folder
