"""What a destination means, the hidden area beside it, and putting files under their names."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from staging.mover.errors import RefusedError, SpaceError, StageError, TemporaryError, UsageError
from staging.mover.target import AREA_PREFIX, Area, Target, locate, resolve, sweep
from support.movers import NOBODY, ROOT, listing, open_count, unprivileged

ID = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_descriptors_left() -> Iterator[None]:
    before = open_count()
    yield
    assert open_count() == before


def areas(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith(AREA_PREFIX)]


# names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "dest", "path"),
    [
        ("", "/a/b/", "/a/b"),
        ("", "/a/../b", "/b"),
        ("/node", "/a/b", "/node/a/b"),
        ("/node", "a", "/node/a"),
        ("/node", "/../../etc", "/node/etc"),
        ("/node", "../etc", "/node/etc"),
        ("/node", "//etc", "/node/etc"),
        ("/node", "/", "/node/"),
    ],
)
def test_locate(root: str, dest: str, path: str) -> None:
    assert locate(root, dest) == path


ONE: dict[str, Any] = {"tops": ["top"], "contents": False, "directory": False}
TREE: dict[str, Any] = {"tops": ["top"], "contents": False, "directory": True}
TWO: dict[str, Any] = {"tops": ["a", "b"], "contents": False, "directory": False}
INSIDE: dict[str, Any] = {"tops": ["a", "b"], "contents": True, "directory": True}


@pytest.mark.parametrize(
    ("summary", "dest", "into", "expected"),
    [
        # a file: into an existing directory, else under the new name
        (ONE, "dir", "auto", Target("{}/dir")),
        (ONE, "dir/", "auto", Target("{}/dir")),
        (ONE, "link", "auto", Target("{}/link")),
        (ONE, "new", "auto", Target("{}", rename="new")),
        (ONE, "new/", "auto", Target("{}/new")),
        (ONE, "new/.", "auto", Target("{}/new")),
        (ONE, "new", "always", Target("{}/new")),
        (ONE, "file", "auto", Target("{}", rename="file")),
        (ONE, "broken", "auto", Target("{}", rename="broken")),
        # a directory: always into it, so that the second copy lands where the first did
        (TREE, "dir", "auto", Target("{}/dir")),
        (TREE, "new", "auto", Target("{}/new")),
        (TREE, "new/", "auto", Target("{}/new")),
        # several sources need a directory
        (TWO, "dir", "auto", Target("{}/dir")),
        (TWO, "new", "auto", Target("{}/new")),
        # the inside of a directory
        (INSIDE, "dir", "auto", Target("{}/dir")),
        (INSIDE, "new", "auto", Target("{}", whole="new")),
        (INSIDE, "new/", "auto", Target("{}", whole="new")),
    ],
)
def test_resolve(tmp_path: Path, summary: dict[str, Any], dest: str, into: str, expected: Target) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "broken").symlink_to("nothing")
    found = resolve("", f"{tmp_path}/{dest}", into, summary)
    assert found == expected._replace(parent=expected.parent.format(tmp_path))


@pytest.mark.parametrize(
    ("summary", "dest", "into"),
    [
        (INSIDE, "file", "auto"),
        (ONE, "file", "always"),
        (ONE, "file/", "auto"),
        (TREE, "file", "auto"),
        (TWO, "file", "auto"),
    ],
)
def test_resolve_of_a_file_where_a_directory_is_needed(
    tmp_path: Path, summary: dict[str, Any], dest: str, into: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, a directory is needed"):
        resolve(str(tmp_path), dest, into, summary)


@pytest.mark.parametrize(
    ("target", "path", "final"),
    [
        (Target("/p"), "top/x", "/p/top/x"),
        (Target("/p", whole="new"), "x", "/p/new/x"),
        (Target("/p", rename="new"), "top", "/p/new"),
        (Target("/p", rename="new"), "top/x/y", "/p/new/x/y"),
    ],
)
def test_final(target: Target, path: str, final: str) -> None:
    assert target.final(path) == final


# the area -----------------------------------------------------------------------------------------------


def test_area_is_private_and_goes(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        area = Area(Target(str(tmp_path), rename="x"), ID, parents=False)
    finally:
        os.umask(old)
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (area.path, area.tree)] == [0o700, 0o700]
    assert not area.release(keep=False)
    assert os.listdir(tmp_path) == []


def test_area_is_kept_only_when_there_is_something_in_it(tmp_path: Path) -> None:
    target = Target(str(tmp_path), rename="x")
    assert not Area(target, ID, parents=False).release(keep=True)
    assert os.listdir(tmp_path) == []
    area = Area(target, ID, parents=False)
    Path(area.tree, "part").write_text("data")
    assert area.release(keep=True)
    again = Area(target, ID, parents=False)
    assert Path(again.tree, "part").read_text() == "data"
    again.release(keep=False)
    assert os.listdir(tmp_path) == []


def test_another_identity_or_name_is_another_area(tmp_path: Path) -> None:
    parent = str(tmp_path)
    made = [
        Area(Target(parent, rename="x"), ID, parents=False),
        Area(Target(parent, rename="y"), ID, parents=False),
        Area(Target(parent, whole="x"), ID, parents=False),
        Area(Target(parent, rename="x"), ID[::-1], parents=False),
    ]
    assert len({area.path for area in made}) == len(made)
    for area in made:
        area.release(keep=False)


def test_a_second_transfer_is_told_to_wait_and_harms_nothing(tmp_path: Path) -> None:
    first = Area(Target(str(tmp_path)), ID, parents=False)
    Path(first.tree, "part").write_text("data")
    with pytest.raises(TemporaryError, match="under way; wait for it"):
        Area(Target(str(tmp_path)), ID, parents=False)
    assert Path(first.tree, "part").read_text() == "data"
    first.release(keep=True)
    Area(Target(str(tmp_path)), ID, parents=False).release(keep=False)


def test_releasing_twice_leaves_the_next_transfer_alone(tmp_path: Path) -> None:
    first = Area(Target(str(tmp_path)), ID, parents=False)
    first.release(keep=False)
    second = Area(Target(str(tmp_path)), ID, parents=False)
    Path(second.tree, "part").write_text("data")
    assert not first.release(keep=False)
    assert Path(second.tree, "part").exists()
    second.release(keep=False)


@pytest.mark.parametrize(
    ("target", "parents", "fine"),
    [
        (Target("{}/a"), False, True),
        (Target("{}/a/b"), False, False),
        (Target("{}/a/b"), True, True),
        (Target("{}/a", rename="x"), False, False),
        (Target("{}/a", whole="x"), False, False),
        (Target("{}/a", rename="x"), True, True),
    ],
)
def test_missing_parents(tmp_path: Path, target: Target, parents: bool, fine: bool) -> None:
    target = target._replace(parent=target.parent.format(tmp_path))
    if fine:
        area = Area(target, ID, parents)
        assert os.path.isdir(area.tree)
        area.release(keep=False)
    else:
        remedy = "make it first$" if target.rename else "make it first, or end the destination with a slash"
        with pytest.raises(UsageError, match=f"does not exist; {remedy}"):
            Area(target, ID, parents)
    assert os.listdir(tmp_path) == []  # what was made for nothing is gone


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StageError, match="file is no directory; remove it"):
        Area(Target(f"{tmp_path}/file/sub"), ID, parents=True)
    assert os.listdir(tmp_path) == ["file"]


def test_parent_that_may_not_be_written_to() -> None:
    with unprivileged() as top:
        top.chmod(0o555)
        with pytest.raises(RefusedError, match=f"cannot write to {top}"):
            Area(Target(str(top)), ID, parents=False)
        assert os.listdir(top) == []


def test_a_planted_area_is_refused(tmp_path: Path) -> None:
    area = Area(Target(str(tmp_path)), ID, parents=False)
    area.release(keep=False)
    victim = tmp_path / "victim"
    victim.mkdir()
    os.symlink(victim, area.path)
    with pytest.raises(RefusedError, match="belongs to somebody else"):
        Area(Target(str(tmp_path)), ID, parents=False)
    assert os.listdir(victim) == []


@pytest.mark.skipif(not ROOT, reason="only root can give a directory away")
def test_an_area_of_another_user_is_refused(tmp_path: Path) -> None:
    area = Area(Target(str(tmp_path)), ID, parents=False)
    area.release(keep=False)
    os.mkdir(area.path)
    os.chown(area.path, NOBODY, NOBODY)
    with pytest.raises(RefusedError, match="belongs to somebody else"):
        Area(Target(str(tmp_path)), ID, parents=False)
    os.rmdir(area.path)


# abandoned ones ---------------------------------------------------------------------------------------


def abandoned(parent: Path, name: str, days: float) -> Path:
    path = parent / name
    (path / "tree").mkdir(parents=True)
    (path / "tree" / "part").write_text("data")
    os.utime(path, (NOW - days * 86400, NOW - days * 86400))
    return path


NOW = 2e9


def test_an_area_that_nobody_came_back_to_for_a_week_goes(tmp_path: Path) -> None:
    kept = [
        abandoned(tmp_path, AREA_PREFIX + "a" * 16, days=6.9),
        abandoned(tmp_path, AREA_PREFIX + "of another sort", days=99),
        abandoned(tmp_path, "a" * 16, days=99),
    ]
    (tmp_path / (AREA_PREFIX + "b" * 16)).symlink_to(kept[2])
    gone = abandoned(tmp_path, AREA_PREFIX + "c" * 16, days=7.1)
    held = abandoned(tmp_path, AREA_PREFIX + "d" * 16, days=99)
    fd = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        sweep(str(tmp_path), NOW)
    finally:
        os.close(fd)
    assert not gone.exists()
    assert all((path / "tree" / "part").exists() for path in (*kept, held))
    sweep(str(tmp_path / "nowhere"), NOW)


@pytest.mark.skipif(not ROOT, reason="only root can give a directory away")
def test_an_abandoned_area_of_another_user_stays(tmp_path: Path) -> None:
    path = abandoned(tmp_path, AREA_PREFIX + "a" * 16, days=99)
    os.chown(path, NOBODY, NOBODY)
    sweep(str(tmp_path), NOW)
    assert (path / "tree" / "part").exists()


def test_an_area_that_is_used_again_is_young(tmp_path: Path) -> None:
    area = Area(Target(str(tmp_path)), ID, parents=False)
    Path(area.tree, "part").write_text("data")
    os.utime(area.path, (0, 0))
    area.release(keep=True)
    Area(Target(str(tmp_path)), ID, parents=False).release(keep=True)
    sweep(str(tmp_path), time.time())
    assert Path(area.tree, "part").exists()


# space --------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if not ROOT:
        pytest.skip("only root can mount a file system")
    where = tmp_path / "small"
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", where], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def test_room_is_checked_before(small: Path) -> None:
    area = Area(Target(str(small)), ID, parents=False)
    area.need(900_000)
    with pytest.raises(SpaceError, match=r"needs 2,000,000 bytes, its file system has [\d,]+ free; free space there"):
        area.need(2_000_000)
    area.release(keep=False)


@pytest.mark.parametrize(
    ("target", "tops", "vacant"),
    [
        (Target("{}", whole="new"), ["a", "b"], True),
        (Target("{}", whole="old"), ["a", "b"], False),
        (Target("{}", rename="new"), ["a"], True),
        (Target("{}", rename="link"), ["a"], False),
        (Target("{}"), ["new"], True),
        (Target("{}"), ["old"], False),
        (Target("{}"), ["new", "newer"], False),
        (Target("{}/old"), ["a", "b"], True),
    ],
)
def test_vacant(tmp_path: Path, target: Target, tops: list[str], vacant: bool) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "link").symlink_to("nothing")
    area = Area(target._replace(parent=target.parent.format(tmp_path)), ID, parents=False)
    assert area.vacant(tops) == vacant
    area.release(keep=False)


def test_what_a_partial_replica_holds_counts_as_room(small: Path) -> None:
    area = Area(Target(str(small)), ID, parents=False)
    Path(area.tree, "part").write_bytes(bytes(800_000))
    area.need(900_000)
    area.release(keep=False)


# placing ------------------------------------------------------------------------------------------------


def staged(parent: Path, tree: dict[str, str | None], **target: str) -> Area:
    """An area whose tree holds these files (None: a directory)."""
    area = Area(Target(str(parent), **target), ID, parents=False)
    fill(Path(area.tree), tree)
    return area


def fill(top: Path, tree: dict[str, str | None]) -> None:
    for path, text in tree.items():
        if text is None:
            (top / path).mkdir()
        else:
            (top / path).write_text(text)


def test_place_where_nothing_is(tmp_path: Path) -> None:
    area = staged(tmp_path, {"d": None, "d/f": "new", "g": "new"})
    assert area.place() == set()
    area.release(keep=False)
    assert sorted(os.listdir(tmp_path)) == ["d", "g"]
    assert (tmp_path / "d" / "f").read_text() == "new"


def test_place_merges(tmp_path: Path) -> None:
    fill(tmp_path, {"d": None, "d/f": "old", "d/kept": "old", "d/e": None})
    (tmp_path / "d" / "link").symlink_to("kept")
    area = staged(tmp_path, {"d": None, "d/f": "new", "d/e": None, "d/e/g": "new", "d/link": "new"})
    assert area.place() == {f"{tmp_path}/d", f"{tmp_path}/d/e"}
    area.release(keep=False)
    read = {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    assert read == {"d/f": "new", "d/kept": "old", "d/e/g": "new", "d/link": "new"}
    assert not (tmp_path / "d" / "link").is_symlink()


@pytest.mark.parametrize("target", [{"rename": "named"}, {"whole": "named"}])
def test_place_under_another_name(tmp_path: Path, target: dict[str, str]) -> None:
    area = staged(tmp_path, {"d": None, "d/f": "new"}, **target)
    area.place()
    area.release(keep=False)
    assert (tmp_path / "named" / ("d" if "whole" in target else "") / "f").read_text() == "new"
    assert os.listdir(tmp_path) == ["named"]


@pytest.mark.parametrize(
    ("here", "there", "reason"),
    [
        ({"a": "new", "d": "new"}, {"d": None, "d/f": "old"}, "d is a directory here but no directory at the source"),
        ({"a": "new", "d": None}, {"d": "old"}, "d is no directory here but a directory at the source"),
        (
            {"a": "new", "d": None, "d/a": "new", "d/x": None},
            {"d": None, "d/x": "old"},
            "d/x is no directory here",
        ),
    ],
)
def test_a_conflict_leaves_everything_untouched(
    tmp_path: Path, here: dict[str, str | None], there: dict[str, str | None], reason: str
) -> None:
    fill(tmp_path, there)
    (tmp_path / "a").write_text("old")
    before = listing(tmp_path, times=False)
    area = staged(tmp_path, here)
    with pytest.raises(StageError, match=reason):
        area.place()
    area.release(keep=False)
    assert listing(tmp_path, times=False) == before


@pytest.mark.parametrize("path", ["d", "d/e"])
def test_a_linked_directory_is_not_followed(tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    parent = tmp_path / "parent"
    parent.mkdir()
    if "/" in path:
        (parent / "d").mkdir()
    (parent / path).symlink_to(outside)
    area = staged(parent, {"d": None, "d/e": None, "d/e/f": "new"})
    with pytest.raises(StageError, match=f"{path} is no directory here"):
        area.place()
    area.release(keep=False)
    assert os.listdir(outside) == []


def test_a_directory_that_may_not_be_written_to_is_found_before_anything_moves() -> None:
    with unprivileged() as top:
        fill(top, {"a": "old", "d": None, "d/f": "old"})
        (top / "d").chmod(0o555)
        area = staged(top, {"a": "new", "d": None, "d/f": "new"})
        with pytest.raises(RefusedError, match="d/f there"):
            area.place()
        area.release(keep=False)
        assert ((top / "a").read_text(), (top / "d" / "f").read_text()) == ("old", "old")
        assert areas(top) == []


def test_a_closed_directory_in_which_nothing_changes_is_no_obstacle() -> None:
    with unprivileged() as top:
        fill(top, {"d": None, "d/e": None})
        (top / "d").chmod(0o555)
        area = staged(top, {"d": None, "d/e": None, "d/e/f": "new"})
        area.place()
        area.release(keep=False)
        assert (top / "d" / "e" / "f").read_text() == "new"
