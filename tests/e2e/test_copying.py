"""pcp on a real cluster: what arrives is what was sent, by every shape of tree and to every kind of destination."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.layout import Layout
from support import trees
from support.cli import Cli

ALL = "n[1-4]"


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("source") / "odd tree"
    trees.make_odd_tree(top)
    return top


@pytest.mark.parametrize("shape", ["1", "2", "double"])
def test_a_tree_arrives_on_every_node_as_it_is(here: Cli, spot: Any, tree: Path, shape: str) -> None:
    done = here.pcp("-r", "-p", "-f", shape, f"{tree}/", f"{spot.dest}/copy", ALL)
    assert (done.code, len(done.out.splitlines())) == (0, 4), done.err
    for node in spot.nodes:
        assert f"Write succeeded on {node} (127.0.0.{int(node[1]) + 1})\n" in done.out
        trees.assert_same(spot.on(node, "copy"), tree)
        assert spot.names(node) == ["copy"]
        for name in ("sparse", "hole", "hole at the end"):
            assert trees.blocks(spot.on(node, "copy", name)) <= trees.blocks(tree / name) + 64 * 1024


def test_without_p_modes_follow_the_umask_and_times_are_now(here: Cli, spot: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "f").chmod(0o4777)
    os.utime(tmp_path / "f", (1, 1))
    saved = os.umask(0o027)
    try:
        assert here.pcp("f", f"{spot.dest}/f", "n1").code == 0
    finally:
        os.umask(saved)
    info = spot.on("n1", "f").stat()
    assert stat.S_IMODE(info.st_mode) == 0o750
    assert info.st_mtime > 1_000_000


def test_what_is_there_already_is_not_sent_again(here: Cli, spot: Any, big: Path) -> None:
    words = ("--json", "-p", big, f"{spot.dest}/big", "n1", "n2")
    first, again = here.pcp(*words), here.pcp(*words)
    size = big.stat().st_size
    for done, fetched in ((first, size), (again, 0)):
        assert done.code == 0
        events = done.per_node("node-done")
        assert {node: event["fetched"] for node, event in events.items()} == {"n1": fetched, "n2": fetched}
        assert {event["reused"] for event in events.values()} == {size - fetched}
        assert len({event["digest"] for event in events.values()}) == 1
    assert all(trees.same_bytes(spot.on(node, "big"), big) for node in ("n1", "n2"))


def test_a_second_copy_leaves_alone_what_has_not_changed(here: Cli, spot: Any, tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "d", symlinks=True)
    words = ("-r", "d/", f"{spot.dest}/d", "n1", "n2")
    assert here.pcp("-p", "-q", *words).code == 0

    def inodes() -> dict[str, int]:
        top = spot.on("n1", "d")
        return {str(path.relative_to(top)): path.lstat().st_ino for path in top.rglob("*") if not path.is_dir()}

    before = inodes()
    quick = here.pcp("-p", "-v", *words)
    assert (quick.code, inodes()) == (0, before)
    assert re.search(r"d/: already there on all 2 nodes, nothing sent", quick.err)
    assert re.search(
        r"^Write succeeded on n1 .*: 0 B received, .* already there by size and time, \S+ s$", quick.out, re.M
    )
    for options in ((), ("-p", "--checksum")):
        done = here.pcp("--json", *options, *words)
        assert {(event["fetched"], event["skipped"]) for event in done.per_node("node-done").values()} == {(0, 0)}
    trees.assert_same(spot.on("n1", "d"), tmp_path / "d")
    (tmp_path / "d" / "new").write_text("new")
    done = here.pcp("-p", "--json", *words)
    assert done.code == 0
    assert all(event["skipped"] and event["digest"] for event in done.per_node("node-done").values())
    assert before.items() <= {**inodes(), **{name: before[name] for name in ("sparse", "hole")}}.items()
    trees.assert_same(spot.on("n2", "d"), tmp_path / "d")


def test_a_copy_that_is_there_needs_no_room_for_another(
    here: Cli, spot: Any, tmp_path: Path, mounted: Callable[..., None]
) -> None:
    spot.on("n1", "d").mkdir()
    mounted(spot.on("n1", "d"), "-t", "tmpfs", "-o", "size=8m", "none")
    (tmp_path / "f").write_bytes(os.urandom(6 << 20))
    for options in ((), (), ("-p",), ("-p",)):
        assert here.pcp("-q", *options, "f", f"{spot.dest}/d/", "n1").code == 0
    (tmp_path / "f").write_bytes(os.urandom(6 << 20))
    done = here.pcp("f", f"{spot.dest}/d/", "n1")
    assert (done.code, os.listdir(spot.on("n1", "d"))) == (8, ["f"])


def test_a_changed_file_replaces_the_old_one_and_only_what_differs_is_sent(
    here: Cli, spot: Any, tmp_path: Path
) -> None:
    data = bytearray(os.urandom(8 << 20))
    (tmp_path / "f").write_bytes(data)
    assert here.pcp("-b", "256K", "f", f"{spot.dest}/f", "n1").code == 0
    inode = spot.on("n1", "f").stat().st_ino
    data[5 << 20] ^= 1
    (tmp_path / "f").write_bytes(data)
    done = here.pcp("-b", "256K", "--json", "f", f"{spot.dest}/f", "n1")
    assert done.per_node("node-done")["n1"]["fetched"] == 256 << 10
    assert spot.on("n1", "f").read_bytes() == data
    assert spot.on("n1", "f").stat().st_ino != inode


@pytest.mark.parametrize(
    ("sources", "dest", "expected"),
    [
        (["f"], "new", {"new": b"f"}),
        (["f"], "there", {"there/f": b"f"}),
        (["f"], "there/", {"there/f": b"f"}),
        (["f"], "made/with/parents/", {"made/with/parents/f": b"f"}),
        (["f", "g"], "made", {"made/f": b"f", "made/g": b"g"}),
        (["f"], "full/f", {"full/f": b"f"}),
        (["d"], "new", {"new/d/inner": b"i"}),
        (["d"], "new/er/", {"new/er/d/inner": b"i"}),
        (["d"], "there", {"there/d/inner": b"i"}),
        (["d/"], "new", {"new/inner": b"i"}),
        (["d/"], "there", {"there/inner": b"i"}),
        (["d/"], "new/er/", {"new/er/inner": b"i"}),
        (["d/."], "there/", {"there/inner": b"i"}),
        (["d/e/.."], "there", {"there/inner": b"i"}),
        (["d", "f"], "there", {"there/d/inner": b"i", "there/f": b"f"}),
        (["d/inner"], "there", {"there/inner": b"i"}),
        (["link"], "new", {"new": b"f"}),
    ],
)
def test_destinations_mean_what_they_mean_to_rsync_also_the_second_time(
    here: Cli, spot: Any, tmp_path: Path, sources: list[str], dest: str, expected: dict[str, bytes]
) -> None:
    for name in "fg":
        (tmp_path / name).write_text(name)
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "inner").write_text("i")
    (tmp_path / "link").symlink_to("f")
    spot.on("n1", "there").mkdir()
    spot.on("n1", "full").mkdir()
    spot.on("n1", "full", "f").write_text("old")
    top = spot.on("n1")
    for size in (sum(map(len, expected.values())), 0):
        done = here.pcp("--json", "-r", *sources, f"{spot.dest}/{dest}", "n1")
        assert done.code == 0, done.out + done.err
        assert done.per_node("node-done")["n1"]["fetched"] == size
        found = {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        assert found == {"full/f": b"old", **expected}


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["f", "f", "/d/", "n1"], 2, "two sources are both named f; name it once"),
        (["pipe", "/d/", "n1"], 4, "pipe is a FIFO: it holds no data to copy; name a file"),
        (["/dev/zero", "/d/", "n1"], 4, "/dev/zero is a device: it holds no data to copy; name a file"),
        (["f/", "/d/", "n1"], 4, "f is not a directory; name it without the trailing slash"),
        (["-r", "/", "/d/", "n1"], 2, "/ is the whole file system of this host"),
        (["-r", "d/", "f", "/d/", "n1"], 2, "d/ means the contents of d, which are copied alone"),
        (["d", "/d/", "n1"], 2, "d is a directory; give -r"),
        (["f", "d/e", "n1"], 2, "the destination 'd/e' is no absolute path"),
        (["f", "n1", "/d/"], 2, "'/d/' is no node of this cluster; hosts stand last: pcp f /d/ n1"),
        (["-b", "1", "f", "/d/", "n1"], 2, "a block of 1 is out of range; give 4K to 32M"),
        (["--bwlimit", "100", "f", "/d/", "n1"], 2, "too slow; give at least 16K, or 100K for KiB/s"),
        (["--timeout", "-1", "f", "/d/", "n1"], 2, "-1.0 is no time limit"),
        (["-w", "n[7-9]", "f", "/d/"], 2, "'n7' is no node of this cluster"),
        (["-x", "n1", "f", "/d/", "n1"], 2, "no node is left of n1 without n1"),
        (["--nodes-from", "none", "f", "/d/"], 2, "cannot read hosts from none: No such file"),
    ],
)
def test_what_is_refused_is_one_line_and_no_node_hears_of_it(
    here: Cli, tmp_path: Path, words: list[str], code: int, line: str
) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "pipe")
    done = here.pcp(*words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert done.err.startswith("pcp: ")
    assert line in done.err


def test_hosts_by_option_by_file_and_without_some(here: Cli, spot: Any, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "hosts").write_text("n[1-3]  # but not the last\n")
    for words in (("-w", "n[1-2]"), ("--nodes-from", "hosts", "-x", "n3"), ("-w", "127.0.0.2", "-w", "n2")):
        done = here.pcp("f", f"{spot.dest}/", *words)
        assert (done.code, sorted(re.findall(r"on (n\d)", done.out))) == (0, ["n1", "n2"])
    assert here.pcp("-h").out.startswith("Usage: pcp [OPTIONS] SRC... DEST [HOST...]")
    assert re.fullmatch(r"pcp, version \d.*\n", here.pcp("--version").out)


def test_what_holds_no_data_is_left_out_and_said_so(here: Cli, spot: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / "pipe")
    (tmp_path / "d" / "f").touch()
    done = here.pcp("-r", "d", f"{spot.dest}/", "n1")
    assert done.code == 0
    assert re.search(rf"^d: {tmp_path}/d/pipe is no file, directory or link; left out$", done.err, re.MULTILINE)
    assert os.listdir(spot.on("n1", "d")) == ["f"]


def test_events_tell_the_whole_story(here: Cli, spot: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    done = here.pcp("--json", "-f", "2", "f", f"{spot.dest}/f", "n3", "n1")
    assert (done.code, done.err) == (0, "")
    events = done.events()
    assert len(events) == len(done.out.splitlines())
    assert [events[0]["type"], events[-1]["type"]] == ["transfer-start", "transfer-end"]
    start = events[0]
    assert (start["nodes"], start["files"], start["bytes"], start["detail"]) == (["n3", "n1"], 1, 1000, "tree:2")
    assert start["addresses"] == {"n3": "127.0.0.4", "n1": "127.0.0.2"}
    assert set(done.per_node("node-done")) == {"n1", "n3"}
    assert sorted(events[-1]["ok"]) == ["n1", "n3"]
    assert events[-1]["digest"] == done.per_node("node-done")["n1"]["digest"]


@pytest.mark.parametrize(("shape", "copies"), [("1", 1), ("2", 2)])
def test_bwlimit_limits_what_the_source_and_each_relay_send(
    here: Cli, spot: Any, tmp_path: Path, shape: str, copies: int
) -> None:
    size, rate = 1 << 20, 1 << 20
    (tmp_path / "f").write_bytes(os.urandom(size))
    done = here.pcp("--json", "--bwlimit", "1M", "-f", shape, "f", f"{spot.dest}/f", "n1", "n2")
    assert done.code == 0
    (end,) = done.of_type("transfer-end")
    assert end["seconds"] > copies * size / rate - 0.2  # a busy machine makes it only longer
    print(f"-f {shape} --bwlimit 1M: 1 MiB to 2 nodes in {end['seconds']:.2f} s")
    assert all(spot.on(node, "f").read_bytes() == (tmp_path / "f").read_bytes() for node in ("n1", "n2"))


def test_quiet_prints_nothing_when_all_is_well(here: Cli, spot: Any, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    done = here.pcp("-q", "f", f"{spot.dest}/f", ALL)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_copies_at_the_same_time_do_not_disturb_one_another(here: Cli, spot: Any, tmp_path: Path, big: Path) -> None:
    names = [f"f{number}" for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(os.urandom(1 << 20))
    with (
        here.start("pcp", names[0], f"{spot.dest}/f0", ALL) as a,
        here.start("pcp", names[1], f"{spot.dest}/f1", ALL) as b,
        here.start("pcp", names[2], f"{spot.dest}/f2", "n1") as c,
        here.start("pcp", names[3], f"{spot.dest}/f3", "n4") as d,
    ):
        assert [running.wait().code for running in (a, b, c, d)] == [0, 0, 0, 0]
    for name, nodes in zip(names, (spot.nodes, spot.nodes, ["n1"], ["n4"]), strict=True):
        assert all(spot.on(node, name).read_bytes() == (tmp_path / name).read_bytes() for node in nodes)


@pytest.mark.parametrize("words", [("status",), ("status", "--json")])
def test_status_is_quick_and_loads_nothing_heavy(
    cli: Callable[[Layout], Cli], cluster4: Layout, words: tuple[str, ...]
) -> None:
    done = cli(cluster4).stage(*words, env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "cluster.door" in loaded
    assert not {"asyncio", "dask", "distributed", "cryptography", "ssl"} & loaded
    plain = cli(cluster4).stage(*words)
    print(f"stage {' '.join(words)}: {plain.seconds:.3f} s")
    assert plain.seconds < 1
    assert plain.out.count("127.0.0.") == 4


def test_a_name_that_is_not_utf8_costs_no_node(here: Cli, spot: Any, tmp_path: Path) -> None:
    name = os.fsdecode(b"only \xff")
    (tmp_path / name).write_text("x")
    assert here.pcp(tmp_path / name, f"{spot.dest}/", ALL).code == 0
    for node in spot.nodes:
        assert spot.on(node, name).read_text() == "x"
    assert here.stage("status").out.count(" up ") == 4
