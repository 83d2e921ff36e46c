"""The README's examples for one's own project do what they say."""

import re
from pathlib import Path

import pytest
import torch

from tests.callbacks.foreign_project import rows

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README.split("## In your own project")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("examples", "measures", "sites"),
    [
        (
            1,
            {"active_count", "active_fraction", "associated_count", "associated_fraction", "distance_from_init"},
            17,
        ),
        (2, {"active_count", "active_fraction", "hessian_trace"}, 2),
    ],
)
def test_example(tmp_path, monkeypatch, examples, measures, sites):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    code = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)[:examples]
    names = {}
    exec("\n".join(code), names)
    trainer = names["trainer"]
    found = rows(Path(trainer.log_dir), trainer.global_step)
    assert {measure for _, measure, _, _ in found} == measures
    counts = {key: value for key, value in found.items() if key[:3] == (2, "active_count", "train")}
    assert len(counts) == sites and all(count > 0 for count in counts.values())
