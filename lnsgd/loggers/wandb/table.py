"""Data frames as tables of W&B."""

import math
from typing import TYPE_CHECKING, Any

from pytorch_lightning.utilities import rank_zero_info

if TYPE_CHECKING:
    import pandas as pd

# More W&B does not show.
MOST_ROWS = 10_000


def table_of(frame: "pd.DataFrame", name: str) -> Any:
    """A ``wandb.Table`` with the rows of a data frame, the first `MOST_ROWS` of them; it is said where there are more.

    Numbers that are not finite and whatever else is missing are empty; whole numbers beside empty cells stay whole.

    Args:
        frame: The rows.
        name: As it is told.
    """
    import wandb

    if len(frame) > MOST_ROWS:
        rank_zero_info(f"W&B: the table {name} has the first {MOST_ROWS:,} of {len(frame):,} rows")
    shown = frame.head(MOST_ROWS).convert_dtypes()
    rows: list[Any] = [[_plain(value) for value in row] for row in shown.itertuples(index=False)]
    return wandb.Table(columns=list(frame.columns), data=rows)


def _plain(value: Any) -> Any:
    import pandas as pd

    if pd.isna(value) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value
