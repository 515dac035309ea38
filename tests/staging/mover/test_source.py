"""The source's replica: the user's own files, and the errors that name the one that changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from staging.mover.digests import content_digest
from staging.mover.errors import SourceChanged, SourceError, StageError
from staging.mover.manifest import FILE, Manifest
from staging.mover.scan import scan
from staging.mover.source import Source
from support.movers import make_odd_tree, open_count


def source_of(path: Path, block: int = 1000) -> Source:
    found = scan([str(path)], contents=False)
    return Source(found, Manifest(tuple(found.entries), block, "blake2b"))


@pytest.fixture(autouse=True)
def no_descriptors_left() -> Iterator[None]:
    before = open_count()
    yield
    assert open_count() == before


def test_blocks_are_the_data_of_all_files_end_to_end(tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "top")
    source = source_of(tmp_path / "top")
    expected = bytearray()
    for entry in source.manifest.entries:
        if entry.kind == FILE:
            content = (tmp_path / entry.path).read_bytes()
            for offset, length in entry.data():
                expected += content[offset : offset + length]
    assert source.layout.blocks > 40
    assert source.map.complete
    assert b"".join(source.read(b) for b in range(source.layout.blocks)) == expected
    source.release()


def test_seal_is_the_content_digest(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(2500))
    source = source_of(tmp_path / "f")
    digests = [source.hash.digest(source.read(block)) for block in range(3)]
    assert source.known_digests() is None
    assert source.seal() == content_digest(source.hash, digests)
    assert source.known_digests() == digests
    source.release()


def test_seal_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    source = source_of(tmp_path / "f")
    assert source.seal() == content_digest(source.hash, [])


def test_digest_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    source = source_of(tmp_path / "f")
    digest, data = source.digest_of(0)
    assert data == b"abc"
    assert source.digest_of(0) == (digest, None)
    source.release()


def test_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with pytest.raises(StageError, match="never written"):
        source_of(tmp_path / "f").write(0, b"abc")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 1500)


def vanish(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("change", [grow, shrink, vanish, replace])
@pytest.mark.parametrize("opened", [False, True], ids=["unopened", "opened"])
def test_a_change_names_the_file(tmp_path: Path, change: object, opened: bool) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(2500))
    os.utime(path, ns=(0, 0))
    source = source_of(path)
    if opened:
        source.read(0)
    change(path)  # type: ignore[operator]
    for attempt in (lambda: source.read(1), lambda: source.open_entry(0), source.seal):
        with pytest.raises(SourceChanged, match=str(path)):
            attempt()
    source.release()


@pytest.mark.parametrize("change", [grow, lambda path: os.truncate(path, 1), vanish, replace])
@pytest.mark.parametrize("before", [0, 1], ids=["unread", "read before"])
def test_a_change_names_the_file_of_several_in_a_block(tmp_path: Path, change: object, before: int) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for name in ("a", "data", "z"):
        (top / name).write_bytes(bytes(100))
        os.utime(top / name, ns=(0, 0))
    source = source_of(top)
    assert source.layout.blocks == 1
    for _ in range(before):
        assert source.read(0) == bytes(300)
    change(top / "data")  # type: ignore[operator]
    with pytest.raises(SourceChanged, match=str(top / "data")):
        source.read(0)
    source.release()


def test_a_change_after_all_was_hashed_is_found_by_seal(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(2500))
    os.utime(path, ns=(0, 0))
    source = source_of(path)
    for block in range(3):
        source.digest_of(block)
    grow(path)
    with pytest.raises(SourceChanged):
        source.seal()
    source.release()


def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(2500))
    source = source_of(path)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(SourceError, match=f"cannot read {path}: Input/output error"):
        source.read(0)
    source.release()


def test_a_file_that_ends_too_soon_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(2500))
    source = source_of(path)
    monkeypatch.setattr(os, "preadv", lambda *_: 10)
    with pytest.raises(SourceChanged, match=f"{path} is shorter than it was"):
        source.read(0)
    source.release()


def test_seal_of_a_closed_source(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    source = source_of(tmp_path / "f")
    source.close()
    with pytest.raises(StageError, match="closed before"):
        source.seal()
