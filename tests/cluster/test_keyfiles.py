import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import keyfiles
from staging.mover.errors import RefusedError, SourceError, SpaceError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o777], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.umask(request.param)
    yield
    os.umask(old)


@pytest.mark.usefixtures("_umask")
def test_a_file_is_private_before_it_has_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[tuple[int, int]] = []
    real = os.open

    def opened(path: Path, flags: int, file_mode: int = 0o777) -> int:
        fd = real(path, flags, file_mode)
        created.append((os.fstat(fd).st_mode & 0o177, flags & (os.O_EXCL | os.O_NOFOLLOW)))
        return fd

    monkeypatch.setattr(os, "open", opened)
    keyfiles.write(tmp_path / "key", b"secret")
    monkeypatch.undo()
    assert created == [(0, os.O_EXCL | os.O_NOFOLLOW)]
    assert mode(tmp_path / "key") == 0o600
    keyfiles.write(tmp_path / "pub", b"known", 0o644)
    assert mode(tmp_path / "pub") == 0o644
    assert keyfiles.read(tmp_path / "key") == b"secret"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    keyfiles.write(tmp_path / "key", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpaceError):
        keyfiles.write(tmp_path / "key", b"new")
    assert os.listdir(tmp_path) == ["key"]
    assert keyfiles.read(tmp_path / "key") == b"old"


def test_a_write_replaces_a_symlink_and_does_not_follow_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "key").symlink_to("victim")
    keyfiles.write(tmp_path / "key", b"secret")
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert keyfiles.read(tmp_path / "key") == b"secret"


@pytest.mark.parametrize(
    ("private", "bad", "good"), [(True, 0o640, 0o400), (True, 0o604, 0o600), (False, 0o664, 0o644)]
)
def test_a_file_that_others_can_reach_is_refused(tmp_path: Path, private: bool, bad: int, good: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(bad)
    with pytest.raises(RefusedError) as caught:
        keyfiles.read(path, private=private)
    assert f"chmod {0o600 if private else 0o644:o} {path}" in caught.value.remedy
    path.chmod(good)
    assert keyfiles.read(path, private=private) == b"secret"


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyfiles.write(tmp_path / "key", b"secret")
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "link").symlink_to("key")
    for name in ("absent", "link"):
        with pytest.raises(SourceError, match=name):
            keyfiles.read(tmp_path / name)
    with pytest.raises(RefusedError, match="not a regular file"):
        keyfiles.read(tmp_path / "fifo")
    # the next line makes the file another user's; root owns what it makes, and root's files are trusted
    os.chown(tmp_path / "key", 1, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(RefusedError, match="belongs to uid"):
        keyfiles.read(tmp_path / "key")


def test_a_new_directory_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    keyfiles.own_directory(tmp_path / "keys")
    os.umask(old)
    assert mode(tmp_path / "keys") == 0o700


def test_a_directory_that_others_can_reach_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "keys"
    directory.mkdir()
    for bad, private in ((0o750, True), (0o701, True), (0o775, False), (0o757, False)):
        directory.chmod(bad)
        with pytest.raises(RefusedError, match=f"chmod 700 {directory}"):
            keyfiles.own_directory(directory, private=private)
    directory.chmod(0o755)
    keyfiles.own_directory(directory, private=False)
    directory.chmod(0o700)
    keyfiles.own_directory(directory)
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(RefusedError, match="not a directory"):
        keyfiles.own_directory(tmp_path / "link")
    monkeypatch.setattr(os, "geteuid", lambda: directory.stat().st_uid + 1)
    with pytest.raises(RefusedError, match="belongs to uid"):
        keyfiles.own_directory(directory)
