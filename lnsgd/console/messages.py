"""Messages of commands: errors in one line that names the value, what is allowed and the remedy; counts."""

import difflib
import importlib
import inspect
import re
import sys
from argparse import Action, ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

# Lines that jsonargparse puts around the cause of an error.
_WRAPPING = re.compile(
    r"^(Does not validate against any of the Union subtypes|Subtypes: |Errors:|Given value type: |Given value: "
    r"|Expected a <class 'NoneType'>|Problem with given class_path|(.*: )?Parser key \"[^\"]*\":$"
    r"|Type typing\.Callable.* expects a function or a callable class"
    r"|Validation failed: .*:$)"
)

# What jsonargparse says about a class that is named without its path.
_SEVERAL_CLASSES = re.compile(r"Multiple subclasses with name (\w+)\..*ambiguity: (.*?)\.?$", re.MULTILINE)

# Messages of torch that mean the same as a MemoryError.
_NO_HOST_MEMORY = re.compile(r"can't allocate memory|not enough memory|std::bad_alloc|Cannot allocate memory")


class CommandParser(ArgumentParser):
    """Parser of a command that raises ValueError instead of printing its errors.

    Attributes:
        own_actions: Its arguments in the order in which they were added; who adds one to a group adds it here too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.own_actions: list[Action] = []
        super().__init__(*args, **kwargs)

    def add_argument(self, *names: str, **kwargs: Any) -> Action:
        """Add an argument as `ArgumentParser` does, and remember it."""
        action = super().add_argument(*names, **kwargs)
        self.own_actions.append(action)
        return action

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with a hint at the command's help, and at the option that may have been meant."""
        unknown = re.match(r"unrecognized arguments: (--[\w.-]+)", message)
        names = [name for action in self.own_actions for name in action.option_strings]
        hint = did_you_mean(unknown[1], names) if unknown else ""
        raise ValueError(f"{self.prog}: {message}{hint}; `{self.prog} --help` shows its options")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint at the name that is most like a misspelled one, or nothing if none is like it.

    Example:
        >>> print("there is no command 'tabel'" + did_you_mean("tabel", ["sweep", "table"]))
        there is no command 'tabel' (did you mean 'table'?)
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def counted(number: int, noun: str) -> str:
    """Write a number with its noun in singular or plural: ``1 job``, ``2 jobs``, ``2 analyses``."""
    several = f"{noun[:-2]}es" if noun.endswith("is") else f"{noun}s"
    return f"{number} {noun if number == 1 else several}"


def out_of_memory(error: BaseException) -> str | None:
    """Return a line with a remedy if an error means that memory is full, else ``None``.

    The classes of torch are recognized by name, because importing torch takes seconds and the error may be Python's.

    Args:
        error: Any error.
    """
    text = " ".join(str(error).split())
    on_device = type(error).__name__ == "OutOfMemoryError"
    if not (on_device or isinstance(error, MemoryError) or _NO_HOST_MEMORY.search(text)):
        return None
    where = "the device" if on_device else "this machine"
    cause = f" ({wanted[0]})" if (wanted := re.search(r"[Tt]ried to allocate [\d.]+ \w+", text)) else ""
    return (
        f"the memory of {where} is full{cause}; take a smaller --data.batch_size, fewer --replicas.seeds at once or "
        "--trainer.precision bf16-mixed. Checkpoints written before are whole"
    )


