"""The replica at a destination: what arrives there, under which names, with which metadata.

Blocks go from a `Source` to a `Sink` by hand here; the sockets between them have tests of their own.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from staging.mover import sink as sink_module
from staging.mover.errors import RefusedError, SpaceError, StageError, VerifyError
from staging.mover.manifest import Manifest
from staging.mover.scan import scan
from staging.mover.sink import Sink
from staging.mover.source import Source
from staging.mover.target import Area, resolve
from support.movers import ROOT, listing, make_odd_tree, open_count, unprivileged, write_sparse

BLOCK = 5000


@pytest.fixture(autouse=True)
def no_descriptors_left() -> Iterator[None]:
    before = open_count()
    yield
    assert open_count() == before


class Copy:
    """One transfer from `paths` to `dest`, step by step."""

    def __init__(
        self,
        paths: list[Path],
        dest: str,
        contents: bool = False,
        preserve: bool = True,
        umask: int = 0o022,
        quick: bool = False,
        block: int = BLOCK,
    ) -> None:
        found = scan([str(path) for path in paths], contents)
        self.manifest = Manifest(tuple(found.entries), block, "blake2b", contents)
        self.source = Source(found, self.manifest)
        # "directory" is left out of it, so that a tree can be put under any name
        summary = {"tops": self.manifest.tops(), "contents": contents, "directory": False}
        self.area = Area(resolve("", dest, "auto", summary), self.manifest.identity().hex(), parents=False)
        self.sink = Sink(self.area, preserve, umask)
        self.sink.describe(self.manifest, self.manifest.encode(), 1, present=False)
        self.sink.prepare()
        self.comparable = self.sink.survey(quick)

    def seed(self) -> None:
        if self.comparable:
            self.sink.seed([self.source.digest_of(b)[0] for b in range(self.sink.layout.blocks)])

    def fetch(self, blocks: int | None = None) -> int:
        """Bring `blocks` of the missing blocks (None: all); how many came."""
        missing = [b for b in range(self.sink.layout.blocks) if b not in self.sink.map][:blocks]
        for block in missing:
            assert self.sink.put(block, self.source.read(block), self.source.digest_of(block)[0])
        return len(missing)

    def commit(self) -> None:
        assert self.sink.map.complete
        self.sink.commit(self.manifest)

    def close(self, keep: bool = False) -> bool:
        self.source.release()
        return self.sink.release(keep)

    def all(self) -> Copy:
        """The whole of it; how many blocks came is then in `came`."""
        try:
            self.seed()
            self.came = self.fetch()
            self.commit()
        finally:
            self.close()
        return self


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "source" / "top"
    make_odd_tree(top)
    return top


# a whole copy -------------------------------------------------------------------------------------------


def test_everything_of_an_odd_tree_arrives(tree: Path, tmp_path: Path) -> None:
    Copy([tree], f"{tmp_path}/copy").all()
    assert listing(tmp_path / "copy") == listing(tree)
    assert os.listdir(tmp_path) in (["source", "copy"], ["copy", "source"])


def test_everything_arrives_for_a_user_without_rights() -> None:
    with unprivileged() as top:
        make_odd_tree(top / "tree")
        Copy([top / "tree"], f"{top}/copy").all()
        assert listing(top / "copy") == listing(top / "tree")


def test_holes_stay_holes(tree: Path, tmp_path: Path) -> None:
    Copy([tree], f"{tmp_path}/copy").all()
    for name in ("sparse", "hole"):
        made = (tmp_path / "copy" / "sub" / name).stat()
        assert made.st_size == 1 << 20
        assert made.st_blocks <= (tree / "sub" / name).stat().st_blocks


def test_into_an_existing_directory(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "other").write_text("kept")
    Copy([tree], f"{tmp_path}/dest").all()
    assert listing(tmp_path / "dest" / "top") == listing(tree)
    assert sorted(os.listdir(tmp_path / "dest")) == ["other", "top"]


@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
def test_contents_bring_the_directorys_own_mode_and_time(tree: Path, tmp_path: Path, exists: bool) -> None:
    tree.chmod(0o751)
    dest = tmp_path / "dest"
    if exists:
        dest.mkdir()
    Copy([tree], f"{dest}/", contents=True).all()
    assert listing(dest) == listing(tree)


def test_several_sources_and_a_file_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    Copy([tmp_path / "a", tmp_path / "b"], f"{tmp_path}/dest").all()
    Copy([tmp_path / "a"], f"{tmp_path}/renamed").all()
    assert [(tmp_path / p).read_text() for p in ("dest/a", "dest/b", "renamed")] == ["a", "b", "a"]


def test_nothing_but_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch(mode=0o640)
    Copy([tmp_path / "empty"], f"{tmp_path}/copy").all()
    assert listing(tmp_path / "copy") == listing(tmp_path / "empty")


@pytest.mark.parametrize(("umask", "file", "directory"), [(0o022, 0o755, 0o755), (0o077, 0o700, 0o700)])
def test_without_preserve_the_umask_rules(tmp_path: Path, umask: int, file: int, directory: int) -> None:
    top = tmp_path / "top"
    top.mkdir()
    top.chmod(0o2777)
    (top / "f").write_text("x")
    (top / "f").chmod(0o4777)
    os.utime(top / "f", ns=(0, 5))
    Copy([top], f"{tmp_path}/copy", preserve=False, umask=umask).all()
    made = [(tmp_path / p).stat() for p in ("copy", "copy/f")]
    assert [stat.S_IMODE(info.st_mode) for info in made] == [directory, file]
    assert made[1].st_mtime_ns > 5


@pytest.mark.parametrize("contents", [False, True])
def test_without_preserve_an_existing_directory_keeps_its_mode(tmp_path: Path, contents: bool) -> None:
    top, dest = tmp_path / "top", tmp_path / "dest"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "f").write_text("x")
    for path in (dest, dest / "top", dest / "sub", dest / "top" / "sub"):
        path.mkdir()
        path.chmod(0o1777)
    Copy([top], str(dest), contents, preserve=False).all()
    sub = dest / "sub" if contents else dest / "top" / "sub"
    assert (sub / "f").read_text() == "x"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (dest, sub.parent, sub)] == [0o1777] * 3


def test_nothing_has_its_name_before_commit(tree: Path, tmp_path: Path) -> None:
    copy = Copy([tree], f"{tmp_path}/copy")
    copy.fetch()
    assert not (tmp_path / "copy").exists()
    assert stat.S_IMODE(os.stat(copy.area.path).st_mode) == 0o700
    copy.close()
    assert os.listdir(tmp_path) == ["source"]


# into what is there -------------------------------------------------------------------------------------


def test_merge_replaces_what_differs_and_keeps_the_rest(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "copy"
    Copy([tree], str(dest)).all()
    (dest / "mine").write_text("kept")
    (dest / "plain").write_bytes(b"changed here")
    (dest / "sub" / "relative").unlink()
    (dest / "sub" / "relative").write_text("no link any more")
    Copy([tree], f"{dest}/", contents=True).all()
    (dest / "mine").unlink()
    os.utime(dest, ns=(5, 123_456_789))
    assert listing(dest) == listing(tree)


def test_a_conflict_leaves_everything_untouched(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    (dest / "top" / "plain" / "here").mkdir(parents=True)
    (dest / "top" / "-rf").write_text("old")
    before = listing(dest)
    with pytest.raises(StageError, match="plain is a directory here but no directory at the source; remove it first"):
        Copy([tree], str(dest)).all()
    after = listing(dest)
    assert {name: row for name, row in after.items() if name != "."} == {n: r for n, r in before.items() if n != "."}


def test_a_linked_directory_in_the_destination_is_not_followed(tree: Path, tmp_path: Path) -> None:
    dest, outside = tmp_path / "dest", tmp_path / "outside"
    (dest / "top").mkdir(parents=True)
    outside.mkdir()
    (dest / "top" / "sub").symlink_to(outside)
    with pytest.raises(StageError, match="sub is no directory here"):
        Copy([tree], str(dest)).all()
    assert os.listdir(outside) == []
    assert os.listdir(dest) == ["top"]
    assert os.listdir(dest / "top") == ["sub"]


def test_files_behind_a_linked_directory_are_not_touched_even_if_they_are_equal(tmp_path: Path) -> None:
    top, dest, outside = tmp_path / "top", tmp_path / "dest", tmp_path / "outside"
    for path in (top / "sub", outside, dest / "top"):
        path.mkdir(parents=True)
    (top / "sub" / "f").write_text("same")
    (outside / "f").write_text("same")
    (outside / "f").chmod(0o600)
    (dest / "top" / "sub").symlink_to(outside)
    with pytest.raises(StageError, match="sub is no directory here"):
        Copy([top], str(dest)).all()
    assert stat.S_IMODE((outside / "f").stat().st_mode) == 0o600


# the second time ----------------------------------------------------------------------------------------


def test_an_identical_destination_fetches_nothing(tmp_path: Path) -> None:
    top, dest = tmp_path / "top", tmp_path / "dest"
    make_odd_tree(top)
    (top / "sub" / "sparse").unlink()
    (top / "sub" / "hole").unlink()
    Copy([top], str(dest)).all()
    inode = (dest / "-rf").stat().st_ino
    (dest / "-rf").chmod(0o600)
    os.utime(dest / "-rf", ns=(0, 0))
    again = Copy([top], f"{dest}/", contents=True).all()
    assert again.came == 0
    assert again.sink.reused == again.sink.layout.bytes > 0
    assert again.sink.skipped == 0
    assert listing(dest) == listing(top)
    assert (dest / "-rf").stat().st_ino == inode


def test_an_identical_destination_with_hard_links(tmp_path: Path) -> None:
    top, dest = tmp_path / "top", tmp_path / "dest"
    top.mkdir()
    (top / "a").write_text("x")
    (top / "empty").touch()
    os.link(top / "a", top / "b")
    os.link(top / "empty", top / "empty too")
    Copy([top], str(dest)).all()
    (dest / "b").unlink()
    (dest / "b").write_text("y")
    again = Copy([top], f"{dest}/", contents=True).all()
    assert again.came == 0
    assert listing(dest) == listing(top)


@pytest.mark.parametrize("pieces", [{0: b"data"}, {}], ids=["data and hole", "hole only"])
def test_what_lies_in_a_hole_is_no_part_of_an_identical_file(tmp_path: Path, pieces: dict[int, bytes]) -> None:
    top, dest = tmp_path / "top", tmp_path / "dest"
    top.mkdir()
    write_sparse(top / "f", 1 << 20, pieces)
    (top / "g").write_text("x")
    Copy([top], str(dest)).all()
    with (dest / "f").open("r+b") as file:
        file.seek(600_000)
        file.write(b"junk")
    again = Copy([top], f"{dest}/", contents=True).all()
    assert again.came == 0
    assert (dest / "f").read_bytes() == (top / "f").read_bytes()


def inodes(top: Path) -> dict[str, int]:
    return {str(path.relative_to(top)): path.lstat().st_ino for path in top.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("quick", [False, True])
def test_only_what_differs_is_touched(tree: Path, tmp_path: Path, quick: bool) -> None:
    dest = tmp_path / "dest"
    Copy([tree], str(dest)).all()
    before = inodes(dest)
    with (tree / "..x").open("r+b") as file:  # one of several in a block
        file.write(b"other")
    (tree / "sub" / "read only").unlink()
    (tree / "sub" / "read only").write_text("longer than before")
    (tree / "sub" / "relative").unlink()
    (tree / "sub" / "relative").symlink_to("../-rf")
    Copy([tree], f"{dest}/", contents=True, quick=quick).all()
    assert listing(dest) == listing(tree)
    changed = {name for name, inode in inodes(dest).items() if before[name] != inode}
    kept_by_bytes_alone = set() if quick else {"sub/sparse", "sub/hole"}  # blocks say nothing about holes
    assert changed == {"..x", "sub/read only", "sub/relative"} | kept_by_bytes_alone
    assert os.listdir(tmp_path) in (["source", "dest"], ["dest", "source"])


def test_quick_reads_nothing_of_what_has_the_sources_size_and_time(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    Copy([tree], str(dest)).all()
    with (dest / "-rf").open("r+b") as file:
        file.write(b"rot")
    os.utime(dest / "-rf", ns=((tree / "-rf").stat().st_atime_ns, (tree / "-rf").stat().st_mtime_ns))
    (dest / "sub" / "script").chmod(0o600)
    again = Copy([tree], f"{dest}/", contents=True, quick=True)
    assert not again.comparable
    again.all()
    assert again.came == 0
    assert again.sink.skipped == again.sink.reused == again.sink.layout.bytes
    assert (dest / "-rf").read_bytes().startswith(b"rot")
    assert (dest / "sub" / "script").stat().st_mode == (tree / "sub" / "script").stat().st_mode
    Copy([tree], f"{dest}/", contents=True).all()
    assert listing(dest) == listing(tree)


def test_a_rotten_small_file_is_mended_when_its_block_comes_by(tmp_path: Path) -> None:
    top, dest = tmp_path / "top", tmp_path / "dest"
    top.mkdir()
    (top / "a").write_text("right")
    (top / "b").write_text("old")
    Copy([top], str(dest)).all()
    stamp = (dest / "a").stat()
    (dest / "a").write_text("wrong")
    os.utime(dest / "a", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (top / "b").write_text("newer")
    Copy([top], f"{dest}/", contents=True, quick=True).all()
    assert listing(dest) == listing(top)


def test_a_rotten_large_file_is_named_when_a_part_of_it_comes_by(tmp_path: Path) -> None:
    top, dest = tmp_path / "top", tmp_path / "dest"
    top.mkdir()
    (top / "a").write_bytes(bytes(BLOCK + 10))
    (top / "b").write_text("old")
    Copy([top], str(dest)).all()
    before = listing(dest)
    stamp = (dest / "a").stat()
    (dest / "a").write_bytes(bytes(BLOCK) + b"x" * 10)
    os.utime(dest / "a", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (top / "b").write_text("newer")
    with pytest.raises(VerifyError, match="dest/a has the source's size and time but other bytes; give --checksum"):
        Copy([top], f"{dest}/", contents=True, quick=True).all()
    assert listing(dest)["b"] == before["b"]
    Copy([top], f"{dest}/", contents=True).all()
    assert listing(dest) == listing(top)


def test_a_file_stays_until_the_block_that_it_shares_shows_that_it_differs(tmp_path: Path) -> None:
    top, dest = tmp_path / "top", tmp_path / "dest"
    top.mkdir()
    (top / "a").write_bytes(bytes(2 * BLOCK + 10))
    (top / "b").write_bytes(bytes(2 * BLOCK + 10))
    (top / "c").write_text("old")
    Copy([top], str(dest)).all()
    before = inodes(dest)
    (top / "b").write_bytes(bytes(2 * BLOCK) + b"y" * 10)
    again = Copy([top], f"{dest}/", contents=True).all()
    assert again.came == 1
    assert listing(dest) == listing(top)
    assert {name for name, inode in inodes(dest).items() if before[name] != inode} == {"b"}


def test_quick_finishes_what_was_interrupted(tree: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    Copy([tree], str(dest)).all()
    before = inodes(dest)
    (tree / "big").write_bytes(os.urandom(10 * BLOCK))
    first = Copy([tree], f"{dest}/", contents=True, quick=True)
    came = first.fetch(6)
    assert first.close(keep=True)
    second = Copy([tree], f"{dest}/", contents=True, quick=True).all()
    assert second.came <= 12 - came
    assert listing(dest) == listing(tree)
    assert before.items() <= inodes(dest).items()


def test_one_changed_block_of_an_old_copy_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(4 * BLOCK))
    Copy([tmp_path / "f"], f"{tmp_path}/copy").all()
    with (tmp_path / "copy").open("r+b") as file:
        file.seek(2 * BLOCK)
        file.write(b"changed")
    again = Copy([tmp_path / "f"], f"{tmp_path}/copy").all()
    assert again.came == 1
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "f").read_bytes()


def test_resume_takes_only_what_is_missing(tree: Path, tmp_path: Path) -> None:
    first = Copy([tree], f"{tmp_path}/copy")
    first.fetch(7)
    assert first.close(keep=True)
    assert not (tmp_path / "copy").exists()
    second = Copy([tree], f"{tmp_path}/copy").all()
    assert second.came == second.sink.layout.blocks - 7
    assert second.sink.reused > 0
    assert listing(tmp_path / "copy") == listing(tree)


@pytest.mark.parametrize("block", [BLOCK // 3, 2 * BLOCK])
def test_resume_in_other_blocks(tmp_path: Path, block: int) -> None:
    (tmp_path / "f").write_bytes(os.urandom(10 * BLOCK))
    first = Copy([tmp_path / "f"], f"{tmp_path}/copy")
    first.fetch(7)
    assert first.close(keep=True)
    second = Copy([tmp_path / "f"], f"{tmp_path}/copy", block=block).all()
    assert 6 * BLOCK <= second.sink.reused <= 7 * BLOCK
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "f").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["copy", "f"]


def test_small_files_that_cannot_be_written_resume_too() -> None:
    with unprivileged() as top:
        (top / "tree").mkdir()
        for number in range(12):
            (top / "tree" / f"f{number:02}").write_bytes(bytes([number]) * 1500)
            (top / "tree" / f"f{number:02}").chmod(0o400)
        first = Copy([top / "tree"], f"{top}/copy")
        first.fetch(3)
        rotten = Path(first.area.tree, "tree", "f05")
        assert stat.S_IMODE(rotten.stat().st_mode) == 0o400
        rotten.chmod(0o600)
        rotten.write_bytes(b"rot" * 500)
        rotten.chmod(0o400)
        assert first.close(keep=True)
        second = Copy([top / "tree"], f"{top}/copy").all()
        assert 1 < second.came < second.sink.layout.blocks
        assert listing(top / "copy") == listing(top / "tree")


def test_a_spoilt_partial_replica_is_not_trusted(tree: Path, tmp_path: Path) -> None:
    first = Copy([tree], f"{tmp_path}/copy")
    first.fetch()
    with Path(first.area.tree, "top", "*?[a]").open("r+b") as file:
        file.write(b"rot")
    first.close(keep=True)
    second = Copy([tree], f"{tmp_path}/copy").all()
    assert 0 < second.came <= 2
    assert listing(tmp_path / "copy") == listing(tree)


# blocks -------------------------------------------------------------------------------------------------


def test_a_block_that_is_here_is_not_written_again(tree: Path, tmp_path: Path) -> None:
    copy = Copy([tree], f"{tmp_path}/copy")
    copy.fetch()
    before = copy.sink.read(0)
    assert not copy.sink.put(0, bytes(BLOCK), b"another digest")
    assert copy.sink.read(0) == before
    assert copy.sink.digests[0] == copy.source.digest_of(0)[0]
    copy.close()


def test_only_one_thread_writes_a_block(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second copy of a block that comes while the first is being written must not get between bytes and digest."""
    copy = Copy([tree], f"{tmp_path}/copy")
    writing, go_on = threading.Event(), threading.Event()
    write = Sink.write

    def slow(sink: Sink, block: int, data: bytes) -> None:
        writing.set()
        assert go_on.wait(10)
        write(sink, block, data)

    monkeypatch.setattr(Sink, "write", slow)
    right = copy.source.read(0)
    thread = threading.Thread(target=copy.sink.put, args=(0, right, b"right"))
    thread.start()
    assert writing.wait(10)
    assert not copy.sink.put(0, bytes(BLOCK), b"forged")
    go_on.set()
    thread.join()
    assert (copy.sink.read(0), copy.sink.digests[0]) == (right, b"right")
    copy.close()


