"""Networks that are named on the command line, with arguments that only ``**kwargs`` of their factory takes."""

import pytest
from torch import nn

from lnsgd.analysis.named_objects import build_model


def create(name: str, width: int = 2, **further):
    net = nn.Linear(width, 2)
    net.given = {"name": name, "width": width, **further}
    return net


class Factory(nn.Module):
    def __init__(self, width: int = 2, **further):
        super().__init__()
        self.given = {"width": width, **further}


def test_arguments_of_keyword_dictionaries_are_read_as_yaml():
    args = ["--model.name=resnet", "--model.depths=[1, 2]", "--model.width", "3", "--model.rate", "0.5"]
    assert build_model(f"{__name__}.create", args).given == {
        "name": "resnet", "width": 3, "depths": [1, 2], "rate": 0.5,
    }  # fmt: skip
    assert build_model(f"{__name__}.Factory", args[1:]).given == {"width": 3, "depths": [1, 2], "rate": 0.5}


def test_timm_networks_are_built():
    pytest.importorskip("timm")
    args = ["--model.model_name=resnet10t", "--model.num_classes=3", "--model.stem_width=8", "--model.in_chans=1"]
    net = build_model("timm.create_model", args)
    assert net.fc.out_features == 3
    assert next(net.parameters()).shape[1] == 1


def test_unknown_arguments_are_refused():
    with pytest.raises(ValueError, match="Linear takes no 'width'; it takes in_features"):
        build_model("torch.nn.Linear", ["--model.width=3"])
