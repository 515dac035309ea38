"""What is to be moved: entries with metadata, and the byte space their data is laid out in. Pure.

The byte space is the data of all files end to end (holes left out), cut into blocks of one size, so that many
small files share a block and a huge file is many blocks. See docs/protocol.md for the encoding.
"""

from __future__ import annotations

import bisect
import json
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from .digests import HASHES, Hash
from .errors import StageError, VerifyError
from .wire import MAX_BLOCK, MAX_MANIFEST

DIRECTORY, FILE, SYMLINK, HARDLINK = KINDS = ("d", "f", "l", "h")
MAX_SIZE = 1 << 63  # what off_t and, in seconds, time_t can hold
MAX_TIME_NS = MAX_SIZE * 10**9
PLAIN = 4096  # bytes of a manifest that is not worth compressing


class Entry(NamedTuple):
    """One name. `extents` is None for a file without holes; `target` is a link's."""

    kind: str
    path: str
    mode: int
    mtime_ns: int
    size: int = 0
    extents: tuple[tuple[int, int], ...] | None = None
    target: str = ""

    def data(self) -> tuple[tuple[int, int], ...]:
        """[(offset, length), ...] of what the file really holds."""
        if self.extents is not None:
            return self.extents
        return ((0, self.size),) if self.size else ()


class Segment(NamedTuple):
    """A run of bytes of one file: part of a block."""

    entry: int
    offset: int
    length: int


class Manifest(NamedTuple):
    entries: tuple[Entry, ...]
    block: int
    hash: str
    contents: bool = False

    def tops(self) -> list[str]:
        """The first components of all paths, in order."""
        return list(dict.fromkeys(e.path.split("/", 1)[0] for e in self.entries if e.path != "."))

    def hasher(self) -> Hash:
        return HASHES[self.hash]

    def encode(self) -> bytes:
        """The bytes that every peer gets: JSON, compressed when it is long. `decode` is the inverse."""
        body = {
            "v": 1,
            "block": self.block,
            "hash": self.hash,
            "contents": self.contents,
            "entries": self.entries,
        }
        text = json.dumps(body, separators=(",", ":")).encode("ascii")
        return text if len(text) < PLAIN else zlib.compress(text, 1)

    def identity(self) -> bytes:
        """Digest of names, kinds and sizes: what a partial replica must share to be worth resuming, in any blocks."""
        shape = [[e.kind, e.path, e.size, e.extents] for e in self.entries]
        return self.hasher().digest(json.dumps([self.contents, shape]).encode("ascii"))


def decode(data: bytes) -> Manifest:
    """The manifest in `data`; VerifyError when any rule of docs/protocol.md is broken."""
    try:
        body = json.loads(data if data[:1] == b"{" else _inflate(data))
        if body["v"] != 1:
            raise VerifyError("the manifest has version {}, this mover reads 1".format(body["v"]))
        entries = tuple(_entry(row) for row in body["entries"])
        manifest = Manifest(entries, int(body["block"]), str(body["hash"]), bool(body["contents"]))
    except StageError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, zlib.error) as error:
        raise VerifyError(f"the manifest cannot be read: {error}") from None
    check(manifest)
    return manifest


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    text = stream.decompress(data, MAX_MANIFEST)
    if not stream.eof or stream.unused_data:
        raise ValueError("it is cut short, too long or no manifest")
    return text


def _entry(row: Any) -> Entry:
    kind, path, mode, mtime_ns, size, extents, target = row
    pairs = None if extents is None else tuple((int(o), int(n)) for o, n in extents)
    return Entry(str(kind), str(path), int(mode), int(mtime_ns), int(size), pairs, str(target))


