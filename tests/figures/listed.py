"""Let the command ``lnsgd reproduce`` know handmade figures."""

from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from lnsgd.figures.framework import command, listing
from lnsgd.figures.framework.catalogue import FIGURES
from lnsgd.figures.framework.figure import Figure


def list_figures(patch: pytest.MonkeyPatch, figures: Mapping[str, Figure], folder: Path) -> None:
    """Add figures to the catalogue and to the list; the changed list is a file in the folder."""
    added = {
        name: {"title": figure.title, "scales": {scale: of.seeds for scale, of in figure.scales.items()}}
        for name, figure in figures.items()
    }
    file = folder / "listing.yaml"
    file.write_text(listing.FILE.read_text(encoding="utf-8") + yaml.safe_dump(added), encoding="utf-8")
    patch.setattr(listing, "FILE", file)
    patch.setattr(command, "FIGURES", ChainMap(dict(figures), FIGURES))
