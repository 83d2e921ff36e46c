"""`lnsgd.analysis.compare`: two networks compared with each other, and along the line between them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lnsgd.analysis import ComparisonSettings, analyze, compare
from lnsgd.data import InMemory
from lnsgd.losses import CrossEntropy
from lnsgd.measures.pairs.interpolation import Line, barrier, mixed
from lnsgd.measures.pairs.overlap import jaccard
from lnsgd.measuring import (
    ActiveNeuronsMeasurer,
    DistanceFromInitMeasurer,
    HessianTraceMeasurer,
    PerformanceMeasurer,
)
from lnsgd.records.journal import Journal
from tests.analysis.analyzed_runs import analyzed_config, point_data, points, small_net, weights
from tests.small_config import fit

LOSS = nn.CrossEntropyLoss(reduction="none")


@pytest.fixture
def files(tmp_path):
    """Files of a network and of one close to it."""
    near = {name: a + 0.1 * weights(1)[name] for name, a in weights(0).items()}
    paths = tmp_path / "a.pt", tmp_path / "b.pt"
    for path, tensors in zip(paths, (weights(0), near)):
        torch.save(tensors, path)
    return paths


@pytest.fixture
def given():
    return {"data": point_data(), "model": small_net(), "loss": LOSS}


def loaded(tensors):
    model = small_net()
    model.load_state_dict(tensors)
    return model


def test_ends_of_the_line_are_the_networks(files, given) -> None:
    found = compare(*files, measures=[PerformanceMeasurer()], how=ComparisonSettings(points=5), **given)
    plain = analyze(files, measures=[PerformanceMeasurer()], **given)
    for end, path in zip((0.0, 1.0), files):
        on_line = found.path[found.path.t == end].set_index("split")
        for row in plain[plain.checkpoint == str(path)].itertuples():
            assert on_line[row.measure][row.split] == row.value
    assert found.path.t.unique().tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_middle_of_the_line_has_the_mean_weights(files, given) -> None:
    found = compare(*files, measures=[], how=ComparisonSettings(points=3), **given)
    ends = [torch.load(path) for path in files]
    inputs, labels = points(40, 0)
    middle = loaded({name: (ends[0][name] + ends[1][name]) / 2 for name in ends[0]})
    expected = nn.functional.cross_entropy(middle(inputs), labels).item()
    at = found.path[(found.path.t == 0.5) & (found.path.split == "train")]
    assert at.loss.tolist() == pytest.approx([expected], rel=1e-5)


def test_differences_equal_those_of_single_analyses(files, given) -> None:
    found = compare(
        *files, measures=[PerformanceMeasurer(), ActiveNeuronsMeasurer()], how=ComparisonSettings(points=2), **given
    ).differences
    plain = analyze(files, measures=[PerformanceMeasurer(), ActiveNeuronsMeasurer()], **given)
    a, b = (plain[plain.checkpoint == str(path)].reset_index() for path in files)
    assert found.measure.tolist() == a.measure.tolist()
    np.testing.assert_array_equal(found.difference, b.value - a.value)
    assert found.stderr.isna().all()
    assert set(found.pairs) == {1}


def of_many_outputs(folder: Path, examples: int) -> tuple[tuple[Path, Path], dict[str, object]]:
    """Write two close networks with more outputs than a round has probes, so that traces are estimated."""
    wide = {"0.weight": (9, 3), "0.bias": (9,), "2.weight": (6, 9), "2.bias": (6,)}
    generator = torch.Generator().manual_seed(0)
    a = {name: torch.randn(shape, generator=generator) for name, shape in wide.items()}
    b = {name: 1.03 * tensor for name, tensor in a.items()}
    for name, tensors in (("a.pt", a), ("b.pt", b)):
        torch.save(tensors, folder / name)
    inputs = torch.randn(examples, 3, generator=generator)
    data = InMemory((inputs, torch.arange(examples) % 6))
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 6))
    return (folder / "a.pt", folder / "b.pt"), {"data": data, "model": model, "loss": CrossEntropy()}


def test_common_probes_reduce_the_error_of_a_difference(tmp_path) -> None:
    files, options = of_many_outputs(tmp_path, 600)
    found = compare(
        *files, measures=[HessianTraceMeasurer()], how=ComparisonSettings(points=2, rounds=16), **options
    ).differences
    trace = found[found.layer == ""].iloc[0]
    exact = analyze(files, measures=[HessianTraceMeasurer(rtol=1e-6)], **options)
    expected = exact[exact.layer == ""].value.to_numpy()
    assert (exact.stderr == 0).all()
    assert 0 < trace.stderr < 0.7 * min(trace.stderr_a, trace.stderr_b)
    assert abs(trace.difference - (expected[1] - expected[0])) < 4 * trace.stderr
    assert abs(trace.a - expected[0]) < 4 * trace.stderr_a
    assert trace.difference == pytest.approx(trace.b - trace.a)


def test_exact_traces_have_an_exact_difference(files, given) -> None:
    found = compare(*files, measures=[HessianTraceMeasurer()], how=ComparisonSettings(points=2), **given).differences
    exact = analyze(files, measures=[HessianTraceMeasurer(rtol=1e-6)], **given)
    values = exact[exact.layer == ""].value.to_numpy()
    trace = found[found.layer == ""].iloc[0]
    assert trace.difference == pytest.approx(values[1] - values[0], rel=1e-6)
    assert trace.stderr == 0


def test_overlap_of_active_sets_equals_brute_force(files, given) -> None:
    found = compare(*files, measures=[], how=ComparisonSettings(points=2), **given).similarity
    inputs, _ = points(20, 1)
    sets = []
    for path in files:
        fires = loaded(torch.load(path))[0](inputs) > 0
        ever = {unit for unit in range(5) if any(row[unit] for row in fires.tolist())}
        often = {unit for unit in range(5) if sum(row[unit] for row in fires.tolist()) > 10}
        sets.append((ever, often))
    rows = found[(found.split == "val") & (found.layer == "net.1")].set_index("measure").value
    for number, name in enumerate(("ever_active_jaccard", "often_active_jaccard")):
        a, b = sets[0][number], sets[1][number]
        assert rows[name] == pytest.approx(len(a & b) / len(a | b))


def test_overlap_of_empty_sets_is_nan() -> None:
    assert np.isnan(jaccard(torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)))
    with pytest.raises(ValueError, match="give the same units"):
        jaccard(torch.zeros(3, dtype=torch.bool), torch.zeros(4, dtype=torch.bool))


def test_stopped_comparison_computes_only_what_is_missing(tmp_path, monkeypatch) -> None:
    """Stopped after each computation in turn, it makes each one once and ends with the tables of an undisturbed one."""
    files, given = of_many_outputs(tmp_path, 200)
    put, made = Journal.put, []

    def counted(self, key, rows):
        put(self, key, rows)
        made.append(key)
        if stopping:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "put", counted)
    options = {
        "measures": [PerformanceMeasurer(), HessianTraceMeasurer()],
        "how": ComparisonSettings(points=3, rounds=3),
        **given,
    }
    stopping = False
    whole = compare(*files, **options)
    assert len(made) == len(set(made))
    assert len(made) == 2 + 2 * 3 + 2 * 2 + 3  # losses, three rounds of traces, overlap and CKA by split, points
    number, stopping = len(made), True
    made.clear()
    for _ in range(number):
        with pytest.raises(KeyboardInterrupt):
            compare(*files, out=tmp_path / "out", **options)
    again = compare(*files, out=tmp_path / "out", **options)
    assert len(made) == len(set(made)) == number
    for name, table in whole._asdict().items():
        pd.testing.assert_frame_equal(getattr(again, name), table, check_exact=True)


def test_only_changed_parts_are_computed_again(files, given, tmp_path, monkeypatch) -> None:
    put, made = Journal.put, []
    monkeypatch.setattr(Journal, "put", lambda self, key, rows: (made.append(key), put(self, key, rows)))

    def computed(*inputs, how, **more) -> int:
        made.clear()
        compare(*inputs, measures=[PerformanceMeasurer()], how=how, out=tmp_path / "out", **{**given, **more})
        return len(made)

    # The loss of each network, the overlap and the alignment on each split, and the points of the line.
    assert computed(*files, how=ComparisonSettings(points=3)) == 2 + 2 + 2 + 3
    assert computed(*files, how=ComparisonSettings(points=3)) == 0
    assert computed(*files, how=ComparisonSettings(points=5)) == 2  # the points between
    assert computed(*files, how=ComparisonSettings(points=5, batch_norm="interpolate")) == 5
    assert computed(*files, how=ComparisonSettings(points=5, features="net.0")) == 2
    assert computed(*reversed(files), how=ComparisonSettings(points=5)) == 2 + 2 + 5  # each single network is known
    assert (
        computed(*files, how=ComparisonSettings(points=5), data=InMemory(points(40, 3), points(20, 1))) == 2 + 2 + 2 + 5
    )


def test_replicas_are_paired_by_their_seeds(replicated: Path, run: Path, tmp_path_factory) -> None:
    """The other arm has the same seeds in another order, and one more seed."""
    folder = tmp_path_factory.mktemp("arm") / "noisy"
    noisy = fit(analyzed_config(p=0.9, max_epochs=1), folder, "--replicas.seeds", "[5,9,3,4]").path
    measures = [DistanceFromInitMeasurer(per_tensor=False), PerformanceMeasurer(splits=["val"])]
    found = compare(replicated, noisy, measures=measures, how=ComparisonSettings(points=2))
    logged = {}
    for arm, seeds in ((replicated, [3, 4, 5]), (noisy, [5, 9, 3, 4])):
        table = pd.read_parquet(arm / "measures.parquet")
        table = table[(table.step == 10) & (table.measure == "distance_from_init") & (table.layer == "")]
        logged[arm] = {seeds[row.replica]: row.value for row in table.itertuples()}
    apart = [logged[noisy][seed] - logged[replicated][seed] for seed in (3, 4, 5)]
    row = found.differences[found.differences.measure == "distance_from_init"].iloc[0]
    assert row.pairs == 3
    assert row.difference == pytest.approx(np.mean(apart), rel=1e-6)
    assert row.stderr == pytest.approx(np.std(apart, ddof=1) / np.sqrt(3), rel=1e-6)
    assert set(found.path.seed) == {3, 4, 5}
    with pytest.raises(ValueError, match="two runs of replicas with seeds in common"):
        compare(replicated, run, measures=measures)


def test_networks_of_different_structure_are_refused(files, given, run: Path, tmp_path) -> None:
    torch.save(weights(0, width=6), tmp_path / "wide.pt")
    with pytest.raises(ValueError, match="of another shape"):
        compare(files[0], tmp_path / "wide.pt", **given)
    wide = fit(analyzed_config(width=7, max_steps=1), tmp_path / "run").path
    given = (
        r"run cannot be compared with run: of its 4 .* 3 of another shape \(net\.layers\.0\.weight \(7, 784\) for \(6"
    )
    with pytest.raises(ValueError, match=given):
        compare(run, wide)
    with pytest.raises(ValueError, match="names or shapes differ"):
        mixed(weights(0), weights(0, width=6), 0.5)


def normalized(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
        model(torch.randn(50, 3))
    return model.eval()


@pytest.mark.parametrize("batch_norm", ["reestimate", "interpolate"])
def test_running_statistics_between_the_ends(batch_norm) -> None:
    a, b = normalized(0), normalized(1)
    before = {name: tensor.clone() for name, tensor in a.state_dict().items()}
    inputs, labels = points(64, 0)
    data = [(inputs[:32], labels[:32]), (inputs[32:], labels[32:])]
    line = Line(a, b, 3, batch_norm, data)
    assert line.ts == [0, 0.5, 1]
    start, middle, end = ({k: v.clone() for k, v in line.network(t).state_dict().items()} for t in line.ts)
    for name in before:
        torch.testing.assert_close(start[name], before[name], rtol=0, atol=0)
        torch.testing.assert_close(a.state_dict()[name], before[name], rtol=0, atol=0)
        if name != "1.num_batches_tracked":
            torch.testing.assert_close(end[name], b.state_dict()[name], rtol=0, atol=0)
    means = [a[1].running_mean, b[1].running_mean]
    if batch_norm == "interpolate":
        expected = (means[0] + means[1]) / 2
    else:
        expected = (inputs @ ((a[0].weight + b[0].weight) / 2).T + (a[0].bias + b[0].bias) / 2).mean(0)
    torch.testing.assert_close(middle["1.running_mean"], expected.detach())
    assert not a.training


def test_barrier_is_the_height_above_the_line() -> None:
    assert barrier([0.0, 0.0, 0.0]) == 0
    assert barrier([2.0, 0.0, 1.0]) == 0
    assert barrier([0.0, 2.0, 5.0, 3.0]) == pytest.approx(3.0)
    assert np.isnan(barrier([0.0, float("nan"), 1.0]))
