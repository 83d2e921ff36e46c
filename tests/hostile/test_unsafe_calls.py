"""Nobody opens files past ``lnsgd.untrusted``: by the syntax trees of the whole package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    p for top in ("lnsgd", "callbacks") for p in (ROOT / top).rglob("*.py") if "lnsgd/callbacks" not in str(p)
)

# Where a call may stand, and in whatever file nowhere else. The sample is of this package.
ALLOWED = {
    "torch.load": {"lnsgd/untrusted/checkpoint.py"},
    "safetensors.torch.load_file": {"lnsgd/untrusted/checkpoint.py"},
    "safetensors.torch.load": {"lnsgd/data/mnist.py"},
    "safetensors.safe_open": {"lnsgd/untrusted/checkpoint.py"},
    "safetensors.torch.save_file": {"lnsgd/untrusted/checkpoint.py"},  # which adds a checksum
    "yaml.load": {"lnsgd/untrusted/texts.py"},
    # In `lost` it is what another process of the same run has said.
    "json.loads": {
        *("lnsgd/untrusted/texts.py", "lnsgd/analysis/journal.py", "lnsgd/sweep/table.py"),
        "lnsgd/processes/lost.py",
    },
    "yaml.safe_load": {"lnsgd/analysis/objects.py"},  # of the command line
    "yaml.compose": {"lnsgd/untrusted/class_paths.py"},
    "pickle.Unpickler": {"lnsgd/data/pickled.py"},
    "zipfile.ZipFile": {"lnsgd/untrusted/checkpoint.py"},
    "tarfile.open": {"lnsgd/data/cifar10.py"},
    "numpy.fromfile": {"lnsgd/data/official.py"},
    "pandas.read_parquet": {"lnsgd/untrusted/tables.py"},
    "pyarrow.parquet.read_table": {"lnsgd/untrusted/tables.py"},
    "pyarrow.parquet.ParquetFile": {"lnsgd/untrusted/tables.py", "callbacks/measurements.py"},  # batch by batch
}
NOWHERE = (
    *("pickle.load", "pickle.loads", "dill.load", "joblib.load", "shelve.open", "marshal.load", "marshal.loads"),
    *("numpy.load", "pandas.read_pickle", "torch.jit.load", "torch.hub.load", "yaml.unsafe_load", "yaml.full_load"),
    *("json.load", "yaml.load_all", "os.system", "eval", "exec", "shutil.unpack_archive"),
)


def calls(source: str) -> Iterator[tuple[str, ast.AST]]:
    """Whole names of everything of other modules that is used, whatever it was imported as."""
    tree = ast.parse(source)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {name.asname or name.name.split(".")[0]: name.name for name in node.names if name.asname}
            known |= {name.name.split(".")[0]: name.name.split(".")[0] for name in node.names if not name.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            parts = ast.unparse(node).split(".")
            yield ".".join([known.get(parts[0], parts[0]), *parts[1:]]), node


def wrong(source: str, file: str) -> list[str]:
    used = {name for name, _ in calls(source)}
    return sorted(name for name in used if name in NOWHERE or file not in ALLOWED.get(name, {file}))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_files_are_opened_in_one_place(path):
    assert wrong(path.read_text(), str(path.relative_to(ROOT))) == []


def test_the_one_torch_load_loads_weights_only():
    tree = ast.parse((ROOT / "lnsgd/untrusted/checkpoint.py").read_text())
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert len(loads) == 1
    assert {word.arg: ast.unparse(word.value) for word in loads[0].keywords}["weights_only"] == "True"


def test_what_is_allowed_is_there():
    """So that the list does not outlive what it allows."""
    for name, files in ALLOWED.items():
        for file in files:
            assert name in {used for used, _ in calls((ROOT / file).read_text())}, (name, file)


BROKEN = {
    "torch": "import torch\ntorch.load('x', weights_only=True)",
    "from": "from torch import load\nload('x')",
    "as": "import torch as t\nx = t.load",
    "pickle": "import pickle\npickle.loads(b'')",
    "pickle-from": "from pickle import load as l\nl(f)",
    "numpy": "import numpy as np\nnp.load('x', allow_pickle=True)",
    "yaml": "import yaml\nyaml.unsafe_load('x')",
    "eval": "eval('1')",
    "parquet": "import pandas as pd\npd.read_parquet('x')",
    "within": "def f():\n    from torch import load\n    return load('x')",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_a_break_is_noticed(source):
    assert wrong(source, "lnsgd/measures/estimate.py")
