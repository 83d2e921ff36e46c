"""Fixtures of the tests of modules."""

from collections.abc import Iterator

import pytest
import torch

from lnsgd.replicas.general import GeneralEngine


@pytest.fixture
def quick_replicas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything in float64, and no step compiled, which takes longer than these runs."""
    monkeypatch.setattr(GeneralEngine.__init__, "__defaults__", (False,))
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
