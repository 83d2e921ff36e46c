"""The kinds of files that are fuzzed: valid files of each kind, how they are read, and checks of the result."""

import io
import json
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from lnsgd.analysis import weights
from lnsgd.data.cifar10 import PIXELS, read_binary, read_python
from lnsgd.data.mnist import read_idx
from lnsgd.records.claims import ClaimsRecord, read_claims
from lnsgd.records.jobs import JobSpec
from lnsgd.records.provenance import Provenance, read_provenance
from lnsgd.records.variants import VariantsRecord, read_variants
from lnsgd.report.content import Section
from lnsgd.report.run_section import read_run
from lnsgd.runs.checkpoints import load_run_checkpoint
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.grid import Sweep, read_sweep
from lnsgd.training.cli import check_config_files
from lnsgd.training.run_config import RunConfig, read_run_config
from lnsgd.untrusted.tables import read_parquet
from tests.data.cifar_files import python2_pickle
from tests.hostile import hostile_files as hostile
from tests.small_config import mlp, small_config

STATE = {"net.weight": torch.arange(12.0).reshape(3, 4), "net.bias": torch.ones(3, dtype=torch.float64)}
RUN = {"state_dict": STATE, "epoch": 1, "global_step": 7, "loops": {"a": [1, 2.5, None, (3, "x")]}}
ARCHIVE = hostile.saved(RUN)
LEGACY = hostile.saved(RUN, _use_new_zipfile_serialization=False)
IMAGES = np.arange(2 * PIXELS, dtype=np.uint64).astype(np.uint8).reshape(2, PIXELS)

CONFIG = small_config(model={"net": mlp(784, 6, 10)}, data={"subset": 50}, seed_everything=0)
SWEEP = "base: base.yaml\noptions: {a: 1}\ngrid:\n  p: [0.0, 0.1]\n  q: [x, y]\nseeds: 3\nwandb: {group: g}\n"
CLAIM = {
    **{"claim": "c", "source": "Fig. 1", "paper": 0.1, "measured": 0.2, "std": None, "n": 2},
    **{"low": 0.0, "high": None, "holds": True},
}
JUDGED = {
    **{name: value for name, value in CLAIM.items() if name != "holds"},
    **{"kind": "paper", "statistic": "mean", "interval": [0.1, 0.3], "verdict": "holds"},
    **{"id": "c", "statement": "smith/c", "quote": "it falls", "why": ""},
}
VARIANTS = {
    **{
        "version": 1,
        "command": "lnsgd",
        "figure": "tiny",
        "title": "t",
        "scale": "ci",
        "seeds": 2,
        "budget_minutes": 30.0,
    },
    "readings": [{"name": "own", "about": "a", "seconds": 1.5, "claims": [JUDGED]}],
    "left_out": ["fast"],
}
ENDED = {
    **{"steps": 10, "epochs": 1, "seconds": 2.5, "device": "cpu", "threads": 1, "stopped_by": "limit"},
    **{"versions": {"lnsgd": "0.1.0"}, "ended": "2026-01-01T00:00:00+00:00"},
}
MADE = {"figure": "f", "title": "t", "scale": "ci", "seeds": 2, "provenance": ENDED}
JOB = {
    **{"name": "a", "cells": [["c", {"p": 0.1}]], "configs": {"x": "y"}, "arguments": []},
    **{"replicated": True, "reason": "r"},
}


def _table() -> bytes:
    rows = [
        {"step": step, "epoch": 0, "replica": 0, "split": "train", "measure": "loss", "layer": "", "value": 1 / step}
        for step in (1, 2, 3)
    ]
    file = io.BytesIO()
    pd.DataFrame(rows).assign(stderr=np.nan).to_parquet(file, index=False)
    return file.getvalue()


