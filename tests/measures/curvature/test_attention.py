"""Second derivatives of networks with attention."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lnsgd.measures import top_eigenvalues
from tests.reference.measures import dense_hessian


class Attention(nn.Module):
    """Attention with one head over four tokens of three features; torch chooses the kernel."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        tokens = x.unflatten(1, (4, 3))
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_eigenvalues_are_those_of_the_dense_hessian():
    torch.manual_seed(0)
    model, loss = Attention(), nn.CrossEntropyLoss(reduction="none")
    inputs, labels = torch.randn(8, 12), torch.tensor([0, 1] * 4)
    with sdpa_kernel(SDPBackend.MATH):
        dense, _ = dense_hessian(model, loss, inputs, labels)
    found = top_eigenvalues(model, loss, [(inputs, labels)], count=2, rtol=1e-4)
    expected = torch.linalg.eigvalsh(dense).flip(0)[:2].tolist()
    assert found.values.tolist() == pytest.approx(expected, rel=1e-3)
