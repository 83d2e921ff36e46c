"""``settings.json``: the scale, the seeds, the configs and the options of a figure's arms."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming, read_record


def write_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Write ``settings.json``.

    Args:
        settings: Plain values: ``figure``, ``scale``, ``seeds``, ``configs`` and ``arms`` (by arm), perhaps ``grids``.
        path: The file; written whole or not at all.
    """
    with whole_file(path) as part:
        part.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_settings(path: Path) -> dict[str, Any]:
    """Read ``settings.json``.

    Args:
        path: The file.

    Raises:
        ValueError: the file is missing or damaged.
    """
    settings = read_record(path, {})
    with naming(path):
        if not isinstance(settings.get("configs", {}), dict):
            raise UnreadableError("its configs are not an object")
    return settings
