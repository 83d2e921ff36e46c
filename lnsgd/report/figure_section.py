"""A figure's folder as a section: claims, picture, and where they are left its arms."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsgd.figures.claims import Claim
from lnsgd.report.content import Picture, Section, Text
from lnsgd.report.reading import read_json, read_object, read_picture, read_text
from lnsgd.report.run_section import is_run, read_run
from lnsgd.report.sweep_section import is_sweep, read_sweep

_FIELDS = ("claim", "source", "paper", "measured", "std", "n", "low", "high", "holds")

# The last paragraph of a summary.
_COST = re.compile(r"`(?P<command>[^`]*)`, (?P<time>.*) on (?P<device>.*) \((?P<versions>[^()]*)\)\.")


def is_figure(folder: Path) -> bool:
    """Whether ``lnsgd reproduce`` has written here, or its results were copied here."""
    return (folder / "claims.json").is_file() or _settings(folder).is_file()


def read_figure(folder: Path) -> Section:
    """The section of a figure; of one that has not come to its claims, its arms so far.

    Raises:
        ValueError: a file is damaged, or the picture is missing.
    """
    settings = _read_settings(_settings(folder))
    done = (folder / "claims.json").exists()
    claims = read_claims(folder / "claims.json") if done else []
    name, title, cost = _summary(folder)
    figure = Path(str(settings.get("figure") or name or folder.resolve().name)).name  # of this folder, whatever it says
    arms = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    holding = sum(claim.holds for claim in claims)
    return Section(
        kind="figure",
        name=folder.resolve().name,
        path=str(folder),
        lead=title,
        state=f"{holding} of {len(claims)} claims hold" if done else "not finished",
        facts=[*cost, *_scale(settings)],
        notes=[] if done else ["It has not come to its claims: `lnsgd reproduce` goes on with it."],
        claims=claims,
        pictures=[_picture(folder / f"{figure}.png", figure, title, claims)] if done else [],
        texts=_texts(settings),
        parts=[read_sweep(arm) if is_sweep(arm) else read_run(arm) for arm in arms if is_sweep(arm) or is_run(arm)],
    )


def read_claims(path: Path) -> list[Claim]:
    """The claims in a ``claims.json``; a measured number that was not finite is NaN.

    Raises:
        ValueError: it is damaged.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path} holds {type(rows).__name__} where a list of claims is expected; make it again")
    return [_claim(row, number, path) for number, row in enumerate(rows, 1)]


def _claim(row: Any, number: int, path: Path) -> Claim:
    """One claim, whose fields are checked because a page of wrong claims is worse than none."""
    where = f"{path}: claim {number}"
    if not isinstance(row, Mapping) or set(row) != set(_FIELDS):
        raise ValueError(f"{where} must have the fields {', '.join(_FIELDS)}, and no others; make it again")
    kinds: dict[str, type | tuple[type, ...]] = {
        **{"claim": str, "source": str, "paper": (int, float, str), "n": int, "holds": bool},
        **dict.fromkeys(("measured", "std", "low", "high"), (int, float, type(None))),
    }
    for name, kind in kinds.items():
        if not isinstance(row[name], kind) or (name != "holds" and isinstance(row[name], bool)):
            raise ValueError(f"{where} has {name} = {row[name]!r:.80}, which is no such field's value; make it again")
    return Claim(**{**row, "measured": math.nan if row["measured"] is None else row["measured"]})


def _settings(folder: Path) -> Path:
    return folder / "settings.json"


def _read_settings(path: Path) -> dict[str, Any]:
    settings = read_object(path) if path.exists() else {}
    if not isinstance(settings.get("configs", {}), dict):
        raise ValueError(f"{path} has configs that are no object; make it again, or leave this folder out")
    return settings


def _scale(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(settings[name])) for name in ("scale", "seeds") if name in settings]


def _texts(settings: Mapping[str, Any]) -> list[Text]:
    """The configs of the arms as they were shipped, with comments; and with which options each was trained."""
    configs = settings.get("configs", {})
    others = {name: value for name, value in settings.items() if name != "configs"}
    if isinstance(arms := others.get("arms"), dict):
        others["arms"] = {arm: " ".join(map(str, options)) for arm, options in arms.items()}
    texts = [Text("Options of all arms", json.dumps(others, indent=2, ensure_ascii=False))] if settings else []
    for config in dict.fromkeys(configs.values()):
        of = "; ".join(arm for arm in configs if configs[arm] == config)
        texts.append(Text(f"Config as shipped, of {of}", str(config)))
    return texts


def _summary(folder: Path) -> tuple[str, str, list[tuple[str, str]]]:
    """Name, title, and command and cost of a figure, from the ``summary.md`` of `lnsgd.figures.summary`."""
    path = folder / "summary.md"
    if not path.exists():
        return "", "", []
    paragraphs = [" ".join(text.split()) for text in read_text(path).split("\n\n") if text.strip()]
    name = paragraphs[0].removeprefix("# ") if paragraphs and paragraphs[0].startswith("# ") else ""
    title = next((text for text in paragraphs[1:] if not text.startswith(("|", "!", "`"))), "")
    cost = _COST.fullmatch(paragraphs[-1]) if paragraphs else None
    return name, title, list(cost.groupdict().items()) if cost else []


def _picture(path: Path, figure: str, title: str, claims: list[Claim]) -> Picture:
    told = [title or figure]
    for words, holds in (("Holds", True), ("Does not hold", False)):
        if found := [claim.claim for claim in claims if claim.holds == holds]:
            told.append(f"{words}: {'; '.join(found)}.")
    return read_picture(path, " ".join(told))
