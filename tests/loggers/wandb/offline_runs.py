"""Small offline runs isolated from the user's W&B, and functions that read their files."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from wandb.proto.wandb_internal_pb2 import ArtifactRecord, Record

CONFIG = Path(__file__).parents[3] / "configs" / "mnist.yaml"

# The main config with fewer examples: all measures, five steps per epoch.
SMALL = [
    *("--config", str(CONFIG), "--data.source", "sample", "--data.subset", "250", "--data.batch_size", "50"),
    *("--model.net.widths", "[784, 6, 10]", "--model.label_noise.p", "0.3", "--trainer.accelerator", "cpu"),
    *("--trainer.limit_val_batches", "1", "--trainer.log_every_n_steps", "2"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--trainer.logger", "lnsgd.loggers.WandbLogger"),
]
QUICK = [*SMALL, "--trainer.callbacks", "null", "--trainer.max_steps", "3"]


def isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Remove key and settings of the user, and write nothing outside the folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    patch.setenv("NETRC", str(folder / "no-netrc"))
    for kind in ("CONFIG", "CACHE", "DATA"):
        patch.setenv(f"WANDB_{kind}_DIR", str(folder / "wandb-home"))
    patch.chdir(folder)


# A .wandb file has LevelDB's log format: blocks of 32 KiB, and records that are split over them.

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_wandb(path: Path) -> list[Record]:
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    records, part, at = [], b"", FILE_HEADER
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # a header does not fit into the rest of the block
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        if kind in (FULL, LAST):
            records.append(Record.FromString(part))
            part = b""
    return records


def runs_below(run_dir: Path) -> list[list[Record]]:
    """Read the records of each W&B run in a run's folder, in the order of their starts."""
    found = sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [read_wandb(path) for path in found]


def history(records: list[Record]) -> dict[int, dict[str, Any]]:
    """Collect everything that was logged, by ``trainer/global_step``."""
    rows: dict[int, dict[str, Any]] = {}
    for record in records:
        if not record.HasField("history"):
            continue
        row: dict[str, Any] = {}
        for item in record.history.item:
            path = [item.key] if item.key else list(item.nested_key)
            inner = row
            for name in path[:-1]:  # an image is a dictionary, one item a field
                inner = inner.setdefault(name, {})
            inner[path[-1]] = json.loads(item.value_json)
        rows.setdefault(row["trainer/global_step"], {}).update(row)
    return rows


def config(records: list[Record]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for record in records:
        update = record.run.config.update if record.HasField("run") else record.config.update
        settings.update({item.key: json.loads(item.value_json) for item in update if item.key})
    return settings


def merged_history(run_dir: Path) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for records in runs_below(run_dir):
        for step, row in history(records).items():
            rows.setdefault(step, {}).update(row)
    return rows


def assert_same_numbers(run_dir: Path) -> None:
    """Check that metrics.csv and W&B have the same numbers at the same steps."""
    tracked = merged_history(run_dir)
    table = pd.read_csv(run_dir / "metrics.csv", float_precision="round_trip").set_index("step")
    assert list(table.index) == sorted(tracked)
    for step, row in table.iterrows():
        kept = {name: value for name, value in row.items() if not math.isnan(value)}
        scalars = {
            name: value
            for name, value in tracked[step].items()
            if isinstance(value, int | float) and not name.startswith("_") and name != "trainer/global_step"
        }
        assert scalars == kept, f"step {step}"


def artifacts(run_dir: Path) -> list[ArtifactRecord]:
    """Read the artifacts that were logged, in order."""
    return [record.artifact for records in runs_below(run_dir) for record in records if record.HasField("artifact")]


def table(run_dir: Path, shown: dict[str, Any]) -> pd.DataFrame:
    """Read a table in the history of an offline run."""
    (file,) = run_dir.glob(f"wandb/*run-*/files/{shown['path']}")
    return pd.DataFrame(**json.loads(file.read_text()))
