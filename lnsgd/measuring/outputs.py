"""Measurers of outputs and of the features before them: loss, error, margins, the variance within classes."""

import math
from collections.abc import Sequence
from typing import Any

from lnsgd import measures
from lnsgd.measuring.context import Context, Split
from lnsgd.measuring.measurement import Measurement
from lnsgd.measuring.measurer import SeveralSplits
from lnsgd.measuring.source import Source
from lnsgd.measuring.subject import PerExampleLoss, Subject


class PerformanceMeasurer(SeveralSplits):
    """Measures ``loss/<split>`` and, for class labels, ``error/<split>`` on clean labels.

    See `lnsgd.measures.performance`.

    Args:
        splits: Splits of the data.
        examples: Size of the subset of each split, fixed and keyed; ``null`` for whole splits.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: on measuring, there is no loss.
    """

    headline = ("loss", "loss")
    needs = frozenset(("outputs", "loss"))
    identified_by = ("splits", "examples", "loss")

    def __init__(
        self,
        splits: Sequence[Split] = ("train", "val"),
        examples: int | None = 10_000,
        loss: PerExampleLoss | None = None,
        **options: Any,
    ) -> None:
        super().__init__(splits, examples, **options)
        self.loss = loss

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure loss and error on each split."""
        measured = []
        for split in self.splits:
            found = measures.performance(
                subject.module,
                subject.loss(self.loss),
                source.batches(subject, split, self.examples, context),
                outputs=source.outputs,
                reduce=context.share.reduce,
            )
            measured.append(Measurement("loss", split, "", found.loss))
            if not math.isnan(found.error):
                measured.append(Measurement("error", split, "", found.error))
        return measured


class MarginMeasurer(SeveralSplits):
    """Measures ``margin_fraction/<split>`` and ``margin_median/<split>``, see `lnsgd.measures.margins`.

    Args:
        margin: The margin that the counted fraction of the examples has at least.
        splits: Splits of the data.
        examples: Size of the subset of each split, fixed and keyed; ``null`` for whole splits.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: on measuring, labels that are not classes.
    """

    headline = ("margin_median", "margin")
    needs = frozenset(("outputs",))
    identified_by = ("margin", "splits", "examples")

    def __init__(
        self,
        margin: float = 10.0,
        splits: Sequence[Split] = ("train", "val"),
        examples: int | None = 10_000,
        **options: Any,
    ) -> None:
        super().__init__(splits, examples, **options)
        self.margin = margin

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure fraction and median on each split."""
        found = []
        for split in self.splits:
            batches = source.batches(subject, split, self.examples, context)
            margins = measures.margins(subject.module, batches, outputs=source.outputs, share=context.share)
            found.append(Measurement("margin_fraction", split, "", margins.fraction(self.margin)))
            found.append(Measurement("margin_median", split, "", margins.quantile(0.5)))
        return found


class LargestOutputMeasurer(SeveralSplits):
    """Measures ``largest_output/<split>``, how far outputs are from zero, see `lnsgd.measures.largest_output`.

    Args:
        splits: Splits of the data.
        examples: Size of the subset of each split, fixed and keyed; ``null`` for whole splits.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.
    """

    headline = ("largest_output", "output")
    needs = frozenset(("outputs",))

    def __init__(
        self, splits: Sequence[Split] = ("train", "val"), examples: int | None = 10_000, **options: Any
    ) -> None:
        super().__init__(splits, examples, **options)

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure each split."""
        return [
            Measurement(
                "largest_output",
                split,
                "",
                measures.largest_output(
                    subject.module,
                    source.batches(subject, split, self.examples, context),
                    outputs=source.outputs,
                    reduce=context.largest,
                ),
            )
            for split in self.splits
        ]


class ClassVarianceMeasurer(SeveralSplits):
    """Measures how tightly the features of each class lie together, see `lnsgd.measures.class_variance`.

    Gives ``within_class_variance/<split>/<layer>``, ``between_class_variance/<split>/<layer>`` and their ratio
    ``class_variance_ratio/<split>/<layer>`` on clean labels, by default of the penultimate layer.

    Args:
        splits: Splits of the data.
        layers: Shell-style patterns of the modules whose inputs are the features; by default the last ``nn.Linear``.
        examples: Size of the subset of each split, fixed and keyed; ``null`` for whole splits.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: on measuring, see `lnsgd.measures.class_variance`.
    """

    headline = ("class_variance_ratio", "within/between")
    needs = frozenset(("outputs",))
    identified_by = ("splits", "layers", "examples")

    def __init__(
        self,
        splits: Sequence[Split] = ("train", "val"),
        layers: Sequence[str] | None = None,
        examples: int | None = 2_000,
        **options: Any,
    ) -> None:
        super().__init__(splits, examples, **options)
        self.layers = layers

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure each layer on each split."""
        rows = []
        for split in self.splits:
            found = measures.class_variance(
                subject.module,
                source.batches(subject, split, self.examples, context),
                self.layers,
                outputs=source.outputs,
                share=context.share,
            )
            for layer, variance in found.items():
                rows.append(Measurement("within_class_variance", split, layer, variance.within))
                rows.append(Measurement("between_class_variance", split, layer, variance.between))
                rows.append(Measurement("class_variance_ratio", split, layer, variance.ratio))
        return rows
