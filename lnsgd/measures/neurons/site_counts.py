"""Numbers of active, dead and class-associated neurons of a network, counted from the firings of its sites."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan

from torch import nn

from lnsgd.measures.forward import Batches, OutputsFunction
from lnsgd.measures.neurons.class_association import associated_count
from lnsgd.measures.neurons.firings import Firings, UnitCount, active_count, dead_count, total_count
from lnsgd.measures.neurons.site_firings import site_firings


@dataclass(frozen=True)
class SiteCounts:
    """Numbers of units of a network.

    Attributes:
        total: Units of all sites together; NaN if it is NaN for a site.
        per_site: Units of each site by name, in the order of the forward pass.
    """

    total: UnitCount
    per_site: dict[str, UnitCount] = field(repr=False)

    @classmethod
    def of(cls, firings: Mapping[str, Firings], count: Callable[[Firings], UnitCount]) -> "SiteCounts":
        """Count at each site, and add up; NaN for a site with a pre-activation that was NaN or infinite.

        Args:
            firings: Counts by site.
            count: What is counted of one site.
        """
        counts = {name: count(of) for name, of in firings.items()}
        counts = {name: UnitCount(nan, one.units) if firings[name].nonfinite else one for name, one in counts.items()}
        return cls(total_count(counts.values()), counts)


def active_neurons(
    model: nn.Module,
    data: Batches,
    *,
    layers: Sequence[str] | None = None,
    after: Sequence[str] = (),
    outputs: OutputsFunction | None = None,
) -> SiteCounts:
    """Compute the typical number of active neurons of a network.

    This is the mean over the examples of the number of active units. A unit is active on an example if its
    pre-activation is > 0 (Cornacchia et al., section 4).

    Args:
        model: See `site_firings`.
        data: See `site_firings`.
        layers: See `site_firings`.
        after: See `site_firings`.
        outputs: See `site_firings`.

    Returns:
        Mean numbers and, as ``fraction``, mean fractions: for each site and in total. NaN if a pre-activation was NaN
        or infinite.

    Raises:
        ValueError: see `site_firings`.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> active_neurons(net, [(torch.tensor([[1.0, -1.0], [2.0, 3.0]]), torch.tensor([0, 1]))]).total
        UnitCount(count=1.5, units=2)
    """
    return SiteCounts.of(site_firings(model, data, layers=layers, after=after, outputs=outputs), active_count)


def dead_neurons(
    model: nn.Module,
    data: Batches,
    *,
    layers: Sequence[str] | None = None,
    after: Sequence[str] = (),
    outputs: OutputsFunction | None = None,
) -> SiteCounts:
    """Count the neurons of a network that are active on no example, see `dead_count`.

    Args:
        model: See `site_firings`.
        data: See `site_firings`.
        layers: See `site_firings`.
        after: See `site_firings`.
        outputs: See `site_firings`.

    Returns:
        Numbers and, as ``fraction``, fractions: for each site and in total. NaN if a pre-activation was NaN or
        infinite.

    Raises:
        ValueError: see `site_firings`.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> dead_neurons(net, [(torch.tensor([[1.0, -1.0], [2.0, -3.0]]), torch.tensor([0, 1]))]).total
        UnitCount(count=1, units=2)
    """
    return SiteCounts.of(site_firings(model, data, layers=layers, after=after, outputs=outputs), dead_count)


def class_associated_neurons(
    model: nn.Module,
    data: Batches,
    *,
    threshold: float = 2.0,
    rates: bool = False,
    num_classes: int | None = None,
    layers: Sequence[str] | None = None,
    after: Sequence[str] = (),
    outputs: OutputsFunction | None = None,
) -> SiteCounts:
    """Count the neurons of a network that are associated with a class, see `associated_class`.

    Args:
        model: See `site_firings`.
        data: See `site_firings`; the labels must be class indices (B,).
        threshold: See `associated_class`, at least 1.
        rates: See `class_firings`.
        num_classes: Number of classes C; by default the largest label plus one.
        layers: See `site_firings`.
        after: See `site_firings`.
        outputs: See `site_firings`.

    Returns:
        Numbers and, as ``fraction``, fractions: for each site and in total. NaN if a pre-activation was NaN or
        infinite.

    Raises:
        ValueError: see `site_firings`; threshold below 1.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> data = [(torch.tensor([[1.0, 1.0], [-2.0, 3.0]]), torch.tensor([0, 1]))]
        >>> class_associated_neurons(net, data).total
        UnitCount(count=1, units=2)
    """
    firings = site_firings(model, data, num_classes, layers=layers, after=after, outputs=outputs)
    return SiteCounts.of(firings, lambda of: associated_count(of, threshold, rates))