def check(manifest: Manifest) -> None:
    """Raise VerifyError unless every path stays beneath the destination and every parent is a directory of ours."""
    if manifest.hash not in HASHES:
        raise VerifyError(
            f"the transfer is hashed with {manifest.hash}, which this host does not have",
            "install blake3 there, or on no side",
        )
    if not 1 <= manifest.block <= MAX_BLOCK:
        raise VerifyError(f"block size {manifest.block} is outside 1..{MAX_BLOCK}")
    kinds: dict[str, str] = {}
    for entry in manifest.entries:
        kind, path, mode, mtime_ns, size, extents, target = entry
        parent, slash, name = path.rpartition("/")
        # nearly all: a plain name in a directory that was checked itself
        plain = name not in ("", ".", "..") and path.isascii() and "\0" not in path and path not in kinds
        if not plain or (slash and kinds.get(parent) != DIRECTORY):
            _check_path(entry, kinds, manifest.contents)
        if kind not in KINDS or not 0 <= size < MAX_SIZE or mode & ~0o7777 or not -MAX_TIME_NS < mtime_ns < MAX_TIME_NS:
            raise VerifyError(f"bad manifest entry for {path!r}")
        if kind == HARDLINK and kinds.get(target) != FILE:
            raise VerifyError(f"{path!r} is a hard link to {target!r}, which is no earlier file")
        if kind == SYMLINK and (not target or not _is_name(target)):
            raise VerifyError(f"{path!r} is a symbolic link to nothing")
        if extents is not None and kind == FILE:
            _check_extents(entry)
        kinds[path] = kind


def _check_path(entry: Entry, kinds: dict[str, str], contents: bool) -> None:
    path = entry.path
    if path == "." and contents and entry.kind == DIRECTORY and not kinds:
        return
    parts = path.split("/")
    if not _is_name(path) or any(part in ("", ".", "..") for part in parts):
        raise VerifyError(f"the manifest names {path!r}, which is not beneath the destination")
    if path in kinds:
        raise VerifyError(f"the manifest names {path!r} twice")
    if len(parts) > 1 and kinds.get("/".join(parts[:-1])) != DIRECTORY:
        raise VerifyError(f"the parent of {path!r} is no directory of the manifest")


def _is_name(text: str) -> bool:
    """Whether a file system can take it: no zero byte, and no surrogates but those that stand for a byte."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _check_extents(entry: Entry) -> None:
    end = 0
    for offset, length in entry.data():
        if offset < end or length <= 0:
            raise VerifyError(f"the extents of {entry.path!r} overlap")
        end = offset + length
    if end > entry.size:
        raise VerifyError(f"the extents of {entry.path!r} go past its end")


class Layout:
    """The byte space of a manifest: which bytes of which files a block is."""

    def __init__(self, manifest: Manifest) -> None:
        self.block = manifest.block
        self._starts: list[int] = []
        self._runs: list[Segment] = []
        total = 0
        for index, entry in enumerate(manifest.entries):
            if entry.kind != FILE:
                continue
            for offset, length in entry.data():
                self._starts.append(total)
                self._runs.append(Segment(index, offset, length))
                total += length
        self.bytes = total
        self.blocks = -(-total // self.block)

    def length(self, block: int) -> int:
        """Bytes of this block; only the last may be short."""
        return min(self.block, self.bytes - block * self.block)

    def segments(self, block: int) -> list[Segment]:
        """The runs of file bytes that make up the block, in order."""
        begin = block * self.block
        end = begin + self.length(block)
        if begin >= end:
            return []
        first = bisect.bisect_right(self._starts, begin) - 1
        last = bisect.bisect_left(self._starts, end) - 1
        found = self._runs[first : last + 1]
        skip = begin - self._starts[first]
        if skip:
            entry, offset, length = found[0]
            found[0] = Segment(entry, offset + skip, length - skip)
        over = self._starts[last] + self._runs[last].length - end
        if over > 0:
            entry, offset, length = found[-1]
            found[-1] = Segment(entry, offset, length - over)
        return found


def choose_block(total: int, nodes: int, rate: int = 0) -> int:
    """Block size in bytes when nobody asked for one: small enough to fill a tree early, at most 1 MiB.

    `rate`: what a host may send, in bytes/s, 0 for any.
    """
    block = paced_block(rate) if rate else 1 << 20
    while block > 1 << 16 and total // block < 32 * max(nodes, 1):
        block >>= 1
    return block


def paced_block(rate: int) -> int:
    """The largest block in bytes where a host may send `rate` bytes/s, so that no peer waits for too long."""
    block = 1 << 20
    while block > max(1 << 12, rate >> 2):
        block >>= 1
    return block


def file_entries(entries: Sequence[Entry]) -> int:
    """How many regular files (hard links apart) there are."""
    return sum(e.kind == FILE for e in entries)
