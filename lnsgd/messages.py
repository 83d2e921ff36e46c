"""What commands say: errors as one line that names the value, what is allowed and the remedy; numbers of things."""

import difflib
import importlib
import inspect
import re
from argparse import ArgumentParser
from typing import NoReturn

# Lines in which jsonargparse wraps the cause of an error.
_WRAPPING = re.compile(
    r"^(Does not validate against any of the Union subtypes|Subtypes: |Errors:|Given value type: |Given value: "
    r"|Expected a <class 'NoneType'>|Problem with given class_path|(.*: )?Parser key \"[^\"]*\":$"
    r"|Type typing\.Callable.* expects a function or a callable class"
    r"|Validation failed: .*:$)"
)

# What torch says in place of a MemoryError.
_NO_HOST_MEMORY = re.compile(r"can't allocate memory|not enough memory|std::bad_alloc|Cannot allocate memory")


class CommandParser(ArgumentParser):
    """Parser of a command that raises its errors as ValueError, and does not print them."""

    def error(self, message: str) -> NoReturn:
        """Raises ValueError with a hint at the command's help."""
        raise ValueError(f"{self.prog}: {message}; `{self.prog} --help` shows its options")


def counted(number: int, noun: str) -> str:
    """How many there are: ``1 job``, ``2 jobs``, ``2 analyses``."""
    several = f"{noun[:-2]}es" if noun.endswith("is") else f"{noun}s"
    return f"{number} {noun if number == 1 else several}"


def out_of_memory(error: BaseException) -> str | None:
    """What to do about an error, in one line, where memory has run out; else ``None``.

    Torch is not asked for its classes: to import it takes seconds, and an error without it can only be Python's.

    Args:
        error: Any.
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
    r"""A text without what moves a terminal's cursor or sends it commands, which names in files may hold.

    Example:
        >>> print(printable("evil\x1b[2J.ckpt"))
        evil�[2J.ckpt
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def one_line(error: BaseException) -> str:
    """The cause of an error in one line.

    The parser reports a nested error as a tree over a dozen lines; its cause is the first leaf.
    """
    text = str(error) or type(error).__name__
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if not _WRAPPING.match(line)]
    keys = re.findall(r"Parser key \"([^\"]*)\":", text)
    classes = re.findall(r"Problem with given class_path '([^']*)'", text)
    where, cause = ".".join(keys), re.sub(r"^Parser key \"([^\"]*)\": ", r"\1: ", (causes or lines)[0])
    cause = re.sub(r"^Call to compute_fn of link .* failed: ", "", cause)
    if unknown := re.match(r"(?:Option '|unrecognized arguments: --)([\w.]+)", cause):
        return _unknown_option(unknown[1], where, classes)
    if plain := re.fullmatch(r"Expected a <class '(\w+)'>\. Got value: (.*)", cause):
        return f"{where or 'an option'} = {plain[2]}: expected {plain[1]}"
    if cause.startswith("Expected a") and (value := re.search(r"Given value: (.*)", text)):
        given = re.sub(r"\. Got value: Namespace.*", "", value[1])
        given = re.sub(r"NestedArg\(key='[^']*', val='(.*)'\)", r"\1", given)
        return f"{where} = {given}: {_expected(causes)}"
    return cause if len(lines) > 1 else " ".join(cause.split())


def _expected(causes: list[str]) -> str:
    """``Expected a <class 'int'>`` or ``Expected a typing.Literal['a', 'b']. …``, in plain words."""
    kinds: dict[str, None] = {}
    for cause in causes:
        if literal := re.search(r"Literal\[([^\]]*)\]", cause):
            kinds[literal[1].replace("'", "").replace(",", " or")] = None
        elif kind := re.search(r"<class '([^']*)'>", cause):
            kinds[kind[1]] = None
        elif "dot import path" in cause or "accessible" in cause:
            kinds["the name or import path of a class"] = None
    return f"expected {' or '.join(kinds)}"


def _unknown_option(option: str, where: str, classes: list[str]) -> str:
    if not classes:
        return f"there is no option --{option}; `lnsgd fit --help` lists them"
    name, accepted = option.split(".")[0], _parameters(classes[-1])
    close = difflib.get_close_matches(name, accepted, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it takes: {', '.join(accepted) or 'none'}"
    return f"{where}: {classes[-1]} has no option {name!r}; {hint}"


def _parameters(class_path: str) -> list[str]:
    """Names of a constructor's parameters, those that it passes on to its bases included."""
    module, _, name = class_path.rpartition(".")
    names: dict[str, None] = {}
    for base in inspect.getmro(getattr(importlib.import_module(module), name)):
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(base).parameters.values())
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names.update(dict.fromkeys(p.name for p in parameters if p.kind in named))
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return list(names)
