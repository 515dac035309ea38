"""cluster.layout: where things are, whom the directory lets in, and how a head is announced."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.layout import ENV_CLUSTER, HeadInfo, Layout, find, personal
from staging.mover.errors import RefusedError, Unreachable, UsageError

HEAD = HeadInfo(pid=41, scheduler="tls://127.0.0.1:4000", host="127.0.0.1", doors=4001, uid=1000, kind="local")


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as top:
        yield Path(top) / "c"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made_for_its_owner_alone(base: Path) -> None:
    umask = os.umask(0)
    try:
        Layout(base).make()
    finally:
        os.umask(umask)
    assert mode(base) == mode(base / "log") == 0o700
    Layout(base).make()  # as it is now is as it should be


def test_the_users_own_directory_is_made_for_its_owner_alone() -> None:
    umask = os.umask(0o022)
    try:
        find().make()
        assert mode(personal()) == mode(personal() / "default") == 0o700
    finally:
        os.umask(umask)
        (personal() / "default" / ".longshore").unlink()
        for path in (personal() / "default" / "log", personal() / "default", personal()):
            path.rmdir()


@pytest.mark.parametrize("open_to", [0o770, 0o701, 0o704])
def test_a_directory_that_is_open_to_others_is_refused(base: Path, open_to: int) -> None:
    base.mkdir()
    base.chmod(open_to)
    with pytest.raises(RefusedError, match=f"{base} must be a directory of yours alone; chmod 700 {base}"):
        Layout(base).make()


def test_a_link_to_a_directory_is_refused(base: Path) -> None:
    (base.parent / "real").mkdir(mode=0o700)
    base.symlink_to("real")
    with pytest.raises(RefusedError):
        Layout(base).make()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_somebody_elses_directory_is_refused(base: Path) -> None:
    base.mkdir(mode=0o700)
    os.chown(base, 65534, 65534)
    with pytest.raises(RefusedError):
        Layout(base).make()


def test_a_directory_too_long_for_its_sockets_is_refused_before_it_is_made(base: Path) -> None:
    long = base / ("x" * 70)
    with pytest.raises(UsageError, match="too long"):
        Layout(long).make()
    assert not base.exists()


def test_the_longest_directory_still_holds_the_sockets(base: Path) -> None:
    longest = Path("/" + "x" * 69)
    assert len(os.fsencode(Layout(longest).door("n250"))) < 108


def test_a_head_is_announced_to_its_owner_alone_and_read_back(base: Path) -> None:
    layout = Layout(base)
    layout.make()
    layout.write_head(HEAD)
    layout.write_head(HEAD)
    assert layout.read_head() == HEAD
    assert mode(layout.head_file) == 0o600
    assert sorted(path.name for path in base.iterdir()) == [".longshore", "head.json", "log"]


def test_without_a_head_the_remedy_is_to_start_one(base: Path) -> None:
    with pytest.raises(Unreachable, match=r"no cluster is running in .*; start one with `stage up"):
        Layout(base).read_head()


def test_an_announcement_of_another_version_is_no_head(base: Path) -> None:
    layout = Layout(base)
    layout.make()
    layout.head_file.write_text('{"pid": 1, "colour": "red"}')
    with pytest.raises(Unreachable, match="another version"):
        layout.read_head()


def test_the_cluster_is_the_named_one_or_the_environments_or_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_CLUSTER, raising=False)
    assert find().base == Path(tempfile.gettempdir()) / f"longshore-{os.geteuid()}" / "default"
    monkeypatch.setenv(ENV_CLUSTER, "relative")
    assert find().base == Path.cwd() / "relative"
    assert find("/named").base == Path("/named")


def test_a_node_has_its_own_root_and_door() -> None:
    layout = Layout(Path("/c"))
    assert layout.root("n2") == Path("/c/nodes/n2/root")
    assert layout.door("n2") == Path("/c/nodes/n2/door.sock")


@pytest.mark.parametrize("name", ["nodes", "keys", "log", "jobs", "notes.txt"])
def test_a_directory_that_holds_anything_and_is_not_a_clusters_is_refused(base: Path, name: str) -> None:
    (base / name).mkdir(parents=True)
    base.chmod(0o700)
    with pytest.raises(UsageError, match=f"{base} holds other things, such as {name}; name a new or empty directory"):
        Layout(base).make()
    assert [path.name for path in base.iterdir()] == [name]


def test_a_clusters_directory_may_come_to_hold_other_things(base: Path) -> None:
    Layout(base).make()
    (base / "notes.txt").touch()
    Layout(base).make()


def test_what_is_to_be_kept_is_known_as_long_as_it_is_there(base: Path) -> None:
    layout = Layout(base)
    layout.make()
    assert layout.kept() == []
    paths = [f"{base}/one", f"{base}/two\n\udcff", f"{base}/three"]
    layout.keep(paths[:1])
    layout.keep(paths[1:])
    assert layout.kept() == []
    os.mkdir(os.fsencode(paths[1]))
    assert layout.kept() == paths[1:2]


def test_a_file_is_no_clusters_directory(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base.touch()
    with pytest.raises(UsageError, match=f"--cluster names {base}, which is no directory; name the cluster's"):
        find(str(base))
    monkeypatch.setenv(ENV_CLUSTER, str(base))
    with pytest.raises(UsageError, match=f"{ENV_CLUSTER} names {base}"):
        find()


def test_a_current_directory_that_was_deleted_is_said(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base.mkdir()
    monkeypatch.chdir(base)
    base.rmdir()
    try:
        with pytest.raises(UsageError, match="the current directory does not exist any more; cd to one that does"):
            find("relative")
        assert find("/named").base == Path("/named")
    finally:
        monkeypatch.undo()
