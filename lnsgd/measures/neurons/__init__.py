"""Measures of how often the units of a network fire, in total and for each class."""

from lnsgd.measures.neurons.activations import ACTIVATION_FUNCTIONS, ACTIVATION_TYPES, is_activation
from lnsgd.measures.neurons.class_association import (
    associated_class,
    associated_count,
    channel_sums,
    class_firings,
)
from lnsgd.measures.neurons.class_variance import ClassVariance, class_variance
from lnsgd.measures.neurons.features import features
from lnsgd.measures.neurons.firings import (
    Firings,
    UnitCount,
    active_count,
    count_firings,
    dead_count,
    mean_active,
    total_count,
)
from lnsgd.measures.neurons.hidden_units import HiddenLayer, hidden_units
from lnsgd.measures.neurons.observation import Observation, observe
from lnsgd.measures.neurons.site_counts import (
    SiteCounts,
    active_neurons,
    class_associated_neurons,
    dead_neurons,
)
from lnsgd.measures.neurons.site_firings import SiteFirings, site_firings
from lnsgd.measures.neurons.sites import TOTAL, Sites, activation_sites, names_of_calls

__all__ = [
    "ACTIVATION_FUNCTIONS",
    "ACTIVATION_TYPES",
    "TOTAL",
    "ClassVariance",
    "Firings",
    "HiddenLayer",
    "Observation",
    "SiteCounts",
    "SiteFirings",
    "Sites",
    "UnitCount",
    "activation_sites",
    "active_count",
    "active_neurons",
    "associated_class",
    "associated_count",
    "channel_sums",
    "class_associated_neurons",
    "class_firings",
    "class_variance",
    "count_firings",
    "dead_count",
    "dead_neurons",
    "features",
    "hidden_units",
    "is_activation",
    "mean_active",
    "names_of_calls",
    "observe",
    "site_firings",
    "total_count",
]
