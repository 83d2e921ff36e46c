"""Logs how large the weights are."""

from pytorch_lightning import Trainer

from lnsgd import measures
from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.callbacks.measurements import Measurement
from lnsgd.modules.replicated import Subject


class WeightNorms(MeasureCallback):
    """Logs ``norm/<tensor>`` for every parameter, and for biases ``bias_mean/<tensor>`` and ``bias_max/<tensor>``.

    See `lnsgd.measures.tensor_statistics`; a parameter of one dimension is a bias. For its arguments see
    `lnsgd.callbacks.measure.MeasureCallback`.
    """

    headline = ("norm", "norm")

    def measure(self, trainer: Trainer, subject: Subject) -> list[Measurement]:
        """Statistics of each tensor."""
        parameters = dict(subject.module.named_parameters())
        found = []
        for name, of_tensor in measures.tensor_statistics(parameters).items():
            found.append(Measurement("norm", "", name, of_tensor.norm))
            if parameters[name].ndim == 1:
                found.append(Measurement("bias_mean", "", name, of_tensor.mean))
                found.append(Measurement("bias_max", "", name, of_tensor.largest))
        return found
