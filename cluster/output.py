"""What many processes print, put together: raw, each line labelled, or identical output gathered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cluster.nodes import fold

Mode = Literal["raw", "label", "gather"]
Write = Callable[[str, bytes], None]

RULE = b"---------------"
LONGEST_LINE = 1 << 16  # a line longer than this is shown in pieces


class Output:
    """`feed` takes chunks as they come; `finish` writes what was held back. `write(stream, data)` prints."""

    def __init__(self, mode: Mode, write: Write) -> None:
        self._mode = mode
        self._write = write
        self._held: dict[tuple[str, str], bytearray] = {}

    def feed(self, node: str, stream: str, data: bytes) -> None:
        if self._mode == "raw":
            self._write(stream, data)
            return
        held = self._held.setdefault((node, stream), bytearray())
        held += data
        if self._mode == "gather":
            return
        end = held.rfind(b"\n") + 1 or (len(held) if len(held) > LONGEST_LINE else 0)
        if end:
            self._write(stream, label(node, bytes(held[:end])))
            del held[:end]

    def finish(self) -> None:
        """Write unfinished lines, or everything gathered: nodes with the same output under one heading."""
        if self._mode == "gather":
            for stream in ("stdout", "stderr"):
                self._gathered(stream)
        else:
            for (node, stream), held in self._held.items():
                if held:
                    self._write(stream, label(node, bytes(held)))
        self._held.clear()

    def _gathered(self, stream: str) -> None:
        groups: dict[bytes, list[str]] = {}
        for (node, name), held in self._held.items():
            if name == stream and held:
                groups.setdefault(bytes(held), []).append(node)
        for text, nodes in groups.items():
            end = b"" if text.endswith(b"\n") else b"\n"
            self._write(stream, b"\n".join([RULE, fold(nodes).encode(), RULE, text]) + end)


def label(node: str, text: bytes) -> bytes:
    """Each line of `text` with the node's name in front; an unfinished last line is ended."""
    prefix = node.encode() + b": "
    body = text[:-1] if text.endswith(b"\n") else text
    return prefix + body.replace(b"\n", b"\n" + prefix) + b"\n"
