"""File trees with all that is odd in them, and the comparison of two trees by everything that lstat tells."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
LATER = 1_700_000_000_123_456_789

ODD_NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"tab\tand\x1b[31mescape",
    b"not-utf8-\xff\xfe",
    "grüße-日本".encode(),
    b"-rf",
    b".hidden",
    b"%N-%j-%%",
    b"quo'te\"d $HOME `id` \\",
    b"x" * 255,
    b".lsh-looks-like-ours",
]


class Fact(NamedTuple):
    """What is compared of one file: type and mode, time, size, link count, link target or content."""

    mode: int
    mtime_ns: int
    size: int
    links: int
    content: bytes


def make_odd_tree(top: Path) -> None:
    """Odd names, modes, times, links, sparse and empty files. Needs a file system with holes."""
    top.mkdir()
    base = os.fsencode(top)

    def path(*parts: bytes) -> bytes:
        return os.path.join(base, *parts)

    for number, name in enumerate(ODD_NAMES):
        write(path(name), name * number)
    os.mkdir(path(b"empty directory"))
    os.makedirs(path(b"a", b"b\xff", b"c\n", b"d"))
    write(path(b"a", b"b\xff", b"c\n", b"d", b"deep"), b"deep" * 100_000)
    write(path(b"a", b"empty"), b"")
    for number in range(40):
        write(path(b"a", b"small-%d" % number), os.urandom(number * 97))
    for mode in (0o600, 0o444, 0o755, 0o4755, 0o2750, 0o1777):
        write(path(b"mode-%o" % mode), b"m")
        os.chmod(path(b"mode-%o" % mode), mode)
    for target in (b"plain", b"nowhere\xff", b"a/b\xff", b"/absolute/nowhere", b"../" * 9 + b"etc"):
        os.symlink(target, path(b"link-%d" % len(target)))
    write(path(b"linked"), b"one file, three names")
    os.link(path(b"linked"), path(b"a", b"same"))
    os.link(path(b"linked"), path(b"zz same"))
    _sparse(path(b"sparse"), 3 * MIB, {MIB: b"island", 2 * MIB + 5: b"x" * 70_000})
    _sparse(path(b"hole"), MIB, {})
    _sparse(path(b"hole at the end"), 2 * MIB, {0: b"data"})
    for number, (directory, names, files) in enumerate(os.walk(base, topdown=False)):
        for name in [*files, *names]:
            ns = LATER + number * 1_000_000_007
            os.utime(os.path.join(directory, name), ns=(ns, ns), follow_symlinks=False)
    os.utime(path(b"plain"), ns=(1, 1))
    os.utime(path(b"-rf"), ns=(-1_500_000_001, -1_500_000_001))
    os.chmod(path(b"empty directory"), 0o555)
    os.chmod(path(b"a", b"b\xff"), 0o2750)
    os.chmod(base, 0o751)
    os.utime(base, ns=(LATER, LATER))


def write(path: bytes | Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _sparse(path: bytes, size: int, islands: dict[int, bytes]) -> None:
    with open(path, "wb") as file:
        for offset, data in islands.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)


def facts(top: Path) -> dict[bytes, Fact]:
    """Everything about every name below `top`, and about `top` itself as b"."."""
    base = os.fsencode(top)
    paths = [base]
    for directory, names, files in os.walk(base):
        paths += [os.path.join(directory, name) for name in [*names, *files]]
    return {os.path.relpath(path, base): _fact(path) for path in paths}


def _fact(path: bytes) -> Fact:
    info = os.lstat(path)
    content = b""
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            content = file.read()
    elif stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)
    directory = stat.S_ISDIR(info.st_mode)  # sizes and link counts of directories are the file system's own
    size, links = (0, 0) if directory else (info.st_size, info.st_nlink)
    return Fact(info.st_mode, info.st_mtime_ns, size, links, content)


def link_groups(top: Path) -> set[frozenset[bytes]]:
    """Which names below `top` are one file."""
    groups = defaultdict(set)
    base = os.fsencode(top)
    for directory, _, files in os.walk(base):
        for name in files:
            path = os.path.join(directory, name)
            groups[os.lstat(path).st_ino].add(os.path.relpath(path, base))
    return {frozenset(names) for names in groups.values() if len(names) > 1}


def blocks(path: Path) -> int:
    """Bytes that a file takes on disk."""
    return path.stat().st_blocks * 512


def assert_same(copy: Path, source: Path) -> None:
    """Fail with the first names that differ."""
    there, here = facts(copy), facts(source)
    assert sorted(there) == sorted(here)
    wrong = {name: (there[name]._replace(content=b""), here[name]._replace(content=b"")) for name in here
             if there[name] != here[name]}  # fmt: skip
    assert not wrong, wrong
    assert link_groups(copy) == link_groups(source)


def same_bytes(copy: Path, source: Path) -> bool:
    """Whether two large files are equal, read in pieces."""
    with open(copy, "rb") as one, open(source, "rb") as other:
        while piece := one.read(4 * MIB):
            if piece != other.read(4 * MIB):
                return False
        return not other.read(1)
