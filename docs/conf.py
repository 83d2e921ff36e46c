"""Settings of Sphinx: the reference comes from docstrings, and the front page is the README.

The public names of a room are its ``__all__``, or in a room of one file the classes and functions in it.
"""

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from docutils.nodes import Element, Text, document, literal_block
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.nodes import make_refnode
from torch import nn

import lnsgd

ROOT = Path(__file__).parents[1]

project = "lnsgd"
author = "the lnsgd authors"
version = release = lnsgd.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.programoutput",
]
templates_path = ["templates"]
exclude_patterns = ["results/README.md", "templates"]
# A name in single backticks is a link; one that leads nowhere is a warning. The types in signatures need lead nowhere.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:(?!obj).*", ".*"),
    ("py:obj", r"torch\..*|None|typing\..*|collections\..*|.*\.interpolation\.Model"),
]

autosummary_ignore_module_all = False
suppress_warnings = ["config.cache"]  # of the functions that the templates call; every build is a full one anyway
autosummary_context = {"bases_of": lambda room: bases_of(room), "public_names": lambda room: public_names(room)}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
# These would become directives of members otherwise, which autodoc writes already.
napoleon_custom_sections = [("Attributes", "params_style"), ("Methods", "params_style")]
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

myst_heading_anchors = 3
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"lnsgd {release}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

# Help texts are as wide as a page, and those of the environment that builds them.
os.environ["COLUMNS"] = "84"
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

# What Lightning calls is described by Lightning; a network's own methods are not.
_HOOKS = {*dir(pl.Callback), *dir(pl.LightningDataModule), *dir(pl.LightningModule)} - set(dir(nn.Module))
_HOOKS |= {"state_dict", "load_state_dict"}

# Pages made of files that lie elsewhere, so that GitHub shows them where it looks for them.
_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "docs/results/README.md": "results.md",
}


def public_names(room: str) -> list[str]:
    """Return the public names of a room: its ``__all__``, or the classes and functions in its one file."""
    module = importlib.import_module(room)
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if home_of(getattr(module, name)) in (None, room)]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == room
    ]


def rooms() -> list[str]:
    """Return the rooms of the reference."""
    return re.findall(
        r"^ +(lnsgd\.\S+)$", (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8"), re.MULTILINE
    )


def home_of(value: object) -> str | None:
    """Return the room with the page of a class or function: of the rooms that contain and export it, the outermost.

    Other rooms may export it too.
    """
    module, name = getattr(value, "__module__", None) or "", getattr(value, "__name__", None)
    homes = [room for room in rooms() if f"{module}.".startswith(f"{room}.") and _exports(room, module, name)]
    return min(homes, key=len, default=None)


def _exports(room: str, module: str, name: str | None) -> bool:
    exported = getattr(importlib.import_module(room), "__all__", None)
    return module == room if exported is None else name in exported


def bases_of(room: str) -> list[str]:
    """Return the bases of a room's public classes that are in the room but not public, by their paths in it."""
    module = importlib.import_module(room)
    public = [getattr(module, name) for name in public_names(room)]
    bases = {base: None for kind in public if inspect.isclass(kind) for base in inspect.getmro(kind)}
    return sorted(
        f"{base.__module__}.{base.__name__}".removeprefix(f"{room}.")
        for base in bases
        if base.__module__.startswith(f"{room}.") and home_of(base) is None and not base.__name__.startswith("_")
    )


def _case_apart(names_of: Sequence[str]) -> dict[str, str]:
    """Return other file names for functions whose pages differ from that of a class only in case."""
    apart = {}
    for room in names_of:
        names = public_names(room)
        taken = [name.lower() for name in names]
        apart |= {
            f"{room}.{name}": f"{room}.{name}-function"
            for name in names
            if name == name.lower() and taken.count(name) > 1
        }
    return apart


def _moved(text: str, source: Path, page: Path) -> str:
    """Return Markdown of one folder with its relative links changed for a page in another folder."""
    docs = ROOT / "docs"

    def link(match: re.Match[str]) -> str:
        path, hash_sign, anchor = match[1].partition("#")
        target = (source / path).resolve()
        moved_to = _PAGES.get(os.path.relpath(target, ROOT))
        there = os.path.relpath(docs / moved_to if moved_to else target, page)
        kind = "" if moved_to or target.is_relative_to(docs) else "path:"  # a file to download, no page
        return f"]({kind}{there}{hash_sign}{anchor})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", link, text)


