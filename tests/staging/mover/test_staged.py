"""Whole small files in one go: their bytes, modes and times, whatever the umask and whatever was there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from staging.mover.staged import Maker
from support.movers import open_count, unprivileged


@pytest.fixture(autouse=True)
def no_descriptors_left() -> Iterator[None]:
    before = open_count()
    yield
    assert open_count() == before


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_are_exact_under_any_umask(tmp_path: Path, umask: int) -> None:
    modes = [0o644, 0o666, 0o400, 0o4755, 0o2750, 0o1777, 0o000, 0o644]
    old = os.umask(umask)
    try:
        with Maker(str(tmp_path)) as maker:
            for number, mode in enumerate(modes):
                maker.make(str(number), b"x", mode, None)
    finally:
        os.umask(old)
    assert [mode_of(tmp_path / str(number)) for number in range(len(modes))] == modes


def test_a_user_without_rights_gets_the_set_bits_too() -> None:
    with unprivileged() as top:
        with Maker(str(top)) as maker:
            for name in ("a", "b"):
                maker.make(name, b"written, which takes such bits away", 0o6755, None)
        assert [mode_of(top / name) for name in ("a", "b")] == [0o6755, 0o6755]


def test_an_inherited_acl_does_not_change_a_mode(tmp_path: Path) -> None:
    # a default ACL u::rwx g::--- o::---, which rules in place of the umask
    entries = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + b"\xff" * 4
        for tag, rights in ((1, 7), (4, 0), (0x20, 0))
    )
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", entries)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error.strerror}")
    with Maker(str(tmp_path)) as maker:
        for name in ("a", "b"):
            maker.make(name, b"x", 0o644, None)
    assert [mode_of(tmp_path / name) for name in ("a", "b")] == [0o644, 0o644]


def test_bytes_and_times_in_several_directories(tmp_path: Path) -> None:
    made = {}
    with Maker(str(tmp_path)) as maker:
        for number, parent in enumerate(["", "a", "a/b", "a", "", "c"]):
            (tmp_path / parent).mkdir(exist_ok=True)
            path = os.path.join(parent, f"f{number}")
            made[path] = (bytes([number]) * number * 1000, 10**18 + number)
            maker.make(path, made[path][0], 0o644, made[path][1])
    assert {path: ((tmp_path / path).read_bytes(), (tmp_path / path).stat().st_mtime_ns) for path in made} == made


def test_what_is_there_is_replaced_and_links_are_not_followed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (tmp_path / "outside").write_text("kept")
    (top / "link").symlink_to("../outside")
    (top / "file").write_text("longer than the new one")
    (top / "file").chmod(0o400)
    with Maker(str(top)) as maker:
        for name in ("link", "file"):
            maker.make(name, b"new", 0o644, None)
        (top / "away").symlink_to("..")
        with pytest.raises(NotADirectoryError):
            maker.make("away/f", b"new", 0o644, None)
    assert [(top / name).read_text() for name in ("link", "file")] == ["new", "new"]
    assert not (top / "link").is_symlink()
    assert (tmp_path / "outside").read_text() == "kept"
    assert not (tmp_path / "f").exists()


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data)[:7], offset))
    with Maker(str(tmp_path)) as maker:
        maker.make("f", bytes(range(100)), 0o644, None)
    assert (tmp_path / "f").read_bytes() == bytes(range(100))


def test_an_error_goes_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with Maker(str(tmp_path)) as maker:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            maker.make("f", b"x", 0o644, None)
        monkeypatch.undo()
        maker.make("f", b"x", 0o644, None)
    assert (tmp_path / "f").read_bytes() == b"x"
