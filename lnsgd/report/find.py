"""Find the folders that a report can show."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lnsgd.report.content import Section
from lnsgd.report.kinds import Kind, inner_folders, kind_of


def read_folders(folders: Sequence[Path]) -> list[Section]:
    """Return the sections of all figures, sweeps, runs and analyses in some folders, each once.

    If a folder is not of any kind, its subfolders are searched in the order of their names, except hidden ones. What
    lies in a folder of a kind belongs to that folder and does not get a section of its own.

    Args:
        folders: Folders of these kinds, or folders that hold some.

    Raises:
        ValueError: a folder does not exist or holds nothing that can be shown; a file is missing or damaged.
    """
    sections, seen = [], set()
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(
                f"{folder} is not a folder; give folders of figures, sweeps, runs or analyses, such as docs/results "
                "or runs"
            )
        found = list(_search(folder, set()))
        if not found:
            raise ValueError(
                f"{folder} holds nothing to report; give folders that lnsgd reproduce, sweep, fit or analyze wrote, or "
                "folders that hold some of these"
            )
        for path, kind in found:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                sections.append(_section(kind, path))
    return sections


def _section(kind: Kind, path: Path) -> Section:
    """Return the section of a folder; an error names the folder, whatever its files hold."""
    try:
        return kind.read(path)
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        cause = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{path} cannot be shown ({cause}); leave this folder out") from error


def _search(folder: Path, above: set[Path]) -> Iterator[tuple[Path, Kind]]:
    """Yield the folders of a kind; links that lead back to a folder above are not followed."""
    if kind := kind_of(folder):
        yield folder, kind
        return
    above = above | {folder.resolve()}
    for inner in inner_folders(folder):
        if inner.resolve() not in above:
            yield from _search(inner, above)
