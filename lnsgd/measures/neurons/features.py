"""The outputs of activation sites as matrices."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.forward import Batches, OutputsFunction, call_network
from lnsgd.measures.neurons.observation import observe
from lnsgd.measures.neurons.sites import activation_sites, names_of_calls


def features(
    model: nn.Module,
    data: Batches,
    layers: Sequence[str] | None = None,
    *,
    after: Sequence[str] = (),
    outputs: OutputsFunction | None = None,
) -> Mapping[str, Tensor]:
    """Collect the outputs of each activation site on a data set.

    Args:
        model: Any module; it runs in eval mode, and its modes and the random state are restored.
        data: Batches of inputs (B, …) and labels, on the model's device.
        layers: Shell-style patterns of sites, see `activation_sites`; by default all.
        after: Shell-style patterns of modules, see `activation_sites`.
        outputs: How the network is called, see `lnsgd.measures.OutputsFunction`.

    Returns:
        Matrices (n, units), one row per example, by the name of the site; a site that is called more than once is
        several sites, see `names_of_calls`.

    Raises:
        ValueError: a pattern that matches nothing, no examples, no site that is called, a site that not every batch
            calls as often, or one whose outputs do not have one row for each example.

    Example:
        >>> found = features(nn.Sequential(nn.ReLU()), [(torch.tensor([[1.0, -1.0]]), torch.tensor([0]))])
        >>> found["0"].tolist()
        [[1.0, 0.0]]
    """
    found: defaultdict[tuple[str, int], list[Tensor]] = defaultdict(list)
    calls: Counter[str] = Counter()
    examples: list[int] = []

    def keep(name: str, output: Tensor) -> None:
        calls[name] += 1
        if output.ndim == 0 or len(output) != examples[-1]:
            raise ValueError(
                f"{name} gives shape {tuple(output.shape)} for {examples[-1]} examples; its first dimension must be "
                "the examples: choose other sites by `layers`"
            )
        # A copy: the network may write into its activations in place.
        found[name, calls[name]].append(output.reshape(len(output), -1).clone())

    sites = activation_sites(model, layers, after)
    with torch.no_grad(), evaluation_mode(model), observe(sites, results=keep):
        for inputs, labels in data:
            calls.clear()
            examples.append(len(labels))
            call_network(model, inputs, outputs)
    if not examples:
        raise ValueError("no examples to take features of; the data is empty")
    sites.check_found(name for name, _ in found)
    for (name, _), rows in found.items():
        if len(rows) < len(examples):
            raise ValueError(f"{name} is not called as often for every batch; leave it out of `layers`")
    return names_of_calls({site: torch.cat(rows) for site, rows in found.items()})
