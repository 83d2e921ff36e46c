"""Measurers of derivatives of the loss: gradient, implicit regularizer, and the Hessian's trace and eigenvalues."""

import copy
from collections.abc import Mapping
from math import nan
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from lnsgd import measures, rng
from lnsgd.measures.curvature.top_eigenvalues import check_settings
from lnsgd.measuring.context import Context, Split
from lnsgd.measuring.measurement import Measurement, Picture
from lnsgd.measuring.measurer import OneSplit
from lnsgd.measuring.pictures import plot_spectral_density
from lnsgd.measuring.report import ContextReport
from lnsgd.measuring.source import Source
from lnsgd.measuring.subject import PerExampleLoss, Subject

# A relative tolerance that is reached with the fewest probes.
_LOOSE_RTOL = 1e9

# Largest number of products for the eigenvalues that are marked in a spectral density.
_TOP_PRODUCTS = 200

# A spectral density and the largest eigenvalues.
Spectrum = tuple[measures.SpectralQuadrature, Tensor | None]


class GradientNormMeasurer(OneSplit):
    """Measures ‖∇L‖₂ as ``gradient_norm/<split>`` and, per tensor, ``gradient_norm/<split>/<tensor>``.

    L is the mean loss on clean labels in eval mode over a fixed keyed subset, see `lnsgd.measures.gradient_norm`. The
    total of a network that has diverged is NaN.

    Args:
        split: Split of the data.
        examples: Size of the subset, fixed and keyed; ``null`` for the whole split.
        per_tensor: Measure each tensor's norm too.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: on measuring, there is no loss.
    """

    headline = ("gradient_norm", "gradient")
    needs = frozenset(("outputs", "loss", "gradients"))
    identified_by = ("split", "examples", "per_tensor", "loss")

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        per_tensor: bool = True,
        loss: PerExampleLoss | None = None,
        **options: Any,
    ) -> None:
        super().__init__(split, examples, **options)
        self.per_tensor = per_tensor
        self.loss = loss

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure the total norm and that of each tensor."""
        try:
            norm = measures.gradient_norm(
                subject.module,
                subject.loss(self.loss),
                source.batches(subject, self.split, self.examples, context),
                share=context.share,
                outputs=source.outputs,
            )
        except measures.NonFiniteError:
            return [Measurement("gradient_norm", self.split, "", nan)]
        norms = {"": norm.total, **(norm.per_tensor if self.per_tensor else {})}
        return [Measurement("gradient_norm", self.split, layer, value) for layer, value in norms.items()]


class ImplicitRegularizerMeasurer(OneSplit):
    """Measures ``implicit_regularizer/<split>``: (1/n)Σ‖∇h(x_i)‖², see `lnsgd.measures.implicit_regularizer`.

    The number is exact and costs one backward pass for every output of the network. The data is a fixed keyed subset.
    The value for a network that has diverged is NaN.

    Args:
        split: Split of the data.
        examples: Size of the subset, fixed and keyed; ``null`` for the whole split.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: on measuring, there are no examples, or the outputs are not floating point.
    """

    headline = ("implicit_regularizer", "regularizer")
    needs = frozenset(("outputs", "gradients"))

    def __init__(self, split: Split = "train", examples: int | None = 1_000, **options: Any) -> None:
        super().__init__(split, examples, **options)

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure the regularizer."""
        data = source.batches(subject, self.split, self.examples, context)
        try:
            value = measures.implicit_regularizer(subject.module, data, share=context.share, outputs=source.outputs)
        except measures.NonFiniteError:
            value = nan
        return [Measurement("implicit_regularizer", self.split, "", value)]


