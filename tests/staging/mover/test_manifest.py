"""Manifests: their encoding, every rule that one must keep, and the byte space they lay out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staging.mover import manifest as manifest_module
from staging.mover.digests import HASHES
from staging.mover.errors import VerifyError
from staging.mover.manifest import (
    DIRECTORY,
    FILE,
    HARDLINK,
    SYMLINK,
    Entry,
    Layout,
    Manifest,
    Segment,
    choose_block,
    decode,
    file_entries,
)
from staging.mover.wire import MAX_BLOCK

# every name that a file system may hold: spaces, newlines, bytes that are not UTF-8
names = (
    st.binary(min_size=1, max_size=5)
    .filter(lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name)
    .map(os.fsdecode)
)
modes = st.integers(0, 0o7777)
times = st.integers(-(10**18), 2 * 10**18)


@st.composite
def data_runs(draw: st.DrawFn, size: int) -> tuple[tuple[int, int], ...] | None:
    """The extents of a file of `size` bytes; None for one without holes."""
    if draw(st.booleans()):
        return None
    cuts = sorted(draw(st.sets(st.integers(0, size), max_size=6)))
    return tuple((start, end - start) for start, end in zip(cuts[::2], cuts[1::2], strict=False))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any valid manifest."""
    contents = draw(st.booleans())
    entries = []
    if contents and draw(st.booleans()):
        entries.append(Entry(DIRECTORY, ".", draw(modes), draw(times)))
    prefixes = [""]
    files: list[str] = []
    paths: set[str] = set()
    for _ in range(draw(st.integers(0, 10))):
        path = draw(st.sampled_from(prefixes)) + draw(names)
        if path in paths:
            continue
        paths.add(path)
        kind = draw(st.sampled_from([DIRECTORY, FILE, FILE, SYMLINK, *([HARDLINK] if files else [])]))
        entry = Entry(kind, path, draw(modes), draw(times))
        if kind == DIRECTORY:
            prefixes.append(path + "/")
        elif kind == FILE:
            size = draw(st.integers(0, 50))
            entry = entry._replace(size=size, extents=draw(data_runs(size)))
            files.append(path)
        else:
            entry = entry._replace(target=draw(names if kind == SYMLINK else st.sampled_from(files)))
        entries.append(entry)
    return Manifest(tuple(entries), draw(st.integers(1, 40)), draw(st.sampled_from(sorted(HASHES))), contents)


# the encoding -------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(manifests())
def test_decode_is_the_inverse_of_encode(manifest: Manifest) -> None:
    assert decode(manifest.encode()) == manifest


def test_encoding_of_a_sample() -> None:
    manifest = Manifest((Entry(FILE, os.fsdecode(b"a\xff\n"), 0o644, 5, 9, ((0, 3),)),), 1024, "blake2b")
    assert manifest.encode() == (
        b'{"v":1,"block":1024,"hash":"blake2b","contents":false,"entries":[["f","a\\udcff\\n",420,5,9,[[0,3]],""]]}'
    )


@pytest.fixture
def long() -> Manifest:
    entries = [Entry(FILE, os.fsdecode(b"file \xff %d" % n), 0o644, n * 10**9 + 7, n) for n in range(3000)]
    return Manifest(tuple(entries), 1 << 16, "blake2b")


def test_a_long_one_travels_compressed(long: Manifest) -> None:
    encoded = long.encode()
    assert len(encoded) < 3000 * 20
    assert decode(encoded) == long


