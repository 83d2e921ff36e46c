"""A measure of the user's own is taken in eval mode, with gradients off, and changes nothing of the network."""

import pytest
import torch
from torch import nn

from lnsgd.callbacks.base import DataCallback
from lnsgd.measuring import Measurement, MeasurementPlan, Measurer, PlainContext, Source, Subject
from tests.callbacks.foreign_project import loader, project, rows, trainer_in


class Conditions(Measurer):
    """A measure that says under which conditions it is taken, and draws from the global generator."""

    headline = ("training", "training")

    def measure(self, subject, source, context):
        torch.rand(1)
        output = subject.module(torch.ones(1, next(subject.module.parameters()).shape[1]))
        found = {"training": subject.module.training, "gradients": output.requires_grad}
        return [Measurement(name, "", "", float(value)) for name, value in found.items()]


class ConditionsCallback(Conditions, DataCallback):
    """The measure as a callback."""


def values(found):
    return {row.measure: row.value for row in found}


def take(net):
    return values(Conditions().take(Subject(net), Source(), PlainContext()))


def measure_in_one_call(net):
    return values(MeasurementPlan(net, {}, [Conditions()]).take())


@pytest.mark.parametrize("how", [take, measure_in_one_call])
def test_an_own_measure_is_taken_in_eval_mode_without_gradients(how):
    net, state = nn.Sequential(nn.Linear(3, 2), nn.Dropout()), torch.get_rng_state()
    assert how(net) == {"training": 0, "gradients": 0}
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)


def test_an_own_callback_is_taken_in_eval_mode_without_gradients(tmp_path):
    trainer_in(tmp_path, [ConditionsCallback()]).fit(project(), loader())
    found = rows(tmp_path)
    assert {(measured, value) for (_, measured, _, _), value in found.items()} == {("training", 0), ("gradients", 0)}
