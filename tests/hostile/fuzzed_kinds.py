"""What is fuzzed: for each kind of file, valid ones, how it is read, and what must come of it."""

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
from lnsgd.analysis.run_config import Configured, read_config
from lnsgd.checkpoints import load_run_checkpoint
from lnsgd.data.cifar10 import PIXELS, read_binary, read_python
from lnsgd.data.mnist import read_idx
from lnsgd.report.content import Section
from lnsgd.report.figure_section import read_claims
from lnsgd.report.run_section import read_ended, read_run
from lnsgd.run_folder import RunFolder
from lnsgd.sweep.folder import JobSpec, SweepFolder
from lnsgd.sweep.grid import Sweep, read_sweep
from lnsgd.training import check_config_files
from lnsgd.untrusted.tables import read_parquet
from tests.data.cifar_files import python2_pickle
from tests.hostile import hostile_files as hostile

STATE = {"net.weight": torch.arange(12.0).reshape(3, 4), "net.bias": torch.ones(3, dtype=torch.float64)}
RUN = {"state_dict": STATE, "epoch": 1, "global_step": 7, "loops": {"a": [1, 2.5, None, (3, "x")]}}
ARCHIVE = hostile.saved(RUN)
LEGACY = hostile.saved(RUN, _use_new_zipfile_serialization=False)
IMAGES = np.arange(2 * PIXELS, dtype=np.uint64).astype(np.uint8).reshape(2, PIXELS)

CONFIG = {
    "seed_everything": 0,
    "model": {
        "class_path": "lnsgd.modules.Classifier",
        "init_args": {
            "net": {"class_path": "lnsgd.models.MLP", "init_args": {"widths": [784, 6, 10]}},
            "loss": {"class_path": "lnsgd.losses.LogisticLoss"},
            "label_noise": {"class_path": "lnsgd.label_noise.UniformNoise", "init_args": {"p": 0.1}},
        },
    },
    "data": {"class_path": "lnsgd.data.MNIST", "init_args": {"source": "sample", "subset": 50}},
    "trainer": {"max_epochs": 1},
}
SWEEP = "base: base.yaml\noptions: {a: 1}\ngrid:\n  p: [0.0, 0.1]\n  q: [x, y]\nseeds: 3\nwandb: {group: g}\n"
CLAIM = {
    **{"claim": "c", "source": "Fig. 1", "paper": 0.1, "measured": 0.2, "std": None, "n": 2},
    **{"low": 0.0, "high": None, "holds": True},
}
ENDED = {
    **{"steps": 10, "epochs": 1, "seconds": 2.5, "device": "cpu", "threads": 1, "stopped_by": "limit"},
    **{"versions": {"lnsgd": "0.1.0"}, "ended": "2026-01-01T00:00:00+00:00"},
}
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
        valid: Content of files that are read.
        read: Reads a file.
        good: Whether what came of it is of the right types.
        packed: Puts what is mutated, a part of a file, into the whole, with lengths and checksums right.
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
        lambda path: weights.read(path).tensors,
        _tensors,
        lambda content: hostile.repacked(ARCHIVE, {"data.pkl": content}),
    ),
    "legacy": Kind([LEGACY], load_run_checkpoint, lambda found: _tensors(found["state_dict"])),
    "safetensors": Kind([save(STATE)], lambda path: weights.read(path).tensors, _tensors),
    "safetensors-header": Kind(
        [save(STATE)[8:-72]],
        lambda path: weights.read(path).tensors,
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
        lambda path: read_config(RunFolder(path.parent)),
        lambda found: isinstance(found, Configured),
    ),
    "sweep": Kind([SWEEP.encode()], read_sweep, lambda found: isinstance(found, Sweep)),
    "job": Kind([json.dumps(JOB).encode()], _job, lambda found: isinstance(found, JobSpec)),
    "claims": Kind([json.dumps([CLAIM, CLAIM]).encode()], read_claims, lambda found: isinstance(found, list)),
    "finished": Kind([json.dumps(ENDED).encode()], read_ended, lambda found: isinstance(found, dict)),
    "table": Kind([TABLE], read_parquet, lambda found: isinstance(found, pd.DataFrame)),
    "run-with-metrics": Kind([METRICS], lambda path: read_run(path.parent), lambda found: isinstance(found, Section)),
    "run-with-measures": Kind([TABLE], lambda path: read_run(path.parent), lambda found: isinstance(found, Section)),
}

# What files are called, where that counts.
FILES = {
    "safetensors": "x.safetensors",
    "safetensors-header": "x.safetensors",
    "config-of-a-run": "config.yaml",
    "job": "jobs/a.json",
    "run-with-metrics": "metrics.csv",
    "run-with-measures": "measures.parquet",
}

# What a run has beside the fuzzed file.
RUN_FILES = {
    "finished.json": json.dumps(ENDED).encode(),
    "metrics.csv": METRICS,
    "measures.parquet": TABLE,
    "config.yaml": yaml.safe_dump(CONFIG).encode(),
}
