"""Image data sets in the layouts that their authors published, downloaded if they are missing."""

import os
import shutil
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from lnsgd.data.image import ImageData
from lnsgd.untrusted.files import UnreadableError, size_of


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder of data sets: ``data_dir``, else ``$LNSGD_DATA_DIR``, else ``~/.cache/lnsgd``."""
    return Path(data_dir or os.environ.get("LNSGD_DATA_DIR") or "~/.cache/lnsgd").expanduser()


def damaged(path: Path, reason: str) -> ValueError:
    """Return the error for a file whose content is wrong."""
    return ValueError(
        f"{path} is damaged or of another data set: {reason}; "
        "delete it to download it again, or replace it by the official file"
    )


def read_bytes(path: Path, expected: int) -> np.ndarray:
    """Read the bytes of a file; nothing is read if the file has another size than expected.

    Raises:
        ValueError: the file has another size, or is not an ordinary file.
    """
    try:
        size = size_of(path)
    except UnreadableError as error:
        raise damaged(path, str(error)) from error
    if size != expected:
        raise damaged(path, f"{size:,} bytes, {expected:,} expected")
    return np.fromfile(path, np.uint8)


class OfficialImageData(ImageData):
    """Base of the data sets that are read from the files that their authors published.

    Subclasses define which files these are (`layouts`), and how they are read (``load``) and downloaded (`download`).

    Args:
        data_dir: Folder of data sets; by default ``$LNSGD_DATA_DIR``, else ``~/.cache/lnsgd``.
        options: See `ImageData`.
    """

    def __init__(self, data_dir: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.folder = data_folder(data_dir)

    @property
    @abstractmethod
    def layouts(self) -> dict[Path, list[str]]:
        """The folders that may hold the data set, each with its files; a download fills the first one."""

    @abstractmethod
    def download(self, folder: Path) -> Path:
        """Download and unpack the data set into an empty folder; return the folder of its files."""

    @property
    def raw(self) -> Path:
        """Folder of the official files: the first that has all of them, or else the first."""
        complete = [folder for folder in self.layouts if not self._missing(folder)]
        return (complete or list(self.layouts))[0]

    def _missing(self, folder: Path) -> list[str]:
        return [name for name in self.layouts[folder] if not (folder / name).exists()]

    def prepare_data(self) -> None:
        """Download missing files through torchvision, which checks their checksums; whole files or none.

        Raises:
            OSError: the download failed; the message names the files and the folder.
        """
        raw = self.raw
        if not self._missing(raw):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".download-") as scratch:
                downloaded = self.download(Path(scratch))
                raw.mkdir(parents=True, exist_ok=True)
                for name in self._missing(raw):
                    shutil.move(downloaded / name, raw / name)
        except (OSError, RuntimeError) as error:
            places = (f"{folder} (missing: {', '.join(self._missing(folder))})" for folder in self.layouts)
            reason = " ".join(str(error).split())
            raise OSError(
                f"{type(self).__name__} is not in {' nor in '.join(places)} and could not be "
                f"downloaded; put the official files there, unpacked, or set data_dir or LNSGD_DATA_DIR ({reason})"
            ) from error