@pytest.mark.parametrize("spoil", [lambda d: d[:-5], lambda d: d + b"more", lambda d: d[:99] + b"?" + d[100:]])
def test_a_spoilt_long_one(long: Manifest, spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(VerifyError, match="cannot be read"):
        decode(spoil(long.encode()))


def test_one_that_unpacks_without_end(long: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = long.encode()
    monkeypatch.setattr(manifest_module, "MAX_MANIFEST", 100_000)
    with pytest.raises(VerifyError, match="too long"):
        decode(encoded)


def body(**changes: Any) -> dict[str, Any]:
    return {"v": 1, "block": 64, "hash": "blake2b", "contents": False, "entries": [], **changes}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["..", "/", "f"]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def manifest_or_verify_error(data: bytes) -> None:
    try:
        manifest = decode(data)
    except VerifyError:
        return
    for entry in manifest.entries:
        path = os.fsencode(entry.path)  # a name that a file system takes
        assert not path.startswith(b"/")
        assert b".." not in path.split(b"/")


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_manifest_or_a_verify_error(data: bytes) -> None:
    manifest_or_verify_error(data)


@settings(max_examples=60)
@given(manifests(), st.data())
def test_any_value_in_any_place_gives_a_manifest_or_a_verify_error(manifest: Manifest, data: st.DataObject) -> None:
    changed = json.loads(manifest.encode())
    if changed["entries"] and data.draw(st.booleans()):
        row = data.draw(st.sampled_from(changed["entries"]))
        row[data.draw(st.integers(0, 6))] = data.draw(json_values)
    else:
        changed[data.draw(st.sampled_from(sorted(changed)))] = data.draw(json_values)
    manifest_or_verify_error(json.dumps(changed).encode())


# the rules ----------------------------------------------------------------------------------------------

D = ["d", "d", 0o755, 0, 0, None, ""]
F = ["f", "f", 0o644, 0, 9, None, ""]
LINK = ["l", "l", 0o777, 0, 0, None, "elsewhere"]


def row(base: list[Any], path: str | None = None, **changes: Any) -> list[Any]:
    fields = dict(zip(Entry._fields, base, strict=True), **changes)
    if path is not None:
        fields["path"] = path
    return list(fields.values())


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([row(F, "/etc/passwd")], "not beneath"),
        ([row(F, "../x")], "not beneath"),
        ([D, row(F, "d/../../x")], "not beneath"),
        ([row(F, "./x")], "not beneath"),
        ([D, row(F, "d//x")], "not beneath"),
        ([D, row(F, "d/")], "not beneath"),
        ([row(F, "")], "not beneath"),
        ([row(F, "..")], "not beneath"),
        ([row(D, ".")], "not beneath"),
        ([row(F, "a\0b")], "not beneath"),
        ([row(F, "\ud800")], "not beneath"),
        ([F, F], "twice"),
        ([D, row(F, "d")], "twice"),
        ([row(F, "d/x")], "parent"),
        ([row(F, "d/x"), D], "parent"),
        ([F, row(F, "f/x")], "parent"),
        ([LINK, row(F, "l/x")], "parent"),
        ([row(F, kind="x")], "bad manifest entry"),
        ([row(F, size=-1)], "bad manifest entry"),
        ([row(F, size=1 << 63)], "bad manifest entry"),
        ([row(F, mode=0o10000)], "bad manifest entry"),
        ([row(F, mode=-1)], "bad manifest entry"),
        ([row(F, mtime_ns=1 << 100)], "bad manifest entry"),
        ([row(F, "h", kind="h", target="f")], "hard link"),
        ([row(F, "h", kind="h", target="f"), F], "hard link"),
        ([D, row(F, "h", kind="h", target="d")], "hard link"),
        ([LINK, row(F, "h", kind="h", target="l")], "hard link"),
        ([F, row(F, "h", kind="h", target="f"), row(F, "i", kind="h", target="h")], "hard link"),
        ([row(LINK, target="")], "symbolic link"),
        ([row(LINK, target="a\0b")], "symbolic link"),
        ([row(LINK, target="\ud800")], "symbolic link"),
        ([row(F, extents=[[0, 4], [3, 2]])], "overlap"),
        ([row(F, extents=[[4, 2], [0, 2]])], "overlap"),
        ([row(F, extents=[[-1, 2]])], "overlap"),
        ([row(F, extents=[[0, 0]])], "overlap"),
        ([row(F, extents=[[0, -1]])], "overlap"),
        ([row(F, extents=[[8, 2]])], "past its end"),
        ([row(F, extents=[[1]])], "cannot be read"),
        ([row(F, size=float("inf"))], "cannot be read"),
        ([row(F)[:6]], "cannot be read"),
        ([F, 7], "cannot be read"),
    ],
)
def test_entries_that_break_a_rule(entries: list[Any], reason: str) -> None:
    with pytest.raises(VerifyError, match=reason):
        decode(json.dumps(body(entries=entries)).encode())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": 2}, "version 2, this mover reads 1"),
        ({"block": 0}, "block size"),
        ({"block": MAX_BLOCK + 1}, "block size"),
        ({"hash": "md5"}, "hashed with md5"),
        ({"entries": None}, "cannot be read"),
        ({"contents": True, "entries": [F, row(D, ".")]}, "not beneath"),
        ({"contents": True, "entries": [row(D, "."), row(D, ".")]}, "not beneath"),
        ({"contents": True, "entries": [row(F, ".")]}, "not beneath"),
    ],
)
def test_heads_that_break_a_rule(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(VerifyError, match=reason):
        decode(json.dumps(body(**changes)).encode())


def test_a_link_that_leaves_the_tree_is_only_a_name() -> None:
    manifest = decode(json.dumps(body(entries=[row(LINK, target="../../etc/passwd")])).encode())
    assert manifest.entries[0].target == "../../etc/passwd"


# what is asked of a manifest ----------------------------------------------------------------------------


def test_tops_and_files() -> None:
    entries = [Entry(DIRECTORY, "a", 0, 0), Entry(FILE, "a/x", 0, 0), Entry(FILE, "b", 0, 0), Entry(SYMLINK, "c", 0, 0)]
    assert Manifest(tuple(entries), 1, "blake2b").tops() == ["a", "b", "c"]
    assert Manifest((Entry(DIRECTORY, ".", 0, 0), *entries), 1, "blake2b", True).tops() == ["a", "b", "c"]
    assert file_entries(entries) == 2


@settings(max_examples=50)
@given(manifests())
def test_identity_is_blind_to_modes_times_and_blocks_only(manifest: Manifest) -> None:
    other = manifest._replace(entries=tuple(e._replace(mode=0o600, mtime_ns=1) for e in manifest.entries))
    assert other.identity() == manifest.identity()
    assert manifest._replace(block=manifest.block + 1).identity() == manifest.identity()
    assert manifest._replace(contents=not manifest.contents).identity() != manifest.identity()
    if manifest.entries:
        first, *rest = manifest.entries
        assert manifest._replace(entries=(first._replace(size=first.size + 1), *rest)).identity() != manifest.identity()
        assert (
            manifest._replace(entries=(first._replace(path=first.path + "-"), *rest)).identity() != manifest.identity()
        )


@given(st.integers(0, 1 << 45), st.integers(0, 5000))
def test_chosen_block_is_a_power_of_two_between_64_kib_and_1_mib(total: int, nodes: int) -> None:
    block = choose_block(total, nodes)
    assert 1 << 16 <= block <= 1 << 20
    assert block & (block - 1) == 0
    assert block == 1 << 16 or total // block >= 32 * max(nodes, 1)


@given(st.integers(0, 1 << 45), st.integers(0, 5000), st.integers(1, 1 << 40))
def test_under_a_limit_a_chosen_block_takes_a_quarter_of_a_second(total: int, nodes: int, rate: int) -> None:
    block = choose_block(total, nodes, rate)
    assert block & (block - 1) == 0
    assert 1 << 12 <= block <= max(1 << 12, min(rate >> 2, choose_block(total, nodes)))


# the byte space -----------------------------------------------------------------------------------------


def bytes_of(segments: list[Segment]) -> list[tuple[int, int]]:
    return [(s.entry, s.offset + i) for s in segments for i in range(s.length)]


@settings(max_examples=60)
@given(manifests())
def test_blocks_tile_the_byte_space_in_order(manifest: Manifest) -> None:
    layout = Layout(manifest)
    space = [
        (index, offset + i)
        for index, entry in enumerate(manifest.entries)
        if entry.kind == FILE
        for offset, length in (((0, entry.size),) if entry.extents is None else entry.extents)
        for i in range(length)
    ]
    blocks = [layout.segments(block) for block in range(layout.blocks)]
    assert [at for segments in blocks for at in bytes_of(segments)] == space
    assert layout.bytes == len(space)
    assert [layout.length(b) for b in range(layout.blocks)] == [len(bytes_of(segments)) for segments in blocks]
    assert all(layout.length(b) == manifest.block for b in range(layout.blocks - 1))
    assert all(s.length > 0 for segments in blocks for s in segments)


def test_huge_and_sparse_cost_nothing() -> None:
    entry = Entry(FILE, "f", 0, 0, 1 << 50, ((0, 10), ((1 << 50) - 10, 10)))
    layout = Layout(Manifest((entry,), 16, "blake2b"))
    assert (layout.blocks, layout.bytes) == (2, 20)
    assert layout.segments(0) == [Segment(0, 0, 10), Segment(0, (1 << 50) - 10, 6)]
