"""Tables and records that lnsgd wrote, or somebody else: errors name the file, and small files stay small in memory."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsgd.untrusted.files import UnreadableError, size_of
from lnsgd.untrusted.texts import load_json

if TYPE_CHECKING:  # they take a moment to import, which training does without
    import pandas as pd
    import pyarrow as pa

# What the user can do about a file that cannot be read.
REMEDY = "make it again, or leave this folder out"

# Fields of a table, and bytes of one that is unpacked: a gigabyte or two in memory.
_MOST_FIELDS, _MOST_BYTES = 200_000_000, 2 << 30


class FileError(ValueError):
    """A file cannot be read; the message names it, and the remedy."""


@contextmanager
def naming(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """A context in which a file is read: whatever goes wrong is one `FileError`.

    Args:
        path: The file.
        remedy: What the user can do about it.
    """
    try:
        yield
    except FileError:
        raise
    except FileNotFoundError:
        raise FileError(f"{path} is missing; {remedy}") from None
    except Exception as error:  # of pandas and pyarrow, and what content of another form than expected leads to
        cause = " ".join(str(error).split())[:160] or type(error).__name__
        raise FileError(f"{path} cannot be read ({cause}); {remedy}") from error


def read_record(path: Path, fields: Mapping[str, Any], remedy: str = REMEDY) -> dict[str, Any]:
    """A JSON file that holds an object.

    Args:
        path: The file.
        fields: What it must have: names, and types as ``isinstance`` takes them. True and false are no numbers.
        remedy: What the user can do about a file that cannot be read.

    Raises:
        ValueError: it is missing or damaged, or a field is missing or of another type.
    """
    with naming(path, remedy):
        found = load_json(path)
        if not isinstance(found, dict):
            raise UnreadableError(f"it holds {type(found).__name__} where an object is expected")
        for name, kind in fields.items():
            if name not in found:
                raise UnreadableError(f"it has no {name}")
            if not isinstance(found[name], kind) or (isinstance(found[name], bool) and kind is not bool):
                raise UnreadableError(f"its {name} is {found[name]!r:.60}")
    return found


def read_parquet(path: Path) -> "pd.DataFrame":
    """A Parquet file as a table of pandas.

    Raises:
        ValueError: it is missing, damaged, or unpacks to more than a table of lnsgd has.
    """
    import pandas as pd

    with naming(path):
        check_parquet(path)
        return pd.read_parquet(path)


def read_arrow(path: Path, columns: Collection[str] | None = None, remedy: str = REMEDY) -> "pa.Table":
    """The same as a table of Arrow; of all columns, or of some.

    Args:
        path: The file.
        columns: Those that are wanted.
        remedy: What the user can do about a file that cannot be read.

    Raises:
        ValueError: as `read_parquet`.
    """
    import pyarrow.parquet as pq

    with naming(path, remedy):
        check_parquet(path)
        return pq.read_table(path, columns=None if columns is None else list(columns))


def check_parquet(path: Path) -> None:
    """Raises UnreadableError where a file's rows, or the texts that its dictionaries repeat, fill the memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size_of(path)
    with pq.ParquetFile(path) as file:
        about, schema = file.metadata, file.schema_arrow
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        rows = max(about.num_rows, sum(group.num_rows for group in groups))
        if rows * about.num_columns > _MOST_FIELDS or sum(group.total_byte_size for group in groups) > _MOST_BYTES:
            raise UnreadableError(f"it has {rows:,} rows of {about.num_columns:,} columns")
        if nested := [field.name for field in schema if pa.types.is_nested(field.type)]:
            raise UnreadableError(f"it has tables within the column {nested[0]!r:.60}")
        texts = [field.name for field in schema if _is_text(field.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        if sum(map(_unpacked, file.read(texts).columns)) > _MOST_BYTES:
            raise UnreadableError("its texts are larger than any of lnsgd")


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(check(plain) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _unpacked(column: "pa.ChunkedArray") -> int:
    """Bytes of the texts of a column, each as often as it is referred to."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary) if pa.types.is_dictionary(chunk.type) else pc.binary_length(chunk)
        each = pc.take(lengths, chunk.indices) if pa.types.is_dictionary(chunk.type) else lengths
        total += pc.sum(pc.cast(each, pa.int64())).as_py() or 0
    return total
