"""cluster.output: however the output is cut into chunks, what is printed depends on the text alone."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.output import LONGEST_LINE, Mode, Output, label

texts = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\xff", b" "])).map(b"".join)


class Screen:
    def __init__(self, mode: Mode) -> None:
        self.shown: dict[str, bytes] = defaultdict(bytes)
        self.writes: list[tuple[str, bytes]] = []
        self.output = Output(mode, self._write)

    def _write(self, stream: str, data: bytes) -> None:
        self.shown[stream] += data
        self.writes.append((stream, data))


def lines_of(text: bytes) -> list[bytes]:
    """The lines of a text, an unfinished last one included."""
    lines = text.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2"]), st.sampled_from(["stdout", "stderr"]), texts)))
def test_labelled_lines_are_whole_and_in_order(chunks: list[tuple[str, str, bytes]]) -> None:
    screen = Screen("label")
    said: dict[tuple[str, str], bytes] = defaultdict(bytes)
    for node, stream, data in chunks:
        screen.output.feed(node, stream, data)
        said[node, stream] += data
        assert all(written.endswith(b"\n") for _, written in screen.writes)
    screen.output.finish()
    for stream in ("stdout", "stderr"):
        shown = lines_of(screen.shown[stream])
        for node in ("n1", "n2"):
            mark = node.encode() + b": "
            own = [line.removeprefix(mark) for line in shown if line.startswith(mark)]
            assert own == lines_of(said[node, stream])
        assert all(line[:4] in (b"n1: ", b"n2: ") for line in shown)


@given(st.lists(texts))
def test_raw_output_is_passed_on_at_once(chunks: list[bytes]) -> None:
    screen = Screen("raw")
    for data in chunks:
        screen.output.feed("n1", "stdout", data)
    assert screen.writes == [("stdout", data) for data in chunks]
    screen.output.finish()
    assert screen.shown["stdout"] == b"".join(chunks)


def test_a_line_without_an_end_is_shown_in_pieces() -> None:
    screen = Screen("label")
    screen.output.feed("n1", "stdout", b"x" * LONGEST_LINE)
    assert screen.writes == []
    screen.output.feed("n1", "stdout", b"x")
    assert screen.shown["stdout"] == b"n1: " + b"x" * (LONGEST_LINE + 1) + b"\n"


def test_gathered_output_appears_at_the_end_and_once_for_all_that_said_it() -> None:
    screen = Screen("gather")
    for node, text in (("n1", b"same\n"), ("n2", b"other\n"), ("n3", b"sa"), ("n3", b"me\n"), ("n4", b"")):
        screen.output.feed(node, "stdout", text)
    screen.output.feed("n2", "stderr", b"oops")
    assert screen.writes == []
    screen.output.finish()
    rule = b"---------------\n"
    assert screen.shown["stdout"] == rule + b"n[1,3]\n" + rule + b"same\n" + rule + b"n2\n" + rule + b"other\n"
    assert screen.shown["stderr"] == rule + b"n2\n" + rule + b"oops\n"
    screen.output.finish()
    assert screen.shown["stderr"].count(b"oops") == 1


@pytest.mark.parametrize(
    ("text", "labelled"), [(b"a\nb\n", b"n1: a\nn1: b\n"), (b"a\nb", b"n1: a\nn1: b\n"), (b"\n", b"n1: \n")]
)
def test_label(text: bytes, labelled: bytes) -> None:
    assert label("n1", text) == labelled