def _lead_from_page(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    """Change the links of a file that a page includes."""
    content[0] = _moved(content[0], (Path(app.srcdir) / path).resolve().parent, (Path(app.srcdir) / parent).parent)


def _lead_to_pages(app: Sphinx, docname: str, content: list[str]) -> None:
    """Change links to files that are pages of their own here."""
    if Path(app.env.doc2path(docname)).suffix == ".md":
        folder = (Path(app.srcdir) / docname).parent
        content[0] = _moved(content[0], folder, folder)


def _bars_are_norms(app: Sphinx, what: str, name: str, obj: Any, options: dict[str, Any], lines: list[str]) -> None:
    """Escape bars: in formulas ``|x|`` is an absolute value and not a substitution of reStructuredText."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.+?``|`.+?`)", line)
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[number] = "".join(parts)


def _inherit_arguments(app: Sphinx, what: str, name: str, obj: Any, options: dict[str, Any], lines: list[str]) -> None:
    """Add the arguments that a class inherits, as its base describes them."""
    if what != "class" or "Args:" in lines or "__init__" in vars(obj):
        return
    base = next((base for base in inspect.getmro(obj)[1:] if "__init__" in vars(base)), object)
    if not base.__module__.startswith("lnsgd."):
        return
    found = re.search(r"^Args:\n(?:(?: {4}.*)?\n)+", (inspect.getdoc(base) or "") + "\n", re.MULTILINE)
    if found:
        section = [*found[0].rstrip().splitlines(), ""]
        end = next((at for at, line in enumerate(lines) if re.fullmatch(r"(Raises|Attributes):", line)), len(lines))
        lines[end:end] = [*([] if not lines[:end] or not lines[end - 1] else [""]), *section]


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: dict[str, Any]) -> bool | None:
    """Leave out members that are not lnsgd's own, and hooks that Lightning calls."""
    if what != "class":
        return None
    function = obj.fget if isinstance(obj, property) else inspect.unwrap(getattr(obj, "__func__", obj))
    own = (getattr(function, "__module__", None) or "").startswith("lnsgd.")
    return None if own and name not in _HOOKS else True


def _comment_on_data(app: Sphinx, what: str, name: str, obj: Any, options: dict[str, Any], lines: list[str]) -> None:
    """Describe a constant or an alias that a room imports by the comment at its definition.

    Sphinx looks for that comment in the room only, and shows the docstring of the value's class where there is none.
    """
    if what in ("data", "type") and name.startswith("lnsgd."):
        lines[:] = _comment_at_definition(*name.rpartition(".")[::2])
        _bars_are_norms(app, what, name, obj, options, lines)


def _comment_at_definition(module: str, name: str) -> list[str]:
    """Return the comment on a name, of the module that defines the name and does not import it."""
    analyzer = ModuleAnalyzer.for_module(module)
    for node in ast.parse(analyzer.code).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _comment_at_definition(node.module, alias.name)
    return analyzer.find_attr_docs().get(("", name), [])


def _by_short_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Resolve what the package itself offers, and a class by its name alone if just one room has it."""
    target = node["reftarget"]
    if node.get("reftype") != "obj":
        return None
    objects = env.domains.python_domain.objects
    offered = target.removeprefix("lnsgd.")
    if target != offered and offered in lnsgd.__all__:
        room = getattr(getattr(lnsgd, offered), "__module__", "lnsgd").rpartition(".")[0]
        found = [name for name in (f"{room}.{offered}",) if name in objects]
    elif target[:1].isupper():
        found = [name for name, there in objects.items() if name.endswith(f".{target}") and not there.aliased]
    else:
        return None
    if len(found) != 1:
        return None
    there = objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], there.docname, there.node_id, text, found[0])


def _without_backspace(app: Sphinx, doctree: document) -> None:
    """Show help texts as a terminal does: jsonargparse removes spaces by backspaces."""
    for block in doctree.findall(literal_block):
        shown = re.sub(r".\x08", "", block.astext())
        if shown != block.astext():
            block[:] = [Text(shown)]
            block.rawsource = shown


def setup(app: Sphinx) -> None:
    """Connect the handlers."""
    app.config.autosummary_filename_map = _case_apart(rooms())
    app.connect("include-read", _lead_from_page)
    app.connect("source-read", _lead_to_pages)
    app.connect("autodoc-process-docstring", _comment_on_data, priority=600)  # after napoleon: no types before colons
    app.connect("autodoc-process-docstring", _inherit_arguments, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _bars_are_norms, priority=400)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _by_short_name)
    app.connect("doctree-read", _without_backspace, priority=900)  # after the help texts are there
