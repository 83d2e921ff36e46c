"""The general engine on every device against one ordinary PyTorch loop per replica on the CPU, in float64.

On CUDA a compiled step is a CUDA graph, which must be captured anew when tensors move.
"""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lnsgd.losses import CrossEntropy
from lnsgd.models import MLP
from lnsgd.replicas import choose_engine
from lnsgd.replicas.engines.base import Batches, StepRule, TrainingState
from lnsgd.replicas.engines.general import GeneralEngine
from tests.replicas.engines.test_general import NETS, POOL, batches_of, inputs_of, loop, networks, part, stacked

# The devices sum in another order.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}

MOMENTUM = 0.9

# Compiling takes tens of seconds on a CPU, where the tests of the engine do it, too.
EAGER_OR_COMPILED = pytest.mark.parametrize(
    "compile", [pytest.param(False, id="eager"), pytest.param(True, id="compiled", marks=pytest.mark.slow)]
)


class Run:
    """Replicas of some networks on a device, which an engine trains."""

    def __init__(
        self,
        nets: list[nn.Module],
        device: torch.device,
        compile: bool,
        inputs: Tensor | None = None,
        steps_per_width: int | None = None,
    ) -> None:
        self.nets, self.device = nets, device
        self.inputs = inputs_of() if inputs is None else inputs
        state = stacked(nets, MOMENTUM)
        parameters = {
            name: nn.Parameter(p.detach().to(device), p.requires_grad) for name, p in state.parameters.items()
        }
        velocity = {name: v.to(device) for name, v in state.velocity.items()}
        self.state = TrainingState(parameters, velocity, state.frozen_at.to(device))
        rule = StepRule(copy.deepcopy(nets[0]).to(device), CrossEntropy(), "hard", MOMENTUM)
        self.engine = GeneralEngine(
            rule, self.state, self.inputs.to(device), compile=compile, steps_per_width=steps_per_width
        )

    def take(self, batches: Batches, start: int, stop: int) -> Tensor:
        """Take some steps of the batches, whose targets are on the device, as those of a run are."""
        given = part(batches, start, stop)
        return self.engine.run(replace(given, targets=given.targets.to(self.device)))

    def assert_as_loops(self, batches: Batches, steps: list[int]) -> None:
        """Compare each replica with a loop on the CPU that takes so many steps."""
        for r, net in enumerate(self.nets):
            expected, _ = loop(net, r, part(batches, 0, steps[r]), CrossEntropy(), MOMENTUM, self.inputs)
            for name, parameter in expected.named_parameters():
                torch.testing.assert_close(self.state.parameters[name][r].detach().cpu(), parameter.detach(), **CLOSE)


@EAGER_OR_COMPILED
@pytest.mark.parametrize("name", ["two-hidden", "convolutional"])
def test_steps_are_those_of_plain_sgd(device, name, compile):
    batches = batches_of(3, 40, 3, "hard", 3, varying=True)
    run = Run(networks(NETS[name], 3), device, compile)
    losses = run.take(batches, 0, 40)
    assert (losses.device.type, losses.dtype) == ("cpu", torch.float64)
    run.assert_as_loops(batches, [40] * 3)


@EAGER_OR_COMPILED
def test_others_continue_when_replicas_were_stopped(device, compile):
    """From step 20 on fewer replicas are computed, in other memory."""
    batches = batches_of(4, 60, 2, "hard", 3)
    run = Run(networks(NETS["two-hidden"], 4), device, compile, steps_per_width=10)
    run.take(batches, 0, 13)
    run.state.frozen_at[:3] = 13
    run.take(batches, 13, 45)
    run.take(batches, 45, 60)
    run.assert_as_loops(batches, [13, 13, 13, 60])


@EAGER_OR_COMPILED
def test_diverged_replica_is_frozen_at_its_step(device, compile):
    batches = batches_of(3, 50, 2, "hard", 3)
    batches.rows[1, 3:5, 1] = POOL
    inputs = torch.cat([inputs_of(), torch.full((1, 4), float("nan"), dtype=torch.float64)])
    run = Run(networks(NETS["two-hidden"], 3), device, compile, inputs)
    run.take(batches, 0, 50)
    assert run.state.frozen_at.tolist() == [-1, 3, -1]
    run.assert_as_loops(batches, [50, 3, 50])


@EAGER_OR_COMPILED
def test_how_steps_are_divided_into_calls_changes_no_bit(device, compile):
    nets, batches = networks(NETS["two-hidden"], 3), batches_of(3, 70, 2, "hard", 3)
    found = []
    for cuts in ([0, 70], [0, 1, 33, 70]):
        run = Run(nets, device, compile)
        for start, stop in pairwise(cuts):
            run.take(batches, start, stop)
        found.append([parameter.detach().cpu() for parameter in run.state.parameters.values()])
    for one, other in zip(*found):
        assert torch.equal(one, other)


def test_engine_is_chosen_by_device(device):
    rule = StepRule(MLP([4, 6, 3]).to(device), CrossEntropy(), "hard")
    engine, _ = choose_engine("auto", rule, device)
    assert engine.name == ("kernel" if device.type == "cpu" else "general")
