"""The section of a figure: its claims and picture, and its arms where they are left."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsgd.records.claims import ClaimsRecord, count_claims, read_claims
from lnsgd.records.settings import read_settings
from lnsgd.records.verdicts import FAILS, HOLDS, UNDECIDED, Verdict
from lnsgd.report.content import Picture, Section, Text
from lnsgd.report.facts import facts
from lnsgd.report.kinds import RUN, SWEEP, inner_folders, kind_of
from lnsgd.report.reading import read_picture


def read_figure(folder: Path) -> Section:
    """Return the section of a figure; if its claims are not there yet, it shows the arms so far.

    Raises:
        ValueError: a file is damaged, or the picture is missing.
    """
    settings = read_settings(_settings(folder)) if _settings(folder).exists() else {}
    done = _claims(folder).exists()
    record = read_claims(_claims(folder)) if done else ClaimsRecord([])
    # The file of the picture lies in this folder, whatever the records say.
    figure = Path(str(settings.get("figure") or record.figure or folder.resolve().name)).name
    arms = [(kind_of(path, (SWEEP, RUN)), path) for path in inner_folders(folder)]
    return Section(
        kind="figure",
        name=folder.resolve().name,
        path=str(folder),
        lead=f"{record.title}." if record.title else "",
        state=count_claims(record.claims) if done else "not finished",
        facts=[*facts(record.provenance), *_scale(settings)],
        notes=[] if done else ["The claims are not judged yet; the same `lnsgd reproduce` command resumes the figure."],
        claims=record.claims,
        pictures=[_picture(folder / f"{figure}.png", figure, record)] if done else [],
        texts=_texts(settings),
        parts=[kind.read(path) for kind, path in arms if kind is not None],
    )


def _claims(folder: Path) -> Path:
    return folder / "claims.json"


def _settings(folder: Path) -> Path:
    return folder / "settings.json"


def _scale(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(settings[name])) for name in ("scale", "seeds") if name in settings]


def _texts(settings: Mapping[str, Any]) -> list[Text]:
    """Return the configs of the arms as shipped, with comments, and the options with which each arm was trained."""
    configs = settings.get("configs", {})
    others = {name: value for name, value in settings.items() if name != "configs"}
    if isinstance(arms := others.get("arms"), dict):
        others["arms"] = {arm: " ".join(map(str, options)) for arm, options in arms.items()}
    texts = [Text("Options of all arms", json.dumps(others, indent=2, ensure_ascii=False))] if settings else []
    for config in dict.fromkeys(configs.values()):
        of = "; ".join(arm for arm in configs if configs[arm] == config)
        texts.append(Text(f"Config as shipped, of {of}", str(config)))
    return texts


def _picture(path: Path, figure: str, record: ClaimsRecord) -> Picture:
    """Read the picture; its description names the claims by their verdicts."""
    said = [f"{record.title}." if record.title else figure]
    verdicts: dict[Verdict, str] = {HOLDS: "Holds", UNDECIDED: "Undecided", FAILS: "Fails"}
    for verdict, words in verdicts.items():
        if found := [claim.claim for claim in record.claims if claim.verdict == verdict]:
            said.append(f"{words}: {'; '.join(found)}.")
    return read_picture(path, " ".join(said))