def test_packed_blocks_are_served_from_memory_and_from_the_files_alike(tree: Path, tmp_path: Path) -> None:
    copy = Copy([tree], f"{tmp_path}/copy")
    copy.fetch()
    for block in range(copy.sink.layout.blocks):
        assert copy.sink.read(block) == copy.source.read(block)
    copy.close()


def test_small_files_are_served_from_the_disk_whatever_their_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "RECENT_BYTES", 0)
    with unprivileged() as top:
        (top / "tree").mkdir()
        for number, mode in enumerate([0o400, 0o644, 0o755, 0o444] * 4):
            (top / "tree" / f"f{number}").write_bytes(os.urandom(1000))
            (top / "tree" / f"f{number}").chmod(mode)
        for umask in (0o022, 0o477):  # under the second one nobody may read them in the end
            copy = Copy([top / "tree"], f"{top}/copy{umask}", preserve=False, umask=umask)
            copy.fetch()
            for block in range(copy.sink.layout.blocks):
                assert copy.sink.read(block) == copy.source.read(block)
            copy.commit()
            made = [(top / f"copy{umask}" / f"f{n}").stat().st_mode & 0o777 for n in range(4)]
            assert made == [mode & ~umask for mode in (0o400, 0o644, 0o755, 0o444)]
            copy.close()
            (top / f"copy{umask}").chmod(0o700)


