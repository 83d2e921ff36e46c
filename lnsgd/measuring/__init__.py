"""Measuring a network, independently of how it is trained: subjects, batches, and a measurer for each measure."""

from lnsgd.measuring.context import Context, LoadedData, PlainContext, PlainPrecision, Precision, Split
from lnsgd.measuring.curvature import (
    GradientNormMeasurer,
    HessianTraceMeasurer,
    ImplicitRegularizerMeasurer,
    SpectralDensityMeasurer,
    TopEigenvaluesMeasurer,
)
from lnsgd.measuring.initial_weights import InitialWeights
from lnsgd.measuring.loaders import unreadable
from lnsgd.measuring.measurement import (
    AVERAGED,
    REPLACED,
    TRAINED,
    Distribution,
    Measurement,
    Picture,
    leaf_names,
    scalars,
)
from lnsgd.measuring.measurer import Measurer, Need
from lnsgd.measuring.names import MEASURERS, callback_class_name, measurer_class, measurers_named
from lnsgd.measuring.neurons import (
    ActivationMeasurer,
    ActiveNeuronsMeasurer,
    ClassAssociationMeasurer,
    DeadNeuronsMeasurer,
    HiddenUnitsMeasurer,
)
from lnsgd.measuring.outputs import (
    ClassVarianceMeasurer,
    LargestOutputMeasurer,
    MarginMeasurer,
    PerformanceMeasurer,
)
from lnsgd.measuring.plan import MeasurementPlan, unwrapped
from lnsgd.measuring.source import Batch, BatchLayout, GivenData, MeasurementData, Source
from lnsgd.measuring.special_networks import CurveShapeMeasurer, RecoveryErrorMeasurer, SharpnessMeasurer
from lnsgd.measuring.subject import PerExampleLoss, Subject
from lnsgd.measuring.weights import (
    ClusterCountMeasurer,
    DistanceFromInitMeasurer,
    SingularValuesMeasurer,
    WeightNormsMeasurer,
)

__all__ = [
    "AVERAGED",
    "MEASURERS",
    "REPLACED",
    "TRAINED",
    "ActivationMeasurer",
    "ActiveNeuronsMeasurer",
    "Batch",
    "BatchLayout",
    "ClassAssociationMeasurer",
    "ClassVarianceMeasurer",
    "ClusterCountMeasurer",
    "Context",
    "CurveShapeMeasurer",
    "DeadNeuronsMeasurer",
    "DistanceFromInitMeasurer",
    "Distribution",
    "GivenData",
    "GradientNormMeasurer",
    "HessianTraceMeasurer",
    "HiddenUnitsMeasurer",
    "ImplicitRegularizerMeasurer",
    "InitialWeights",
    "LargestOutputMeasurer",
    "LoadedData",
    "MarginMeasurer",
    "Measurement",
    "MeasurementData",
    "MeasurementPlan",
    "Measurer",
    "Need",
    "PerExampleLoss",
    "PerformanceMeasurer",
    "Picture",
    "PlainContext",
    "PlainPrecision",
    "Precision",
    "RecoveryErrorMeasurer",
    "SharpnessMeasurer",
    "SingularValuesMeasurer",
    "Source",
    "SpectralDensityMeasurer",
    "Split",
    "Subject",
    "TopEigenvaluesMeasurer",
    "WeightNormsMeasurer",
    "callback_class_name",
    "leaf_names",
    "measurer_class",
    "measurers_named",
    "scalars",
    "unreadable",
    "unwrapped",
]
