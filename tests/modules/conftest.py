"""Fixtures of the tests of modules."""

from collections.abc import Iterator

import pytest
import torch

from lnsgd.replicas.general import GeneralEngine


@pytest.fixture
def quick_replicas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything in float64, no step compiled, which takes longer than these runs, and narrower stacks at once."""
    monkeypatch.setattr(GeneralEngine.__init__, "__defaults__", (False,))
    monkeypatch.setattr(GeneralEngine.__init__, "__kwdefaults__", {"steps_per_width": 4})
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
