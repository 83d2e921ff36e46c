"""The examples for a foreign project in the README and the guide run and measure what they say."""

import re
from pathlib import Path

import pytest
import torch

from tests.callbacks.foreign_project import rows

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {
    "readme": README.split("## In your own project")[1].split("\n## ")[0],
    "guide": (ROOT / "docs" / "guide" / "own-project.md").read_text(),
}
MEASURES = {
    "readme": {"active_count", "active_fraction", "associated_count", "associated_fraction", "distance_from_init"},
    "guide": {"active_count", "active_fraction", "hessian_trace"},
}
SITES = {"readme": 17, "guide": 2}  # beside the row of their total


@pytest.mark.parametrize("page", PAGES)
def test_example_measures_what_it_names(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    code = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)[0]
    names = {}
    exec(code, names)
    trainer = names["trainer"]
    found = rows(Path(trainer.log_dir), trainer.global_step)
    assert {measure for _, measure, _, _ in found} == MEASURES[page]
    counts = {key: value for key, value in found.items() if key[:3] == (2, "active_count", "train")}
    assert len(counts) == SITES[page] + 1 and (2, "active_count", "train", "total") in counts
    assert all(count > 0 for count in counts.values())
