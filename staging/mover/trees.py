"""Whole trees in the hidden area: walking, measuring, removing. They may be deeper than the interpreter's stack."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def below(top: str) -> Iterator[os.DirEntry[str]]:
    """All below `top`, a directory before what is in it. Links are not followed, what cannot be read is left out."""
    waiting = [top]
    while waiting:
        children = []
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as found:
            children = list(found)
        for child in children:
            if child.is_dir(follow_symlinks=False):
                waiting.append(child.path)
            yield child


def bytes_held(top: str) -> int:
    """Bytes of disk that what is below `top` takes, directories apart."""
    found = (child for child in below(top) if not child.is_dir(follow_symlinks=False))
    return sum(child.stat(follow_symlinks=False).st_blocks * 512 for child in found)


def remove_tree(top: str) -> None:
    """Remove `top` and all that is in it, as far as that is possible."""
    directories = [top]
    for child in below(top):
        if child.is_dir(follow_symlinks=False):
            directories.append(child.path)
        else:
            with contextlib.suppress(OSError):
                os.unlink(child.path)
    for path in reversed(directories):
        with contextlib.suppress(OSError):
            os.rmdir(path)
