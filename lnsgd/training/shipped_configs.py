"""The configs that ship with lnsgd, which commands take by name."""

import difflib
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "configs"

# Configs of other commands than those that train.
_NOT_OF_RUNS = ("figures", "sweeps")


def shipped_configs(folder: str = "") -> dict[str, Path]:
    """Return the shipped configs by name.

    Args:
        folder: Folder of ``configs/``, such as ``sweeps``; by default the configs of runs, with the name of their
            folder, such as ``trainer/ddp``.

    Example:
        >>> sorted(shipped_configs("sweeps"))[0]
        'mnist-noise'
    """
    within = FOLDER / folder
    named = {path.relative_to(within).with_suffix("").as_posix(): path for path in sorted(within.rglob("*.yaml"))}
    return {name: path for name, path in named.items() if folder or name.partition("/")[0] not in _NOT_OF_RUNS}


def config_path(given: str | Path, folder: str = "") -> Path:
    """Return the path of a config that is given by its path or, if there is no such file, by a shipped config's name.

    Args:
        given: A path, or a name such as ``mnist``.
        folder: Folder of ``configs/`` where names are looked for, such as ``sweeps``; by default the configs of runs.

    Raises:
        ValueError: There is neither such a file nor such a shipped config.

    Example:
        >>> config_path("mnist").name
        'mnist.yaml'
    """
    path = Path(given)
    if path.is_file():
        return path
    shipped = shipped_configs(folder)
    if str(given) in shipped:
        return shipped[str(given)]
    close = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"did you mean {close[0]}?" if close else f"they are {', '.join(shipped)}"
    raise ValueError(f"{given} does not exist: it is neither a file nor a config that ships with lnsgd; {hint}")


def with_config_paths(args: Sequence[str]) -> list[str]:
    """Return a command line in which each ``--config`` has a path.

    Args:
        args: Arguments of a command, among them ``--config GIVEN``, ``-c GIVEN`` or ``--config=GIVEN``.

    Raises:
        ValueError: See `config_path`.
    """
    found, takes_value = [], False
    for arg in args:
        name, equals, value = arg.partition("=")
        if takes_value:
            found.append(_config_of_run(arg))
        elif name == "--config" and equals:
            found.append(f"--config={_config_of_run(value)}")
        else:
            found.append(arg)
        takes_value = not takes_value and arg in ("--config", "-c")
    return found


def _config_of_run(given: str) -> str:
    try:
        return str(config_path(given))
    except ValueError as error:
        raise ValueError(f"--config {error}") from None