TABLE = _table()
METRICS = b"step,epoch,train/loss\n1,0,0.5\n2,0,0.25\n3,1,\n"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        valid: Content of valid files.
        read: Reads a file.
        good: Checks that the result has the right types.
        packed: Puts the mutated part into a whole file with correct lengths and checksums.
    """

    valid: Sequence[bytes]
    read: Callable[[Path], Any]
    good: Callable[[Any], bool]
    packed: Callable[[bytes], bytes] = bytes


def _tensors(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values())


def _images(found: tuple[np.ndarray, np.ndarray]) -> bool:
    return found[0].shape == (2, PIXELS) and found[1].shape == (2,)


def _job(path: Path) -> JobSpec:
    return SweepFolder(path.parents[1]).read_job(path.stem)


def _config(path: Path) -> None:
    check_config_files(["--config", str(path)])


KINDS: dict[str, Kind] = {
    "archive": Kind([ARCHIVE], load_run_checkpoint, lambda found: _tensors(found["state_dict"])),
    "pickle-in-archive": Kind(
        [hostile.pickled_within(ARCHIVE), *map(hostile.pickle_of, hostile.BOMBS.values())],
        lambda path: weights.read_weights(path).trained,
        _tensors,
        lambda content: hostile.repacked(ARCHIVE, {"data.pkl": content}),
    ),
    "legacy": Kind([LEGACY], load_run_checkpoint, lambda found: _tensors(found["state_dict"])),
    "safetensors": Kind([save(STATE)], lambda path: weights.read_weights(path).trained, _tensors),
    "safetensors-header": Kind(
        [save(STATE)[8:-72]],
        lambda path: weights.read_weights(path).trained,
        _tensors,
        lambda content: hostile.safetensors(content, save(STATE)[-72:]),
    ),
    "idx": Kind(
        [struct.pack(">4I", 2051, 2, 3, 3) + bytes(18)],
        lambda path: read_idx(path, (2, 3, 3)),
        lambda found: found.shape == (2, 3, 3),
    ),
    "cifar-binary": Kind([bytes(2 * (1 + PIXELS))], lambda path: read_binary(path, 2), _images),
    "cifar-python": Kind(
        [python2_pickle(IMAGES, [1, 2]), pickle.dumps({b"data": IMAGES, b"labels": [1, 2]}, 4)],
        lambda path: read_python(path, 2),
        _images,
    ),
    "config": Kind([yaml.safe_dump(CONFIG).encode()], _config, lambda found: found is None),
    "config-of-a-run": Kind(
        [yaml.safe_dump(CONFIG).encode()],
        lambda path: read_run_config(RunFolder(path.parent)),
        lambda found: isinstance(found, RunConfig),
    ),
    "sweep": Kind([SWEEP.encode()], read_sweep, lambda found: isinstance(found, Sweep)),
    "job": Kind([json.dumps(JOB).encode()], _job, lambda found: isinstance(found, JobSpec)),
    "claims": Kind(
        [
            json.dumps([CLAIM, CLAIM]).encode(),
            json.dumps({"version": 2, "claims": [CLAIM], **MADE}).encode(),
            json.dumps({"version": 3, "claims": [JUDGED], **MADE}).encode(),
        ],
        read_claims,
        lambda found: isinstance(found, ClaimsRecord),
    ),
    "variants": Kind([json.dumps(VARIANTS).encode()], read_variants, lambda found: isinstance(found, VariantsRecord)),
    "finished": Kind([json.dumps(ENDED).encode()], read_provenance, lambda found: isinstance(found, Provenance)),
    "table": Kind([TABLE], read_parquet, lambda found: isinstance(found, pd.DataFrame)),
    "run-with-metrics": Kind([METRICS], lambda path: read_run(path.parent), lambda found: isinstance(found, Section)),
    "run-with-measures": Kind([TABLE], lambda path: read_run(path.parent), lambda found: isinstance(found, Section)),
}

# Names of the files, if they matter.
FILES = {
    "safetensors": "x.safetensors",
    "safetensors-header": "x.safetensors",
    "config-of-a-run": "config.yaml",
    "job": "jobs/a.json",
    "run-with-metrics": "metrics.csv",
    "run-with-measures": "measures.parquet",
}

# The other files of a run.
RUN_FILES = {
    "finished.json": json.dumps(ENDED).encode(),
    "metrics.csv": METRICS,
    "measures.parquet": TABLE,
    "config.yaml": yaml.safe_dump(CONFIG).encode(),
}
