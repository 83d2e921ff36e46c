"""Names of measures: each stands for one measurer and one callback; misspelled names are explained."""

import inspect

import pytest

from lnsgd import callbacks, measuring
from lnsgd.measuring import (
    MEASURERS,
    ActiveNeuronsMeasurer,
    HessianTraceMeasurer,
    Measurer,
    callback_class_name,
    measurer_class,
    measurers_named,
)


def test_every_public_measurer_has_a_name():
    public = [getattr(measuring, name) for name in measuring.__all__]
    concrete = {kind for kind in public if inspect.isclass(kind) and issubclass(kind, Measurer)}
    assert set(MEASURERS.values()) == {kind for kind in concrete if not inspect.isabstract(kind)}


@pytest.mark.parametrize("name", MEASURERS)
def test_every_name_stands_for_a_measurer_and_its_callback(name):
    callback = getattr(callbacks, callback_class_name(name))
    assert issubclass(callback, measurer_class(name))
    assert isinstance(measurers_named(name)[0], measurer_class(name))


@pytest.mark.parametrize("name", ["active_neurons", "ActiveNeurons", "ActiveNeuronsMeasurer", " active_neurons"])
def test_a_class_name_is_a_name_too(name):
    assert measurer_class(name) is ActiveNeuronsMeasurer


def test_a_misspelled_name_is_explained_in_one_line():
    with pytest.raises(ValueError, match=r"no measure 'activ_neuron'; did you mean 'active_neurons'\?") as caught:
        measurers_named(["activ_neuron"])
    assert "hessian_trace" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no measure 'xyz'; the measures are"):
        measurer_class("xyz")


@pytest.mark.parametrize("wrong", [3, HessianTraceMeasurer, None])
def test_what_is_no_measurer_is_refused(wrong):
    with pytest.raises(ValueError, match=r"measures has .*; give names"):
        measurers_named([wrong])


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="no measures are given"):
        measurers_named([])


def test_named_measurers_take_the_splits_that_there_are():
    own = HessianTraceMeasurer(split="test", examples=7)
    names = ["performance", "active_neurons", "class_association", "hessian_trace", "singular_values", own]
    *several, trace, singular, given = measurers_named(names, ["val", "test"])
    assert all(list(measurer.measured_splits) == ["val", "test"] for measurer in [*several, singular])
    assert trace.split == "val"
    assert given is own
    assert measurers_named("hessian_trace", ["val", "train"])[0].split == "train"
