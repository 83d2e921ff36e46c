"""Read tables and records from anyone: errors name the file, and small files stay small in memory."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsgd.untrusted.files import UnreadableError, size_of
from lnsgd.untrusted.texts import load_json

if TYPE_CHECKING:  # they take a moment to import, which training does without
    import pandas as pd
    import pyarrow as pa

# The remedy for a file that cannot be read.
REMEDY = "make it again, or leave this folder out"

# The most fields and the most unpacked bytes of a table: one or two gigabytes in memory.
_MAX_FIELDS, _MAX_BYTES = 200_000_000, 2 << 30


class FileError(ValueError):
    """A file cannot be read; the message names the file and the remedy."""


@contextmanager
def naming(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Turn every error while a file is read into one `FileError` that names the file.

    Args:
        path: The file that is read in this context.
        remedy: What the user can do.
    """
    try:
        yield
    except FileError:
        raise
    except FileNotFoundError:
        raise FileError(f"{path} is missing; {remedy}") from None
    except Exception as error:  # of pandas and pyarrow, or due to unexpected content
        cause = " ".join(str(error).split())[:160] or type(error).__name__
        raise FileError(f"{path} cannot be read ({cause}); {remedy}") from error


def read_record(path: Path, fields: Mapping[str, Any], remedy: str = REMEDY) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: The file.
        fields: Names of required fields with their types for ``isinstance``. True and false do not count as numbers.
        remedy: What the user can do if the file cannot be read.

    Raises:
        ValueError: The file is missing or damaged, or a field is missing or has another type.
    """
    with naming(path, remedy):
        found = load_json(path)
        if not isinstance(found, dict):
            raise UnreadableError(f"it holds {type(found).__name__} instead of an object")
        for name, kind in fields.items():
            if name not in found:
                raise UnreadableError(f"it has no {name}")
            if not isinstance(found[name], kind) or (isinstance(found[name], bool) and kind is not bool):
                raise UnreadableError(f"its {name} is {found[name]!r:.60}")
    return found


def read_parquet(path: Path) -> "pd.DataFrame":
    """Read a Parquet file into a data frame.

    Raises:
        ValueError: The file is missing or damaged, or unpacks to more than any table of lnsgd.
    """
    import pandas as pd

    with naming(path):
        check_parquet(path)
        return pd.read_parquet(path)


def read_arrow(path: Path, columns: Collection[str] | None = None, remedy: str = REMEDY) -> "pa.Table":
    """Read a Parquet file, or some of its columns, into a table of Arrow.

    Args:
        path: The file.
        columns: The columns to read; by default all.
        remedy: What the user can do if the file cannot be read.

    Raises:
        ValueError: See `read_parquet`.
    """
    import pyarrow.parquet as pq

    with naming(path, remedy):
        check_parquet(path)
        with pq.ParquetFile(path) as file:  # ``read_table`` would import pandas, and make columns of the folders' names
            return file.read(columns=None if columns is None else list(columns))


def check_parquet(path: Path) -> None:
    """Raise UnreadableError if the rows of a file, or the texts that its dictionaries repeat, would fill the memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size_of(path)
    with pq.ParquetFile(path) as file:
        about, schema = file.metadata, file.schema_arrow
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        rows = max(about.num_rows, sum(group.num_rows for group in groups))
        if rows * about.num_columns > _MAX_FIELDS or sum(group.total_byte_size for group in groups) > _MAX_BYTES:
            raise UnreadableError(f"it has {rows:,} rows of {about.num_columns:,} columns")
        if nested := [field.name for field in schema if pa.types.is_nested(field.type)]:
            raise UnreadableError(f"the column {nested[0]!r:.60} holds nested tables")
        texts = [field.name for field in schema if _is_text(field.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        if sum(map(_unpacked_bytes, file.read(texts).columns)) > _MAX_BYTES:
            raise UnreadableError("its texts are larger than those of any table of lnsgd")


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(check(plain) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _unpacked_bytes(column: "pa.ChunkedArray") -> int:
    """Return the bytes of the texts of a column, each as often as it is referred to."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary) if pa.types.is_dictionary(chunk.type) else pc.binary_length(chunk)
        each = pc.take(lengths, chunk.indices) if pa.types.is_dictionary(chunk.type) else lengths
        total += pc.sum(pc.cast(each, pa.int64())).as_py() or 0
    return total
