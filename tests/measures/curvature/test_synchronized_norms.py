"""In eval mode, synchronized batch normalization is measured as the plain one, by the same rules."""

import copy

import pytest
import torch
from torch import nn

from lnsgd.losses import CrossEntropy
from lnsgd.measures import hessian_trace
from lnsgd.measures.curvature.example_gradients import ExampleGradients
from lnsgd.models import ResNet20
from lnsgd.models.sync_batch_norm import SyncBatchNorm, synchronize_batch_norm


def ours(net: nn.Module) -> nn.Module:
    synchronize_batch_norm(net)
    assert any(isinstance(layer, SyncBatchNorm) for layer in net.modules())
    return net


CONVERSIONS = {"ours": ours, "torch": nn.SyncBatchNorm.convert_sync_batchnorm}


@pytest.fixture
def networks(request):
    torch.manual_seed(0)
    plain = ResNet20(width=2).double()
    for layer in plain.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
    return plain.eval(), CONVERSIONS[request.param](copy.deepcopy(plain)).eval()


@pytest.mark.parametrize("networks", CONVERSIONS, indirect=True)
def test_every_tensor_has_a_rule(networks):
    inputs, cotangents = torch.randn(3, 3, 32, 32).double(), torch.randn(3, 10).double()
    passes = [ExampleGradients(net, dict(net.named_parameters())).forward(inputs) for net in networks]
    assert [forward._rest for forward in passes] == [[], []]
    plain, synchronized = (forward.squared_norms(cotangents) for forward in passes)
    torch.testing.assert_close(synchronized, plain, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["auto", "ggn"])
@pytest.mark.parametrize("networks", CONVERSIONS, indirect=True)
def test_hessian_trace(networks, method):
    data = [(torch.randn(5, 3, 32, 32).double(), torch.arange(5))]
    plain, synchronized = (hessian_trace(net, CrossEntropy(), data, method=method) for net in networks)
    assert synchronized == plain