def test_a_block_of_small_files_that_was_wrong_is_replaced(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for number in range(7):
        (top / str(number)).write_bytes(bytes([number]) * 1000)
        (top / str(number)).chmod(0o440)
    copy = Copy([top], f"{tmp_path}/copy")
    right = bytes(copy.source.read(0))
    copy.sink.put(0, b"forged" + right[6:], b"another digest")
    copy.sink.map.drop(0)
    copy.all()
    assert listing(tmp_path / "copy") == listing(top)


def test_forged_bytes_do_not_take_the_place_of_a_file_that_was_right(tmp_path: Path) -> None:
    top, dest = tmp_path / "top", tmp_path / "copy"
    top.mkdir()
    for name in ("a", "b"):
        (top / name).write_text(name * 100)
    Copy([top], f"{dest}/", contents=True).all()
    (dest / "b").write_text("c" * 100)
    copy = Copy([top], f"{dest}/", contents=True)
    copy.seed()
    copy.sink.put(0, b"forged" * 33 + b"gg", b"another digest")
    copy.sink.map.drop(0)
    assert copy.fetch() == 1
    copy.commit()
    copy.close()
    assert listing(dest) == listing(top)


def test_files_can_be_opened_before_while_and_after_they_get_their_names(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Copy([tree], f"{tmp_path}/copy")
    copy.fetch()
    sink = copy.sink
    seen: list[str] = []

    def look(when: str) -> None:
        # what was open stays open, so let go of it first: children come at any time
        sink._files.close()
        blocks = range(sink.layout.blocks)
        for block in blocks:
            parts = []
            for entry, offset, length in sink.layout.segments(block):
                with sink.open_entry(entry) as fd:
                    parts.append(os.pread(fd, length, offset))
            assert b"".join(parts) == copy.source.read(block), when
        seen.append(when)

    place = Area.place

    def placing(area: Area) -> set[str]:
        look("before")
        merged = place(area)
        look("between")
        return merged

    monkeypatch.setattr(Area, "place", placing)
    copy.commit()
    look("after")
    copy.close()
    assert seen == ["before", "between", "after"]
    assert listing(tmp_path / "copy") == listing(tree)


def test_a_reader_creates_nothing_once_names_are_given(tree: Path, tmp_path: Path) -> None:
    copy = Copy([tree], f"{tmp_path}/copy")
    copy.fetch()
    copy.commit()
    gone = next(i for i, e in enumerate(copy.manifest.entries) if e.path == "top/*?[a]")
    (tmp_path / "copy" / "*?[a]").unlink()
    copy.sink._files.close()
    with pytest.raises(FileNotFoundError), copy.sink.open_entry(gone):
        pass
    assert not (tmp_path / "copy" / "*?[a]").exists()
    copy.close()


def test_a_full_disk_names_the_file(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Copy([tree], f"{tmp_path}/copy")

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SpaceError, match=f"cannot write {tmp_path}/copy/.*: No space left"):
        copy.fetch(1)
    copy.close()


def test_a_name_that_the_destination_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    copy = Copy([tmp_path / "f"], f"{tmp_path}/copy")
    long = copy.manifest.entries[0]._replace(path="n" * 300)
    copy.sink.describe(copy.manifest._replace(entries=(long,)), b"", 1, present=False)
    with pytest.raises(StageError, match="File name too long"):
        copy.sink.put(0, b"x", b"digest")
    directory = copy.manifest.entries[0]._replace(kind="d", path="n" * 300)
    copy.sink.describe(copy.manifest._replace(entries=(directory,)), b"", 1, present=False)
    with pytest.raises(StageError, match=f"cannot write to {tmp_path}: File name too long"):
        copy.sink.prepare()
    copy.close()


def test_closed_directory_in_the_destination_is_refused_before_anything_moves() -> None:
    with unprivileged() as top:
        make_odd_tree(top / "tree")
        Copy([top / "tree"], f"{top}/copy").all()
        (top / "tree" / "closed").chmod(0o755)
        (top / "tree" / "closed" / "inside").write_text("changed")
        (top / "tree" / "closed").chmod(0o555)
        before = listing(top / "copy", times=False)
        with pytest.raises(RefusedError, match="closed/inside there"):
            Copy([top / "tree"], f"{top}/copy/", contents=True).all()
        assert listing(top / "copy", times=False) == before


@pytest.mark.skipif(not ROOT, reason="only root can read such files and directories")
def test_modes_that_forbid_their_owner_everything(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "f").write_text("x")
    for path in (top / "sub" / "f", top / "sub", top):
        path.chmod(0)
    Copy([top], f"{tmp_path}/copy").all()
    assert listing(tmp_path / "copy") == listing(top)
