"""The walk that makes a manifest, on real files."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from staging.mover.errors import SourceChanged, SourceError, UsageError
from staging.mover.manifest import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, Manifest, check
from staging.mover.scan import Found, scan, unchanged
from support.movers import ODD_NAMES, ROOT, make_odd_tree, open_count, unprivileged, write_sparse


def by_path(found: Found) -> dict[str, Entry]:
    return {entry.path: entry for entry in found.entries}


def test_odd_tree(tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "top")
    before = open_count()
    found = scan([str(tmp_path / "top")], contents=False)
    assert open_count() == before
    check(Manifest(tuple(found.entries), 1, "blake2b"))
    entries = by_path(found)
    assert {"top", *(f"top/{os.fsdecode(name)}" for name in ODD_NAMES)} <= set(entries)
    assert len(entries) == 1 + sum(1 for _ in (tmp_path / "top").rglob("*"))
    for entry, path, stamp in zip(found.entries, found.paths, found.stamps, strict=True):
        info = os.lstat(path)
        assert (entry.mode, entry.mtime_ns) == (info.st_mode & 0o7777, info.st_mtime_ns)
        assert stamp == (info.st_ino, info.st_size, info.st_mtime_ns)
    assert entries["top/sub/dangling"].target == os.fsdecode(b"/nowhere/\xff")
    assert entries["top/sub/relative"].kind == SYMLINK
    assert entries["top/sub/empty"][4:] == (0, None, "")
    assert entries["top/sub/no entries"].kind == DIRECTORY
    assert (found.skipped, found.directory) == ([], True)


def test_hard_link_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("x")
    os.link(tmp_path / "b", tmp_path / "a")
    os.link(tmp_path / "b", tmp_path.parent / f"{tmp_path.name}-outside")
    (tmp_path.parent / f"{tmp_path.name}-outside").unlink()
    entries = by_path(scan([str(tmp_path / "b"), str(tmp_path / "a")], contents=False))
    assert entries["b"].kind == FILE
    assert (entries["a"].kind, entries["a"].target) == (HARDLINK, "b")


def test_hard_link_to_a_file_outside_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (tmp_path / "d").mkdir()
    os.link(tmp_path / "outside", tmp_path / "d" / "f")
    assert by_path(scan([str(tmp_path / "d")], contents=False))["d/f"].kind == FILE


def test_a_named_link_is_followed_and_one_below_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "below").symlink_to("nothing")
    (tmp_path / "link").symlink_to("real")
    entries = by_path(scan([str(tmp_path / "link")], contents=False))
    assert [(e.path, e.kind) for e in entries.values()] == [("link", DIRECTORY), ("link/below", SYMLINK)]


def test_contents(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    found = scan([f"{tmp_path}/"], contents=True)
    assert [(e.path, e.kind) for e in found.entries] == [(".", DIRECTORY), ("f", FILE)]
    assert found.directory


def test_contents_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(SourceError, match="f is not a directory"):
        scan([str(tmp_path / "f")], contents=True)


def test_what_holds_no_data_is_left_out_and_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        found = scan([str(tmp_path)], contents=True)
    assert [e.path for e in found.entries] == ["."]
    assert sorted(found.skipped) == [str(tmp_path / "fifo"), str(tmp_path / "socket")]


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"cannot read {tmp_path}/gone: No such file"):
        scan([str(tmp_path / "gone")], contents=False)


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
def test_a_named_source_that_holds_no_data_is_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/null")
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    with pytest.raises(SourceError, match=f"{path} is a {kind}: it holds no data to copy"):
        scan([str(path)], contents=False)


def test_two_sources_of_one_name(tmp_path: Path) -> None:
    for where in ("a", "b"):
        (tmp_path / where).mkdir()
        (tmp_path / where / "same").touch()
    with pytest.raises(UsageError, match="both named same; copy them to different directories"):
        scan([str(tmp_path / "a" / "same"), str(tmp_path / "b" / "same")], contents=False)
    with pytest.raises(UsageError, match="both named same; name it once"):
        scan([str(tmp_path / "a" / "same"), f"{tmp_path}/b/../a/same"], contents=False)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_unreadable_is_named(kind: str) -> None:
    with unprivileged() as top:
        bad = top / "bad"
        bad.touch(mode=0o200) if kind == "file" else bad.mkdir(0o300)
        with pytest.raises(SourceError, match=f"cannot read {bad}: [Pp]ermission denied"):
            scan([str(top)], contents=True)


# holes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [{}, {0: b"x"}, {1 << 19: b"x"}, {0: b"x", (1 << 20) - 1: b"y"}])
def test_extents_hold_all_the_data(tmp_path: Path, pieces: dict[int, bytes]) -> None:
    path = tmp_path / "sparse"
    write_sparse(path, 1 << 20, pieces)
    (entry,) = scan([str(path)], contents=False).entries
    assert entry.size == 1 << 20
    assert entry.extents is not None
    assert sum(length for _, length in entry.extents) < 1 << 17
    assert len(entry.extents) == len(pieces)
    rebuilt = bytearray(1 << 20)
    content = path.read_bytes()
    for offset, length in entry.extents:
        rebuilt[offset : offset + length] = content[offset : offset + length]
    assert rebuilt == content


def test_a_file_without_holes_has_no_extents(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(1 << 16))
    assert scan([str(tmp_path / "f")], contents=False).entries[0].extents is None


# changes ------------------------------------------------------------------------------------------------


def stamp_of(path: Path) -> tuple[int, int, int]:
    return scan([str(path)], contents=False).stamps[0]


def test_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    stamp = stamp_of(path)
    path.chmod(0o600)
    unchanged(str(path), stamp)


def test_changed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    stamp = stamp_of(path)
    with path.open("a") as file:
        file.write("y")
    with pytest.raises(SourceChanged, match=f"{path} changed while it was read"):
        unchanged(str(path), stamp)


def test_changed_in_time_only(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    stamp = stamp_of(path)
    os.utime(path, ns=(0, stamp[2] + 1))
    with pytest.raises(SourceChanged):
        unchanged(str(path), stamp)


def test_replaced(tmp_path: Path) -> None:
    path, other = tmp_path / "f", tmp_path / "g"
    for each in (path, other):
        each.write_text("x")
        os.utime(each, ns=(0, 7))
    stamp = stamp_of(path)
    other.replace(path)
    with pytest.raises(SourceChanged):
        unchanged(str(path), stamp)


def test_vanished(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    stamp = stamp_of(path)
    path.unlink()
    with pytest.raises(SourceChanged, match=f"{path} vanished"):
        unchanged(str(path), stamp)


def test_root_is_needed_for_other_eyes() -> None:
    with unprivileged() as top:
        assert os.geteuid() != 0
        assert os.access(top, os.W_OK, effective_ids=True)
    assert (os.geteuid() == 0) == ROOT


def test_a_very_deep_tree(tmp_path: Path) -> None:
    home = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        found = scan([str(tmp_path)], contents=True)
        assert found.entries[-1].path == "/".join(["d"] * 1200)
    finally:
        os.chdir(tmp_path)
        subprocess.run(["rm", "-r", "d"], check=True)  # shutil's would be too deep
        os.chdir(home)
