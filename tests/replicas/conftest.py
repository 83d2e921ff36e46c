"""Fixtures of the tests of replicas."""

from collections.abc import Iterator

import pytest
import torch

from lnsgd.replicas.engines.general import GeneralEngine


@pytest.fixture
def quick_replicas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use float64, steps that are not compiled (compiling takes longer than these runs), and soon fewer replicas."""
    monkeypatch.setattr(GeneralEngine.__init__, "__defaults__", (False,))
    monkeypatch.setattr(GeneralEngine.__init__, "__kwdefaults__", {"steps_per_width": 4})
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
