"""Runs of an arm that were trained one seed after the other, read as if they were the replicas of one run."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from lnsgd.replicas import Replica
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.tables import read_parquet, read_record
from lnsgd.writing import whole_file


def seed_run(arm: RunFolder, seed: int) -> RunFolder:
    """The run of one seed, in the folder of its arm."""
    return RunFolder(arm.path / f"seed-{seed}")


def unite(arm: RunFolder, parts: Sequence[RunFolder]) -> None:
    """Writes into an arm's folder what a replicated run leaves, from the finished runs of its seeds.

    ``measures.parquet`` has the rows of all, the number of the seed in the column ``replica``; ``replicas.csv`` the
    seeds; ``config.yaml`` is that of the first; ``finished.json``, written last, has their seconds summed, the end
    of the last and the devices of all. An ordinary run does not know whether it diverged, so ``diverged_at`` is empty.

    Args:
        arm: The arm's folder.
        parts: The runs of seeds 0, 1, … in this order.

    Raises:
        ValueError: the runs took different numbers of steps.
    """
    ended = [read_record(part.finished, {"steps": int, "seconds": (int, float), "device": str}) for part in parts]
    if len({end["steps"] for end in ended}) > 1:
        steps = ", ".join(f"{end['steps']:,} ({part.path.name})" for part, end in zip(parts, ended))
        raise ValueError(f"the runs in {arm.path} took different numbers of steps: {steps}; delete those that differ")
    tables = [read_parquet(part.measures).assign(replica=seed) for seed, part in enumerate(parts)]
    with whole_file(arm.measures) as file:
        pd.concat(tables, ignore_index=True).astype({"replica": "int32"}).to_parquet(file, index=False)
    rows = [{**asdict(Replica(seed)), "diverged_at": None} for seed in range(len(parts))]
    with whole_file(arm.replicas) as file:
        pd.DataFrame(rows).rename_axis("replica").to_csv(file)
    with whole_file(arm.config) as file:
        file.write_text(parts[0].config.read_text())
    devices = ", ".join(dict.fromkeys(end["device"] for end in ended))
    united = {**ended[0], "seconds": round(sum(end["seconds"] for end in ended), 1), "device": devices}
    if dates := [end["ended"] for end in ended if "ended" in end]:  # runs of older versions do not say when
        united["ended"] = max(dates)
    with whole_file(arm.finished) as file:
        file.write_text(json.dumps(united, indent=2) + "\n")
