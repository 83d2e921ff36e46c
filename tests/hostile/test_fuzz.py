"""Mutated and random files are either read to the right types or refused in one line that names them."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.fuzzed_kinds import FILES, KINDS, RUN_FILES, Kind
from tests.hostile.guarded import guarded

# Cases of each kind; the 17 kinds have about 300 and 10,200 in total.
FAST, SLOW = 18, 650


_EXTREMES = [
    *(b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00" * 8, b"\xff" * 8, b"\xff" * 7 + b"\x7f"),
    *(b"0", b"-1"),
]
_WORDS = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b"(",
        b")",
        b"&a ",
        b"*a",
        b"<<: ",
        b"\n",
        b": ",
        b",",
        b"'",
        b'"',
        b"- ",
        b"#",
        b"|",
        b"%",
    ),
    *(b"null", b"true", b"NaN", b"1e999", b"9" * 400, b"\xef\xbb\xbf", b"\x00", b".", b"R", b"cos\nsystem\n"),
    *(b"!!python/object:os.system ", b"os.system", b"class_path: subprocess.run", b"lnsgd.", b"torch.load", b"../../x"),
]


@st.composite
def mutated(draw: st.DrawFn, kind: Kind) -> bytes:
    """Draw a valid file with some mutations, or any bytes."""
    content = bytearray(draw(st.sampled_from([*kind.valid, b""])))
    if not content:
        return draw(st.binary(max_size=200))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(0, 24))
        how = draw(st.sampled_from(["flip", "cut", "delete", "insert", "word", "extreme", "splice", "repeat"]))
        if how == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del content[at:]
        elif how == "delete":
            del content[at : at + length]
        elif how == "insert":
            content[at:at] = draw(st.binary(max_size=24))
        elif how == "word":
            content[at : at + draw(st.sampled_from([0, length]))] = draw(st.sampled_from(_WORDS))
        elif how == "extreme":
            extreme = draw(st.sampled_from(_EXTREMES))
            content[at : at + len(extreme)] = extreme
        elif how == "splice":
            start = draw(st.integers(0, max(0, len(content) - 1)))
            content[at:at] = content[start : start + length]
        else:
            content[at:at] = content[at : at + length] * draw(st.integers(2, 50))
    return bytes(content)


def fuzz(name: str, folder: Path, cases: int) -> Counter[str]:
    """Read a number of mutated files, and count those that were read and refused."""
    kind, counts = KINDS[name], Counter()
    path = folder / FILES.get(name, "x.ckpt")
    path.parent.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text("a: 1\n")
    for file, content in RUN_FILES.items() if name.startswith("run-") else ():
        (folder / file).write_bytes(content)
    for content in kind.valid[:1]:  # imports at first use must happen before a fuzzed file is read
        path.write_bytes(kind.packed(content))
        assert kind.good(kind.read(path))
    path.write_bytes(b"\x80damaged")
    with pytest.raises(ValueError):
        kind.read(path)

    @settings(
        max_examples=cases, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(content=mutated(kind))
    def check(content: bytes) -> None:
        path.write_bytes(kind.packed(content))
        try:
            with guarded():
                found = kind.read(path)
        except (ValueError, OSError) as error:
            counts["refused"] += 1
            assert len(str(error).splitlines()) == 1, str(error)
            assert path.name in str(error) or str(path.parent) in str(error), str(error)
            assert len(str(error)) < 1000
        else:
            counts["read"] += 1
            assert kind.good(found)

    before = set(folder.rglob("*"))
    check()
    assert set(folder.rglob("*")) == before
    return counts


def print_counts(name: str, counts: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nfuzzed {name}: {counts.total()} cases, {counts['read']} read, {counts['refused']} refused")


@pytest.mark.parametrize("name", KINDS)
def test_some_fuzzed_files_are_read_or_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    counts = fuzz(name, tmp_path, FAST)
    print_counts(name, counts, capsys)
    assert counts.total() >= FAST


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_fuzzed_files_are_read_or_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    counts = fuzz(name, tmp_path, SLOW)
    print_counts(name, counts, capsys)
    assert counts.total() >= SLOW