class HessianTraceMeasurer(OneSplit):
    """Estimates the trace of the Hessian of the mean loss, see `lnsgd.measures.hessian_trace`.

    Gives ``hessian_trace/<split>``, on clean labels, and the parts that belong to each tensor, each with its standard
    error. The data is a fixed keyed subset. The probes are keyed too and the same at every step, so that they do not
    blur differences along training. The trace of a network that has diverged is NaN.

    Args:
        split: Split of the data.
        examples: Size of the subset, fixed and keyed; ``null`` for the whole split.
        noisy_labels: Also measure ``noisy_hessian_trace/<split>``, on one fixed draw of the module's own label noise.
            For ReLU networks with the logistic, softmax or squared loss it equals the trace on clean labels, since
            their Gauss–Newton matrix does not depend on the labels.
        method: See `lnsgd.measures.hessian_trace`.
        rtol: See `lnsgd.measures.hessian_trace`.
        max_probes: See `lnsgd.measures.hessian_trace`.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        seed: Key of the probes.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: a tolerance or number of probes out of range; on measuring, there is no loss.
    """

    headline = ("hessian_trace", "trace")
    needs = frozenset(("outputs", "loss", "products"))
    identified_by = ("split", "examples", "noisy_labels", "method", "rtol", "max_probes", "seed", "loss")

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        noisy_labels: bool = False,
        method: measures.Method = "auto",
        rtol: float = 0.02,
        max_probes: int = 1_000,
        loss: PerExampleLoss | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(split, examples, **options)
        measures.Budget(rtol, max_probes=max_probes)  # so that settings are refused before training, not in it
        self.noisy_labels = noisy_labels
        self.method = method
        self.rtol = rtol
        self.max_probes = max_probes
        self.loss = loss
        self.seed = seed

    def with_few_probes(self, number: int) -> "HessianTraceMeasurer":
        """Return this measurer with as few probes as possible, keyed by the number."""
        other = copy.copy(self)
        other.seed, other.rtol = self.seed + number, _LOOSE_RTOL
        return other

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Estimate the trace of all tensors together, then the part of each tensor."""
        found = self._trace("hessian_trace", None, subject, source, context)
        if self.noisy_labels:
            found += self._trace("noisy_hessian_trace", self.seed, subject, source, context)
        return found

    def _trace(
        self, name: str, noise_seed: int | None, subject: Subject, source: Source, context: Context
    ) -> list[Measurement]:
        try:
            trace = measures.hessian_trace(
                subject.module,
                subject.loss(self.loss),
                source.batches(subject, self.split, self.examples, context, noise_seed),
                method=self.method,
                rtol=self.rtol,
                max_probes=self.max_probes,
                generator=rng.generator(self.seed, "probes"),
                share=context.share,
                outputs=source.outputs,
                report=ContextReport(f"{name}/{self.split}", context),
            )
        except measures.NonFiniteError:
            return [Measurement(name, self.split, "", nan, nan)]
        estimates = {"": trace.total, **trace.per_tensor}
        return [Measurement(name, self.split, layer, e.value, e.standard_error) for layer, e in estimates.items()]


class TopEigenvaluesMeasurer(OneSplit):
    """Measures the largest eigenvalues of the Hessian of the mean loss, see `lnsgd.measures.top_eigenvalues`.

    Gives ``top_eigenvalue_1/<split>``, the sharpness along training, ``_2`` and so on, on clean labels; and
    ``top_eigenvalue_residual/<split>``, the largest of their residuals, which tells whether they have converged.
    The data is a fixed keyed subset. All numbers of a network that has diverged are NaN.

    Args:
        split: Split of the data.
        examples: Size of the subset, fixed and keyed; ``null`` for the whole split.
        count: See `lnsgd.measures.top_eigenvalues`.
        rtol: See `lnsgd.measures.top_eigenvalues`.
        max_products: See `lnsgd.measures.top_eigenvalues`.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        seed: Key of the random vectors that the iteration starts with.
        options: Data, layout of batches and schedule of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: a count, tolerance or number of products out of range; on measuring, there is no loss, or there are
            fewer parameters than eigenvalues asked for.
    """

    headline = ("top_eigenvalue_1", "sharpness")
    needs = frozenset(("outputs", "loss", "products"))
    identified_by = ("split", "examples", "count", "rtol", "max_products", "seed", "loss")

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        count: int = 1,
        rtol: float = 1e-3,
        max_products: int = 200,
        loss: PerExampleLoss | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(split, examples, **options)
        check_settings(count, rtol, max_products)  # so that settings are refused before training, not in it
        self.count = count
        self.rtol = rtol
        self.max_products = max_products
        self.loss = loss
        self.seed = seed

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure the eigenvalues and their largest residual."""
        try:
            found = measures.top_eigenvalues(
                subject.module,
                subject.loss(self.loss),
                source.batches(subject, self.split, self.examples, context),
                count=self.count,
                rtol=self.rtol,
                max_products=self.max_products,
                generator=rng.generator(self.seed, "probes"),
                share=context.share,
                outputs=source.outputs,
                report=ContextReport(f"top_eigenvalues/{self.split}", context),
            )
            values, residual = found.values.tolist(), found.residuals.max().item()
        except measures.NonFiniteError:
            values, residual = [nan] * self.count, nan
        return [
            *(Measurement(f"top_eigenvalue_{k}", self.split, "", value) for k, value in enumerate(values, 1)),
            Measurement("top_eigenvalue_residual", self.split, "", residual),
        ]


