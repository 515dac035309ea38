"""staging.pcp: what it refuses, and its classic lines."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from staging.mover.errors import UsageError
from staging.pcp import Lines, block_bytes, host_file, time_limit

KNOWN = {f"n{number}": f"127.0.0.{number + 1}" for number in range(1, 9)}


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("4K", 4096), ("256K", 1 << 18), ("32M", 32 << 20)])
def test_block_sizes(text: str, size: int) -> None:
    assert block_bytes(text) == size


@pytest.mark.parametrize("text", ["1", "4095", "33M", "1G"])
def test_a_block_out_of_range_is_told_the_range(text: str) -> None:
    with pytest.raises(UsageError, match=f"a block of {text} is out of range; give 4K to 32M"):
        block_bytes(text)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_no_time_limit(seconds: float) -> None:
    with pytest.raises(UsageError, match="is no time limit; give seconds"):
        time_limit(seconds)


def test_hosts_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# the rack\nn[1-2]  n4 # spare\n\nn7\n")
    assert host_file(str(tmp_path / "hosts")) == ["n[1-2]", "n4", "n7"]
    assert host_file(None) == ()


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b"# none\n", "no host"), (b"\xff", "no.* text")]
)
def test_a_host_file_of_no_use(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "hosts").write_bytes(content)
    with pytest.raises(UsageError, match=reason):
        host_file(str(tmp_path / "hosts"))


def failed(partial: bool, remedy: str = "") -> dict[str, object]:
    error = {"class": "StageError", "message": "it broke", "remedy": remedy}
    return {"type": "node-failed", "node": "n3", "error": error, "partial": partial}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"type": "node-done", "node": "n3"}, "Write succeeded on n3 (127.0.0.4)\n"),
        (failed(False), "Write failed on n3 (127.0.0.4): it broke\n"),
        (failed(False, "mend it"), "Write failed on n3 (127.0.0.4): it broke; mend it\n"),
        (
            failed(True),
            "Write failed on n3 (127.0.0.4): it broke (partial copy kept, run the same command to resume)\n",
        ),
        ({"type": "progress", "node": "n3", "bytes": 1}, ""),
        ({"type": "transfer-end"}, ""),
    ],
)
def test_the_classic_lines(event: dict[str, object], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Lines(KNOWN).tell(event)
    assert capsys.readouterr().out == line


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "8.0 MiB received, 0.50 s, digest abcdef"),
        ({"reused": 1024}, "8.0 MiB received, 1.0 KiB already there, 0.50 s, digest abcdef"),
        (
            {"fetched": 0, "reused": 1024, "skipped": 1024, "digest": ""},
            "0 B received, 1.0 KiB already there by size and time, 0.50 s",
        ),
    ],
)
def test_the_verbose_lines(changes: dict[str, object], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    event = {"type": "node-done", "node": "n3", "fetched": 8 << 20, "reused": 0, "seconds": 0.5, "digest": "abcdef"}
    Lines(KNOWN, verbose=True).tell({**event, **changes})
    assert capsys.readouterr().out == f"Write succeeded on n3 (127.0.0.4): {line}\n"
