"""Watch Python while a file is read: it must do nothing except reading."""

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The most additional memory, and the most seconds of computing, for reading a file.
MEMORY, SECONDS = 1 << 30, 2

_RUNS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "webbrowser.open")
_WRITES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod", "shutil.rmtree")
_WRITING_FLAGS = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC

_watching = False
_seen: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in _RUNS or event in _WRITES:
        _seen.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING_FLAGS:
        _seen.append(f"open {arguments[0]} for writing")
    elif event == "import" and _is_foreign(arguments[0]):
        _seen.append(f"import {arguments[0]}")


def _is_foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in _known_packages


# Arrow looks for this package repeatedly, but does not need it.
_known_packages = {"substrait"}
sys.addaudithook(_hook)


@contextmanager
def guarded() -> Iterator[None]:
    """Fail if the code in this context runs a program, writes, opens a connection, imports a new package, or takes
    more than 2 seconds of computing or more than a gigabyte."""
    global _watching
    _known_packages.update(name.partition(".")[0] for name in sys.modules)
    _seen.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, hard))
    before = signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    _watching = True
    try:
        yield
    finally:
        _watching = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert not _seen, _seen


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class TooLong(BaseException):
    """Not caught by ``except Exception``."""


def _too_long(*_: object) -> None:
    raise TooLong(f"more than {SECONDS} seconds of computing")