class SpectralDensityMeasurer(OneSplit):
    """Measures and draws the spectral density of the Hessian, see `lnsgd.measures.spectral_density`.

    Gives ``spectrum_smallest/<split>`` and ``spectrum_largest/<split>``, the outermost nodes, and
    ``spectrum_trace/<split>`` with its standard error, and as tensors the nodes and their weights. The numbers of a
    network that has diverged are NaN, and nothing is drawn of it.

    Args:
        split: Split of the data.
        examples: Size of the subset, fixed and keyed; ``null`` for the whole split.
        probes: See `lnsgd.measures.spectral_density`: probes·steps Hessian products are taken, each at the cost of
            some three gradients.
        steps: See `lnsgd.measures.spectral_density`.
        width: Width of the smoothing; by default a hundredth of the spectrum's range.
        top: Number of largest eigenvalues that are marked, 0 for none.
        loss: Per-example loss ``(outputs, labels) -> (B,)``; by default the module's ``loss``.
        seed: Key of the probes.
        options: Data and layout of batches of the callback, see `lnsgd.callbacks.base.DataCallback`.

    Raises:
        ValueError: a number of probes, steps or eigenvalues, or a width out of range; on measuring, there is no loss.
    """

    headline = ("spectrum_largest", "sharpness")
    needs = frozenset(("outputs", "loss", "products"))
    identified_by = ("split", "examples", "probes", "steps", "top", "seed", "loss")
    is_drawn = True

    def __init__(
        self,
        split: Split = "train",
        examples: int | None = 1_000,
        probes: int = 8,
        steps: int = 50,
        width: float | None = None,
        top: int = 10,
        loss: PerExampleLoss | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(split, examples, **options)
        for name, value, least in (("probes", probes, 1), ("steps", steps, 1), ("top", top, 0)):
            if value < least:
                raise ValueError(f"SpectralDensity: {name} = {value}; give at least {least}")
        if width is not None and not width > 0:
            raise ValueError(f"SpectralDensity: width = {width}; give a width > 0, or null for one that fits")
        self.probes = probes
        self.steps = steps
        self.width = width
        self.top = top
        self.loss = loss
        self.seed = seed

    def measure(self, subject: Subject, source: Source, context: Context) -> list[Measurement]:
        """Measure the outermost nodes and the trace, which the quadrature gives exactly up to the probes."""
        spectrum = self.spectrum(subject, source, context)
        names = ("spectrum_smallest", "spectrum_largest", "spectrum_trace")
        if isinstance(spectrum, measures.NonFiniteError):
            return [Measurement(name, self.split, "", nan) for name in names]
        density, _ = spectrum
        mean, parameters = density.integral(lambda t: t), density.parameters
        low, high = density.range
        return [
            Measurement(names[0], self.split, "", low),
            Measurement(names[1], self.split, "", high),
            Measurement(names[2], self.split, "", parameters * mean.value, parameters * mean.standard_error),
        ]

    def tensors(self, subject: Subject, source: Source, context: Context) -> dict[str, Tensor]:
        """Return ``nodes``, ``weights``, ``of`` (numbers of parameters and examples) and, if asked for, ``top``."""
        spectrum = self.spectrum(subject, source, context)
        if isinstance(spectrum, measures.NonFiniteError):
            return {}
        density, top = spectrum
        sizes = torch.tensor([density.parameters, density.samples])
        found = {"nodes": density.nodes, "weights": density.weights, "of": sizes}
        return found if top is None else {**found, "top": top}

    def pictures(self, tensors: Mapping[str, Tensor]) -> list[Picture]:
        """Draw the density and mark the largest eigenvalues."""
        if not tensors:
            return []
        density = measures.SpectralQuadrature(tensors["nodes"], tensors["weights"], *tensors["of"].tolist())
        figure = plot_spectral_density(density, tensors.get("top"), self.width)
        return [Picture("spectral_density", self.split, figure)]

    def expected_seconds(self, subject: Subject, source: Source, context: Context) -> float:
        """Take the first step of the spectrum, and return how long the whole of it takes at about that speed.

        Args:
            subject: The network.
            source: Where the data comes from.
            context: Where the network is measured.

        Raises:
            ValueError: the network or the data is not of the kind that this measure is for.
        """
        first = copy.copy(self)
        first.steps, first.top = 1, 0
        begun = perf_counter()
        first.take_tensors(subject, source, context)
        return (perf_counter() - begun) * self._products / self.probes

    @property
    def _products(self) -> int:
        """Number of Hessian products, at most."""
        return self.probes * self.steps + (_TOP_PRODUCTS if self.top else 0)

    def spectrum(self, subject: Subject, source: Source, context: Context) -> Spectrum | measures.NonFiniteError:
        """Return the density and the largest eigenvalues, or the error that the network has diverged."""
        return subject.once((self, source), lambda: self._spectrum(subject, source, context))

    def _spectrum(self, subject: Subject, source: Source, context: Context) -> Spectrum | measures.NonFiniteError:
        loss, data = subject.loss(self.loss), source.batches(subject, self.split, self.examples, context)
        density_part = self.probes * self.steps / self._products
        try:
            density = measures.spectral_density(
                subject.module,
                loss,
                data,
                probes=self.probes,
                steps=self.steps,
                generator=rng.generator(self.seed, "probes", 0),
                share=context.share,
                outputs=source.outputs,
                report=ContextReport(f"spectral_density/{self.split}", context, (0.0, density_part)),
            )
            count = min(self.top, density.parameters)
            if not count:
                return density, None
            generator = rng.generator(self.seed, "probes", 1)
            report = ContextReport(f"top_eigenvalues/{self.split}", context, (density_part, 1.0))
            top = measures.top_eigenvalues(
                subject.module,
                loss,
                data,
                count=count,
                max_products=max(_TOP_PRODUCTS, count),
                generator=generator,
                share=context.share,
                outputs=source.outputs,
                report=report,
            )
        except measures.NonFiniteError as error:
            context.log_message(f"SpectralDensity: nothing is drawn, {error}")
            return error
        if not top.converged:
            context.log_message(
                f"SpectralDensity: the marked eigenvalues are off by up to {top.residuals.max().item():.1g}"
            )
        return density, top.values
