"""Private interfaces of other libraries are used in `lnsgd.compat` alone, which costs nothing to import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The link lnsgd/callbacks is not followed: its files are found once, below callbacks/.
FILES = sorted(
    path
    for top in ("lnsgd", "callbacks")
    for path in (ROOT / top).rglob("*.py")
    if "lnsgd/callbacks" not in str(path) and path.parent != ROOT / "lnsgd" / "compat"
)
# Of the standard library, and public in spite of their underscore.
PUBLIC = {"_asdict", "_exit", "_fields", "_replace"}
STANDARD_LIBRARY = sys.stdlib_module_names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined_names(tree: ast.AST) -> set[str]:
    """Names of functions, classes, attributes of ``self`` and variables that a file defines."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            on_own_object = not isinstance(node, ast.Attribute) or ast.unparse(node.value) in ("self", "cls")
            if on_own_object:
                found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return found


def private_interfaces(source: str, own: set[str]) -> Iterator[str]:
    """Private attributes that a file takes from objects, and private modules and names that it imports.

    Args:
        source: The file.
        own: Private names that the package defines, which a class may use on itself and its bases.
    """
    tree = ast.parse(source)
    here = defined_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in PUBLIC | here:
            on_itself = ast.unparse(node.value) in ("self", "cls", "super()")
            if not (on_itself and node.attr in own):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)) and name.value not in here:
                yield ast.unparse(node)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if any(map(is_private, a.name.split("."))))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] not in STANDARD_LIBRARY:
            names = [f"{node.module}.{a.name}" for a in node.names]
            yield from (name for name in names if any(map(is_private, name.split("."))))


OWN = set().union(*(defined_names(ast.parse(path.read_text())) for path in FILES))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_private_interface_outside_of_compat(path: Path) -> None:
    assert list(private_interfaces(path.read_text(), OWN)) == []


FOUND = {
    "attribute": "trainer._signal_connector",
    "inherited-method": "class A(B):\n    def f(self): self._generate_state_key()",
    "assignment": "module._compiled_call_impl = None",
    "by-name": "getattr(callback, '_every_n_train_steps', 0)",
    "module": "import torch._inductor",
    "from-module": "from torch._inductor.exc import InvalidCxxCompiler",
    "name": "from torch.nn.modules.batchnorm import _BatchNorm",
    "chain": "torch.nn.modules.batchnorm._BatchNorm",
}


@pytest.mark.parametrize("source", FOUND.values(), ids=FOUND)
def test_a_private_interface_is_found(source: str) -> None:
    assert len(list(private_interfaces(source, set()))) == 1


ALLOWED = {
    "own-attribute": "class A:\n    def __init__(self): self._x = 1\n    def f(self, other): return self._x + other._x",
    "own-base": "class A(B):\n    def f(self): return self._of_base",
    "named-tuple": "row._replace(value=1)._asdict()",
    "dunder": "torch.__version__",
    "own-function": "from lnsgd import compat\ndef _f(): compat.state_key(1, {})\n_f()",
}


@pytest.mark.parametrize("source", ALLOWED.values(), ids=ALLOWED)
def test_own_names_are_allowed(source: str) -> None:
    assert list(private_interfaces(source, {"_of_base"})) == []


def test_importing_compat_imports_no_library() -> None:
    code = "import sys, lnsgd.compat; print([m for m in ('torch', 'pytorch_lightning', 'wandb') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"


def test_every_function_names_the_versions_it_was_tried_with() -> None:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "lnsgd" / "compat").glob("*.py")]
    functions = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 10
    assert [f.name for f in functions if "Tried with " not in (ast.get_docstring(f) or "")] == []
