"""The id of a W&B run, as a run's folder keeps it for going on with that run."""

from pathlib import Path

from lnsgd.loggers.wandb.names import check_run_id
from lnsgd.untrusted.files import size_of
from lnsgd.untrusted.tables import naming
from lnsgd.writing import whole_file

# Bytes of the file; an id is far shorter.
_MOST = 4096


def kept_run_id(path: Path) -> str | None:
    """The id in a file; ``None`` where there is no such file.

    Raises:
        ValueError: what the file holds is no id.
    """
    if not path.exists():
        return None
    with naming(path, "remove it, and a new W&B run begins"):
        size_of(path, _MOST)
        kept = path.read_text(encoding="utf-8").strip()
        check_run_id(kept)
        return kept


def keep_run_id(path: Path, run_id: str) -> None:
    """Writes the file; what is a link is replaced, not followed."""
    with whole_file(path) as part:
        part.write_text(f"{run_id}\n", encoding="utf-8")
