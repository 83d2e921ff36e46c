"""Measuring without a Trainer: subjects, sources, contexts, and every measurer on a plain network."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lnsgd import measures, rng
from lnsgd.losses import CrossEntropy
from lnsgd.measuring import (
    ActiveNeuronsMeasurer,
    ClassAssociationMeasurer,
    ClassVarianceMeasurer,
    DeadNeuronsMeasurer,
    DistanceFromInitMeasurer,
    GradientNormMeasurer,
    HessianTraceMeasurer,
    ImplicitRegularizerMeasurer,
    LargestOutputMeasurer,
    MarginMeasurer,
    Measurement,
    MeasurementPlan,
    Measurer,
    PerformanceMeasurer,
    PlainContext,
    PlainPrecision,
    SingularValuesMeasurer,
    Source,
    SpectralDensityMeasurer,
    Subject,
    TopEigenvaluesMeasurer,
    WeightNormsMeasurer,
)
from lnsgd.models import MLP

INPUTS, CLASSES, EXAMPLES = 6, 3, 33


def dataset(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(
        torch.randn(EXAMPLES, INPUTS, generator=generator), torch.randint(CLASSES, (EXAMPLES,), generator=generator)
    )


def loaders(batch_size=8):
    return {split: DataLoader(dataset(seed), batch_size) for seed, split in enumerate(("train", "val"), 1)}


def network():
    torch.manual_seed(0)
    return MLP([INPUTS, 7, CLASSES], activation="relu")


class CountedNetwork(nn.Module):
    """A network that says to others how many examples each forward pass has; what it keeps itself is put back."""

    def __init__(self, calls):
        super().__init__()
        self.net = network()
        self.report = calls.append

    def forward(self, inputs):
        self.report(len(inputs))
        return self.net(inputs)


LOSS = CrossEntropy()
MEASURERS = [
    ActiveNeuronsMeasurer(),
    ClassAssociationMeasurer(),
    ClassVarianceMeasurer(),
    DeadNeuronsMeasurer(),
    DistanceFromInitMeasurer(),
    GradientNormMeasurer(loss=LOSS),
    HessianTraceMeasurer(loss=LOSS),
    ImplicitRegularizerMeasurer(),
    LargestOutputMeasurer(),
    MarginMeasurer(),
    PerformanceMeasurer(loss=LOSS),
    SingularValuesMeasurer(),
    SpectralDensityMeasurer(loss=LOSS, probes=2, steps=4),
    TopEigenvaluesMeasurer(loss=LOSS),
    WeightNormsMeasurer(),
]


def subject(module=None):
    module = module or network()
    return Subject(module, init={name: torch.zeros_like(p) for name, p in module.named_parameters()})


@pytest.mark.parametrize("measurer", MEASURERS, ids=lambda measurer: type(measurer).__name__)
def test_every_measurer_takes_its_measure_of_a_plain_network(measurer):
    context = PlainContext(loaders())
    of = subject()
    measurer.check(of.module)
    found = measurer.measure(of, Source(), context)
    assert found
    assert all(math.isfinite(row.value) for row in found)
    assert {row.split for row in found} - {""} == set(measurer.measured_splits)
    assert measurer.headline[0] in {row.measure for row in found}
    assert set(measurer.identity) == set(measurer.identified_by)


def test_measuring_moves_nothing():
    of, before = subject(), torch.get_rng_state()
    of.module.train()
    weights = {name: p.clone() for name, p in of.module.state_dict().items()}
    for measurer in MEASURERS:
        measurer.measure(of, Source(), PlainContext(loaders()))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in of.module.state_dict().items())
    assert all(module.training for module in of.module.modules())
    assert all(p.grad is None for p in of.module.parameters())


def test_the_numbers_are_those_of_the_measures():
    net = network()
    rows = HessianTraceMeasurer(loss=LOSS, seed=3).measure(Subject(net), Source(), PlainContext(loaders()))
    batches = list(loaders()["train"])
    expected = measures.hessian_trace(net, LOSS, batches, generator=rng.generator(3, "probes")).total
    assert rows[0].value == pytest.approx(expected.value, rel=1e-6)
    assert rows[0].stderr == pytest.approx(expected.standard_error, rel=1e-4)


def test_measurers_of_the_same_sites_share_one_pass_with_the_classes_that_any_needs():
    calls = []
    module, source = CountedNetwork(calls), Source()
    measurers = [ActiveNeuronsMeasurer(["val"]), ClassAssociationMeasurer(splits=["val"]), DeadNeuronsMeasurer(["val"])]
    context = PlainContext(loaders(), together=[(measurer, source) for measurer in measurers])
    of = Subject(module)
    for measurer in measurers:
        measurer.measure(of, source, context)
    assert calls == [2, 8, 8, 8, 8, 1]  # two examples show which axis is that of the examples


def test_a_plan_takes_all_measures_of_a_network_in_shared_passes():
    """Counts against a loop over the examples, distances against a norm; one forward pass for both site measures."""
    calls = []
    module = CountedNetwork(calls)
    init = {name: p + 0.5 for name, p in module.named_parameters()}
    measurers = [ActiveNeuronsMeasurer(["val"]), DeadNeuronsMeasurer(["val"]), DistanceFromInitMeasurer()]
    found = {row.name: row.value for row in MeasurementPlan(module, loaders(), measurers, init=init).take()}
    assert calls == [4, 2, 2, 8, 8, 8, 8, 1]  # first the few examples of the guard, and those that show the sites
    inputs = dataset(2).tensors[0]
    fired = torch.stack([module.net.layers[0](x) > 0 for x in inputs])
    total, site = [name.removeprefix("active_count/val/") for name in found if name.startswith("active_count")]
    assert total == "total"
    assert found[f"active_count/val/{site}"] == pytest.approx(fired.sum(1).double().mean().item())
    assert found[f"dead_count/val/{site}"] == (fired.sum(0) == 0).sum()
    assert found["distance_from_init"] == pytest.approx(0.5 * sum(p.numel() for p in init.values()) ** 0.5)


def test_a_plan_refuses_a_network_without_parameters():
    with pytest.raises(ValueError, match="Flatten has no parameters"):
        MeasurementPlan(nn.Flatten(), loaders(), [ActiveNeuronsMeasurer()])


def test_a_new_subject_is_measured_anew():
    net, measurer, context = network(), ActiveNeuronsMeasurer(["val"]), PlainContext(loaders())
    before = measurer.measure(Subject(net), Source(), context)
    with torch.no_grad():
        net.layers[0].bias.add_(10.0)
    after = measurer.measure(Subject(net), Source(), context)
    assert before[1].value < after[1].value == 1.0


def test_once_computes_at_the_first_request():
    of, calls = Subject(network()), []
    for _ in range(2):
        assert of.once("key", lambda: calls.append(1) or "found") == "found"
    assert calls == [1]


def test_data_given_for_a_split_comes_before_the_loaders_of_the_context():
    given = DataLoader(dataset(seed=9), 5)
    batches = list(Source({"val": given}).batches(Subject(network()), "val", None, PlainContext(loaders())))
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), dataset(seed=9).tensors[0])


def test_a_layout_says_where_inputs_and_labels_are():
    examples = [{"image": x, "label": y} for x, y in dataset()]
    source = Source({"train": DataLoader(examples, 4)}, batch=lambda batch: (batch["image"], batch["label"]))
    inputs, _ = next(iter(source.batches(Subject(network()), "train", None, PlainContext())))
    assert inputs.shape == (4, INPUTS)
    by_default, _ = next(
        iter(Source({"train": DataLoader(examples, 4)}).batches(Subject(network()), "train", None, PlainContext()))
    )
    torch.testing.assert_close(by_default["image"], inputs)
    without = Source({"train": DataLoader([{"image": x, "class": y} for x, y in dataset()], 4)})
    with pytest.raises(ValueError, match="say where a batch has inputs"):
        next(iter(without.batches(Subject(network()), "train", None, PlainContext())))


def test_a_missing_split_is_named():
    with pytest.raises(ValueError, match="the test data is missing"):
        Source().batches(Subject(network()), "test", None, PlainContext(loaders()))


def test_missing_initial_weights_are_named():
    with pytest.raises(ValueError, match="θ₀ are not known"):
        DistanceFromInitMeasurer().measure(Subject(network()), Source(), PlainContext())


def test_the_spectrum_is_found_once_for_numbers_tensors_and_picture(monkeypatch):
    calls, compute = [], measures.spectral_density

    def counted(*args, **options):
        calls.append(1)
        return compute(*args, **options)

    monkeypatch.setattr(measures, "spectral_density", counted)
    measurer = SpectralDensityMeasurer(loss=LOSS, probes=2, steps=4, top=1)
    of, context = Subject(network()), PlainContext(loaders())
    low, high, _ = measurer.measure(of, Source(), context)
    tensors = measurer.tensors(of, Source(), context)
    (picture,) = measurer.pictures(tensors)
    assert calls == [1]
    assert (low.value, high.value) == (tensors["nodes"].min(), tensors["nodes"].max())
    assert picture.named("replica1/") == "spectral_density/replica1/train"


def test_a_diverged_network_has_no_spectrum():
    net = network()
    with torch.no_grad():
        net.layers[0].weight.fill_(torch.nan)
    measurer, of, context = SpectralDensityMeasurer(loss=LOSS), Subject(net), PlainContext(loaders())
    assert all(math.isnan(row.value) for row in measurer.measure(of, Source(), context))
    assert measurer.pictures(measurer.tensors(of, Source(), context)) == []


@pytest.mark.parametrize(("name", "dtype"), [("32-true", torch.float32), ("64-true", torch.float64)])
def test_precision_converts_module_and_batches(name, dtype):
    precision = PlainPrecision(name)
    assert next(precision.convert_module(network()).parameters()).dtype == dtype
    inputs, labels = precision.convert_input((torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.int64)))
    assert (inputs.dtype, labels.dtype) == (dtype, torch.int64)


def test_mixed_precision_is_autocast():
    with PlainPrecision("bf16-mixed").forward_context():
        assert network()(torch.ones(1, INPUTS)).dtype == torch.bfloat16


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision = '8-true'; choose one of"):
        PlainPrecision("8-true")


def test_a_measurer_of_ones_own_needs_one_method():
    class Parameters(Measurer):
        headline = ("parameters", "parameters")

        def measure(self, subject, source, context):
            return [Measurement("parameters", "", "", sum(p.numel() for p in subject.module.parameters()))]

    assert Parameters().measure(Subject(nn.Linear(2, 3)), Source(), PlainContext())[0].value == 9
