"""A job's piece of the table: a row for each of its cells, and all that was measured."""

import csv
import json
import math
from importlib.metadata import version
from typing import Any

import pandas as pd

from lnsgd import __version__
from lnsgd.callbacks.measurements import Measurement, scalars
from lnsgd.callbacks.stopping_rule import LIMIT
from lnsgd.run_errors import DivergedError
from lnsgd.run_folder import RunFolder
from lnsgd.sweep.attempts import Attempts
from lnsgd.sweep.folder import JobSpec, SweepFolder
from lnsgd.sweep.table import COLUMNS
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming, read_parquet, read_record
from lnsgd.writing import whole_file

_LOSS = "train/loss"
_ENDED = {"steps": int, "epochs": (int, float), "seconds": (int, float), "device": str, "versions": dict}
_FIELDS = ("step", "epoch", "split", "measure", "layer", "value", "stderr")


def write_piece(sweep: SweepFolder, spec: JobSpec, attempts: Attempts) -> None:
    """Writes what a finished run says of its cells.

    A row's status is ``done``, ``limit`` (the limit of steps came before a stopping rule) or ``diverged``, which has
    no final measures. A replica's seconds are those of its job by the number of replicas.
    """
    run = sweep.run(spec.name)
    ended = read_record(run.finished, _ENDED)
    measured = _measured(run)
    replicas = _replicas(run, len(spec.cells)) if spec.replicated else [_only(run, ended)]
    rows = []
    for number, (cell, options) in enumerate(spec.cells):
        row = {
            **_outcome(replicas[number], ended),
            "epochs": ended["epochs"],
            "seconds": round(ended["seconds"] / len(spec.cells), 3),
            "device": ended["device"],
            "lnsgd": ended["versions"]["lnsgd"],
            "torch": ended["versions"]["torch"],
            "attempts": attempts.begun,
            "job": spec.name,
        }
        measures = {} if row["status"] == "diverged" else _final(measured[measured.replica == number])
        rows.append({"cell": cell, "options": json.dumps(options, ensure_ascii=False), **row, **measures})
    # The piece comes last: with it the cells are complete.
    names = dict(enumerate(name for name, _ in spec.cells))
    table = measured.assign(cell=measured.replica.map(names).astype("string"))
    _write(table[["cell", *_FIELDS]], sweep, spec, "trajectories")
    _write(pd.DataFrame(rows).astype(COLUMNS), sweep, spec, "piece")


def write_failed(sweep: SweepFolder, spec: JobSpec, attempts: Attempts) -> None:
    """Writes that a job has failed for good: the last error is the reason."""
    reason = attempts.errors[-1] if attempts.errors else "its process died"
    row = {**dict.fromkeys(COLUMNS), "status": "failed", "reason": reason, "lnsgd": __version__}
    row |= {"attempts": attempts.begun, "job": spec.name}
    rows = [{"cell": cell, "options": json.dumps(options, ensure_ascii=False), **row} for cell, options in spec.cells]
    _write(pd.DataFrame(rows).astype(COLUMNS), sweep, spec, "piece")


def write_diverged(sweep: SweepFolder, spec: JobSpec, attempts: Attempts, error: DivergedError) -> None:
    """Writes that an ordinary run, of one cell, has diverged: it ended there, and another attempt would too."""
    row = {**dict.fromkeys(COLUMNS), "status": "diverged", "reason": f"diverged at step {error.step}: {error}"}
    row |= {
        "steps": error.step,
        "lnsgd": __version__,
        "torch": version("torch"),
        "attempts": attempts.begun,
        "job": spec.name,
    }
    cell, options = spec.cells[0]
    table = _measured(sweep.run(spec.name)).assign(cell=cell)
    _write(table[["cell", *_FIELDS]], sweep, spec, "trajectories")
    rows = [{"cell": cell, "options": json.dumps(options, ensure_ascii=False), **row}]
    _write(pd.DataFrame(rows).astype(COLUMNS), sweep, spec, "piece")


def _write(table: pd.DataFrame, sweep: SweepFolder, spec: JobSpec, kind: str) -> None:
    with whole_file(getattr(sweep, kind)(spec.name)) as part:
        table.to_parquet(part, index=False)


def _measured(run: RunFolder) -> pd.DataFrame:
    """``measures.parquet``; empty where nothing was measured."""
    if run.measures.exists():
        return read_parquet(run.measures)
    kinds = {"step": "int64", "epoch": "int32", "replica": "int32", "value": "float64", "stderr": "float64"}
    return pd.DataFrame({name: pd.Series(dtype=kinds.get(name, "object")) for name in (*_FIELDS, "replica")})


def _final(measured: pd.DataFrame) -> dict[str, float]:
    """The last of each measure of one replica, named as in loggers."""
    last = measured.sort_values("step", kind="stable").drop_duplicates(["measure", "split", "layer"], keep="last")
    rows = last.sort_index()[list(Measurement._fields)].itertuples(index=False, name=None)
    return scalars(Measurement(*row) for row in rows)


def _outcome(found: dict[str, Any], ended: dict[str, Any]) -> dict[str, Any]:
    """Status, reason and steps of one run, from where it diverged or stopped."""
    if found["diverged_at"] is not None:
        step = found["diverged_at"]
        return {"status": "diverged", "reason": f"diverged at step {step}", "steps": step}
    stopped_by = found["stopped_by"]
    steps = ended["steps"] if found["stopped_at"] is None else found["stopped_at"]
    if stopped_by == LIMIT:
        return {
            "status": "limit",
            "reason": f"the limit of {steps} steps came before its stopping rule",
            "steps": steps,
        }
    return {"status": "done", "reason": f"stopped by {stopped_by}" if stopped_by else "", "steps": steps}


def _replicas(run: RunFolder, number: int) -> list[dict[str, Any]]:
    """Where each replica diverged or was stopped, and by what."""
    with naming(run.replicas), run.replicas.open(newline="") as file:
        rows = list(csv.DictReader(file))
        if [int(row["replica"]) for row in rows] != list(range(number)):
            raise UnreadableError(f"it has not the replicas 0 to {number - 1}, one for each cell")
        return [
            {
                "diverged_at": _integer(row["diverged_at"]),
                "stopped_at": _integer(row.get("stopped_at")),
                "stopped_by": row.get("stopped_by") or None,
            }
            for row in rows
        ]


def _only(run: RunFolder, ended: dict[str, Any]) -> dict[str, Any]:
    """The same of an ordinary run, which has diverged where its training loss was not finite."""
    diverged = None
    if run.metrics.exists():
        with naming(run.metrics), run.metrics.open(newline="") as file:
            losses = ((int(row["step"]), row.get(_LOSS)) for row in csv.DictReader(file))
            diverged = next((step for step, loss in losses if loss and not math.isfinite(float(loss))), None)
    return {"diverged_at": diverged, "stopped_at": None, "stopped_by": ended.get("stopped_by")}


def _integer(text: str | None) -> int | None:
    return int(text) if text else None
