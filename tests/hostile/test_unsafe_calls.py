"""Only ``lnsgd.untrusted`` opens files of others, according to the syntax trees of the whole package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    p for top in ("lnsgd", "callbacks") for p in (ROOT / top).rglob("*.py") if "lnsgd/callbacks" not in str(p)
)

# The only files in which a name may be used. The sample belongs to this package.
ALLOWED = {
    "torch.load": {"lnsgd/untrusted/checkpoint.py"},
    "safetensors.torch.load_file": {"lnsgd/untrusted/checkpoint.py"},
    "safetensors.torch.load": {"lnsgd/data/mnist.py"},
    "safetensors.safe_open": {"lnsgd/untrusted/checkpoint.py"},
    "safetensors.torch.save_file": {"lnsgd/untrusted/checkpoint.py"},  # which adds a checksum
    "yaml.load": {"lnsgd/untrusted/texts.py"},
    # In `lost` the text comes from another process of the same run.
    "json.loads": {
        *("lnsgd/untrusted/texts.py", "lnsgd/records/journal.py", "lnsgd/records/cells.py"),
        "lnsgd/runs/processes/lost.py",
    },
    "yaml.compose": {"lnsgd/untrusted/class_paths.py"},
    "pickle.Unpickler": {"lnsgd/untrusted/pickled_arrays.py"},
    "zipfile.ZipFile": {"lnsgd/untrusted/checkpoint.py"},
    "tarfile.open": {"lnsgd/data/cifar10.py"},
    "numpy.fromfile": {"lnsgd/data/official.py"},
    "pandas.read_parquet": {"lnsgd/untrusted/tables.py"},
    "pyarrow.parquet.ParquetFile": {"lnsgd/untrusted/tables.py", "lnsgd/records/measures.py"},  # batch by batch
}
NOWHERE = (
    *("pickle.load", "pickle.loads", "dill.load", "joblib.load", "shelve.open", "marshal.load", "marshal.loads"),
    *("numpy.load", "pandas.read_pickle", "torch.jit.load", "torch.hub.load", "yaml.unsafe_load", "yaml.full_load"),
    "yaml.safe_load",
    "pyarrow.parquet.read_table",  # imports pandas
    *("json.load", "yaml.load_all", "os.system", "eval", "exec", "shutil.unpack_archive"),
)


def calls(source: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the full names of everything that is used from other modules, whatever it was imported as."""
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


def unsafe_calls(source: str, file: str) -> list[str]:
    used = {name for name, _ in calls(source)}
    return sorted(name for name in used if name in NOWHERE or file not in ALLOWED.get(name, {file}))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_files_are_opened_in_one_place(path):
    assert unsafe_calls(path.read_text(), str(path.relative_to(ROOT))) == []


def test_only_torch_load_loads_weights_only():
    tree = ast.parse((ROOT / "lnsgd/untrusted/checkpoint.py").read_text())
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert loads
    for load in loads:
        assert {word.arg: ast.unparse(word.value) for word in load.keywords}["weights_only"] == "True"


def test_allowed_calls_exist():
    """The list must not contain calls that were removed."""
    for name, files in ALLOWED.items():
        for file in files:
            assert name in {used for used, _ in calls((ROOT / file).read_text())}, (name, file)


UNSAFE = {
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


@pytest.mark.parametrize("source", UNSAFE.values(), ids=UNSAFE)
def test_unsafe_call_is_found(source):
    assert unsafe_calls(source, "lnsgd/measures/estimate.py")