def printable(text: str) -> str:
    r"""Replace characters that control a terminal, which names from files may contain.

    Example:
        >>> print(printable("evil\x1b[2J.ckpt"))
        evil�[2J.ckpt
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def one_line(error: BaseException, options: Callable[[], Sequence[str]] = tuple) -> str:
    """Reduce an error to its cause in one line, with the nearest name if a name is misspelled.

    The parser reports a nested error as a tree of a dozen lines, whose first leaf is the cause.

    Args:
        error: Any error.
        options: Returns the options of the command, such as ``--trainer.max_epochs``; called if one is misspelled.
    """
    text = str(error) or type(error).__name__
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if not _WRAPPING.match(line)]
    first = (causes or lines)[0]
    way = text[: text.index(first) + len(first)]  # what follows are other ways in which the value could be understood
    keys = re.findall(r"Parser key \"([^\"]*)\":", way)
    classes = re.findall(r"(?:Problem with given class_path |class_path=)'([^']*)'", way)
    where, cause = ".".join(keys), re.sub(r"^Parser key \"([^\"]*)\": ", r"\1: ", first)
    cause = re.sub(r"^(Call to compute_fn of link .* failed|Type .* expects a function or .* class): ", "", cause)
    cause = re.sub(r"^Subcommand '\w+' does not accept option '", "Option '", cause)  # in a config file
    cause = re.sub(r"^Group '([\w.]+)' does not accept option '", r"Option '\1.", cause)
    if unknown := re.match(r"(?:Option '|unrecognized arguments: --)([\w.]+)", cause):
        return _unknown_option(unknown[1], where, classes, options)
    if several := _SEVERAL_CLASSES.search(text):
        return f"{where} = {several[1]}: several classes have this name; give the full path of one, {several[2]}"
    if plain := re.fullmatch(r"Expected a <class '(\w+)'>\. Got value: (.*)", cause):
        return f"{where or 'an option'} = {plain[2]}: expected {plain[1]}"
    if keys and (absent := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text)):
        hint = did_you_mean(absent[2], vars(sys.modules[absent[1]]))
        return f"{where} = {absent[1]}.{absent[2]}: {absent[1]} has no {absent[2]}{hint}"
    if cause.startswith("Expected a") and (value := re.search(r"Given value: (.*)", text)):
        given = re.sub(r"\. Got value: Namespace.*", "", value[1])
        given = re.sub(r"NestedArg\(key='[^']*', val='(.*)'\)", r"\1", given)
        named = re.search(r"'class_path': '([^']*)'", given)
        hint = did_you_mean(named[1] if named else given, _class_names(text, classes, keys))
        return f"{where} = {given}: {_expected(causes)}{hint}"
    return cause if len(lines) > 1 else " ".join(cause.split())


def _expected(causes: list[str]) -> str:
    """Translate ``Expected a <class 'int'>`` and ``Expected a typing.Literal['a', 'b']. …`` into plain words."""
    kinds: dict[str, None] = {}
    for cause in causes:
        if literal := re.search(r"Literal\[([^\]]*)\]", cause):
            kinds[literal[1].replace("'", "").replace(",", " or")] = None
        elif kind := re.search(r"<class '([^']*)'>", cause):
            kinds[kind[1]] = None
        elif "dot import path" in cause or "accessible" in cause:
            kinds["the name or import path of a class"] = None
    return f"expected {' or '.join(kinds)}"


def _class_names(text: str, classes: Sequence[str], keys: Sequence[str]) -> set[str]:
    """Return the names of the classes that an option takes: those derived from the classes that its type names.

    The parser has imported these. It reports the types of most options, and for others, such as the function that makes
    an optimizer, they are looked up in the signature of the class that has the option.

    Args:
        text: The error of the parser.
        classes: The classes on the way to the option, from the outermost on.
        keys: The names of the options on that way.
    """
    types = re.findall(r"Subtypes: \[(.*)\]", text)[-1:]
    if classes and keys:
        types.append(str(_parameters(classes[-1]).get(keys[-1], "")))
    paths = {path for kind in types for path in re.findall(r"[A-Za-z_]\w*(?:\.\w+)+", kind)}
    found = (getattr(sys.modules.get(path.rpartition(".")[0]), path.rpartition(".")[2], None) for path in paths)
    waiting, known = [kind for kind in found if inspect.isclass(kind)], set()
    while waiting:
        derived = [kind for kind in type.__subclasses__(waiting.pop()) if kind not in known]
        known.update(derived)
        waiting += derived
    return {kind.__name__ for kind in known if not (kind.__name__.startswith("_") or inspect.isabstract(kind))}


def _unknown_option(option: str, where: str, classes: list[str], options: Callable[[], Sequence[str]]) -> str:
    if not classes:
        return f"there is no option --{option}{_nearest_option(option, options())}; `lnsgd fit --help-all` lists them"
    name, accepted = option.split(".")[0], _parameters(classes[-1])
    close = difflib.get_close_matches(name, accepted, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it takes: {', '.join(accepted) or 'none'}"
    return f"{where}: {classes[-1]} has no option {name!r}; {hint}"


def _nearest_option(option: str, options: Sequence[str]) -> str:
    """Return a hint at an option: one that is alike, or whose last part is, or whose first part is."""
    by_end = {name.rpartition(".")[2]: f"--{name.removeprefix('--')}" for name in reversed(options)}
    close = difflib.get_close_matches(option.removeprefix("--"), by_end, n=1)
    first = did_you_mean(f"--{option.partition('.')[0]}", [name for name in options if "." not in name])
    by_its_end = f" (did you mean {by_end[close[0]]!r}?)" if close else ""
    return did_you_mean(f"--{option}", options) or by_its_end or first


def _parameters(class_path: str) -> dict[str, Any]:
    """Return the parameters of a constructor with their types, including those that it passes on to base classes."""
    module, _, name = class_path.rpartition(".")
    names: dict[str, Any] = {}
    for base in inspect.getmro(getattr(importlib.import_module(module), name)):
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(base).parameters.values())
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names = {**{p.name: p.annotation for p in parameters if p.kind in named}, **names}
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return names
