"""Shared fixtures: where the full data sets are, and a quiet, small training run."""

import os
from pathlib import Path

import pytest
import torch

# Test processes run side by side; threads of one would only wait for those of the other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def full_data() -> Path:
    """Folder of the full data sets; tests that need it are skipped where there is none."""
    folder = os.environ.get("LNSGD_DATA_DIR")
    if not folder or not (Path(folder) / "MNIST" / "raw").is_dir():
        pytest.skip("needs the full MNIST: set LNSGD_DATA_DIR to a folder with MNIST/raw")
    return Path(folder)
