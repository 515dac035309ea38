"""staging.pcp: which of its words are hosts, what it refuses, and its classic lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.nodes import fold
from staging.mover.errors import UsageError
from staging.pcp import Lines, check_sources, split_hosts

KNOWN = {f"n{number}": f"127.0.0.{number + 1}" for number in range(1, 9)}
paths = st.text(st.characters(exclude_characters="\0"), min_size=1).filter(lambda word: word not in KNOWN)
not_hosts = paths.filter(lambda word: not word.lstrip().startswith(("n", "@", "127")))
some_nodes = st.lists(st.sampled_from(list(KNOWN)), min_size=1, max_size=4, unique=True)
written = some_nodes.map(lambda names: (names, fold(names))) | st.sampled_from(
    [([name], word) for name, address in KNOWN.items() for word in (name, address)]
)


@given(
    sources=st.lists(paths, min_size=1, max_size=3), dest=not_hosts, groups=st.lists(written, min_size=1, max_size=4)
)
def test_hosts_are_what_follows_the_destination(
    sources: list[str], dest: str, groups: list[tuple[list[str], str]]
) -> None:
    words = [*sources, dest, *(word for _, word in groups)]
    rest, hosts = split_hosts(words, KNOWN)
    assert list(rest) == [*sources, dest]
    assert set(hosts) == {name for names, _ in groups for name in names}
    assert len(hosts) == len(set(hosts))


@given(st.lists(paths | st.sampled_from(list(KNOWN)), min_size=1, max_size=6))
def test_whatever_the_words_are_a_source_and_a_destination_are_left(words: list[str]) -> None:
    try:
        rest, hosts = split_hosts(words, KNOWN)
    except UsageError:
        return
    assert len(rest) >= 2
    assert hosts
    assert list(rest) == words[: len(rest)]
    assert set(hosts) <= set(KNOWN)


def test_a_file_may_be_called_as_a_node_is() -> None:
    assert split_hosts(["n1", "n2", "n3"], KNOWN) == (("n1", "n2"), ("n3",))
    assert split_hosts(["n1", "/d", "n1"], KNOWN) == (("n1", "/d"), ("n1",))


def test_hosts_keep_the_order_in_which_they_are_given() -> None:
    assert split_hosts(["f", "/d", "n3", "127.0.0.2", "n[2-3]"], KNOWN)[1] == ("n3", "n1", "n2")


@pytest.mark.parametrize(
    "words",
    [["f", "/d", "n9"], ["f", "/d", "n[1-9]"], ["f", "/d", "127.0.0.99"], ["f", "/d", "n["]],
)
def test_an_unknown_host_is_named_with_those_there_are(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        split_hosts(words, KNOWN)
    assert caught.value.message == f"{words[-1]!r} is no node of this cluster"
    assert "n[1-8]" in caught.value.remedy


@pytest.mark.parametrize("words", [["f", "/d"], ["f", "n1"], ["f"]])
def test_too_few_words_are_told_what_is_wanted(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"write pcp SRC\.\.\. DEST HOST\.\.\."):
        split_hosts(words, KNOWN)


def test_a_directory_needs_r(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    check_sources([str(tmp_path), str(tmp_path / "f")], True)
    check_sources([str(tmp_path / "f"), str(tmp_path / "missing")], False)
    with pytest.raises(UsageError, match=f"{tmp_path} is a directory; give -r"):
        check_sources([str(tmp_path / "f"), str(tmp_path)], False)


def failed(partial: bool, remedy: str = "") -> dict[str, object]:
    error = {"class": "StageError", "message": "it broke", "remedy": remedy}
    return {"type": "node-failed", "node": "n3", "error": error, "partial": partial}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"type": "node-done", "node": "n3"}, "Write succeeded on n3 (127.0.0.4)\n"),
        (failed(False), "Write failed on n3 (127.0.0.4): it broke\n"),
        (failed(False, "mend it"), "Write failed on n3 (127.0.0.4): it broke; mend it\n"),
        (
            failed(True),
            "Write failed on n3 (127.0.0.4): it broke (partial copy kept, run the same command to resume)\n",
        ),
        ({"type": "progress", "node": "n3", "bytes": 1}, ""),
        ({"type": "transfer-end"}, ""),
    ],
)
def test_the_classic_lines(event: dict[str, object], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Lines(KNOWN).tell(event)
    assert capsys.readouterr().out == line
