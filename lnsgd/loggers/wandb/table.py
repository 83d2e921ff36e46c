"""Convert data frames to tables of W&B."""

import math
from typing import TYPE_CHECKING, Any

from pytorch_lightning.utilities import rank_zero_info

if TYPE_CHECKING:
    import pandas as pd

# The most rows that W&B displays.
MAX_ROWS = 10_000


def table_of(frame: "pd.DataFrame", name: str) -> Any:
    """Convert a data frame, or its first `MAX_ROWS` rows, to a ``wandb.Table``; print a line if rows are left out.

    Missing values, and numbers that are not finite, become empty; integers beside empty values stay integers.

    Args:
        frame: The data frame.
        name: Name of the table, for the message.
    """
    import wandb

    if len(frame) > MAX_ROWS:
        rank_zero_info(f"W&B: the table {name} has the first {MAX_ROWS:,} of {len(frame):,} rows")
    displayed = frame.head(MAX_ROWS).convert_dtypes()
    rows: list[Any] = [[_plain(value) for value in row] for row in displayed.itertuples(index=False)]
    return wandb.Table(columns=list(frame.columns), data=rows)


def _plain(value: Any) -> Any:
    import pandas as pd

    if pd.isna(value) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value
