"""staging.hosts: which words of a command line are hosts, and which nodes they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.nodes import fold
from staging.hosts import choose_hosts, expand, read_host_file, split_hosts
from staging.mover.errors import UsageError

KNOWN = {f"n{number}": f"127.0.0.{number + 1}" for number in range(1, 9)}
SIX = {"m1": "fd00::1", "m2": "fd00::2", "n1": "127.0.0.2"}
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


def test_sixty_four_nodes_in_one_word() -> None:
    known = {f"n{number}": f"10.0.0.{number}" for number in range(1, 65)}
    assert split_hosts(["f", "/d", "n[1-64]"], known)[1] == tuple(known)
    assert split_hosts(["f", "/d", *known], known)[1] == tuple(known)


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("fd00::1", ["m1"]),
        ("[fd00::1]", ["m1"]),
        ("FD00:0:0::1", ["m1"]),
        ("n1,[fd00::2]", ["n1", "m2"]),
        ("fd00::2,fd00::1", ["m2", "m1"]),
        ("127.0.0.2", ["n1"]),
        ("m[1-2]", ["m1", "m2"]),
    ],
)
def test_addresses_stand_for_names(word: str, names: list[str]) -> None:
    assert expand(word, SIX) == names


def test_ranges_of_addresses() -> None:
    assert expand("127.0.0.[2-4]", KNOWN) == ["n1", "n2", "n3"]


def test_an_address_of_several_nodes_is_no_name() -> None:
    with pytest.raises(UsageError, match=r"::1 is the address of n\[1-2\]; give the node's name"):
        split_hosts(["f", "/d", "::1"], {"n1": "::1", "n2": "::1"})


def test_hosts_that_are_named_by_w_leave_all_words_to_the_files() -> None:
    assert choose_hosts(["n1", "/n2"], KNOWN, ["n[3-5]", "n1"], ["n4"]) == (("n1", "/n2"), ("n3", "n5", "n1"))
    assert choose_hosts(["f", "/d", "n[1-8]"], KNOWN, excluded=["n[3-99],127.0.0.2"]) == (("f", "/d"), ("n2",))


def test_no_node_is_left() -> None:
    with pytest.raises(UsageError, match=r"no node is left of n\[1-2\] without n\[1-4\]"):
        choose_hosts(["f", "/d", "n[1-2]"], KNOWN, excluded=["n[1-4]"])


@pytest.mark.parametrize("word", ["n9", "n[7-9]", "::9", "127.0.0.99"])
def test_w_names_the_node_that_is_not_there(word: str) -> None:
    with pytest.raises(UsageError, match=r"is no node of this cluster; .*n\[1-8\]"):
        choose_hosts(["f", "/d"], KNOWN, [word])


@pytest.mark.parametrize(
    ("words", "named", "remedy"),
    [
        (["f", "n1", "/d"], [], "hosts stand last: pcp f /d n1"),
        (["f", "g", "n1", "n2", "/d"], [], "hosts stand last: pcp f g /d n1 n2"),
        (["f", "g", "/d"], [], "hosts stand last: pcp f g /d n1"),
        (["f", "g", "n1:/d"], [], "write pcp f g /d n1"),
        (["f", "n1:/d"], [], "a host follows its path; write pcp f /d n1"),
        (["f", "n1", "n2"], [], "no destination stands before the host n1; write pcp SRC... /scratch/ n1"),
        (["f", "n1:/d"], ["n1"], "write /d, and n1 as the host"),
        (["f", "d/e", "n1"], [], "is no absolute path; write /scratch/d/e or the like"),
        (["f", "~/e", "n1"], [], "is no absolute path; write /scratch/e or the like"),
        (["f", "/d", "n9", "n1"], [], "'n9' is no node of this cluster"),
        (["f"], ["n1"], "needs a source, a destination"),
    ],
)
def test_what_is_written_wrongly_is_told_what_to_write(words: list[str], named: list[str], remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_hosts(words, KNOWN, named)
    assert remedy in str(caught.value)


def test_a_host_file() -> None:
    assert read_host_file("# all\nn[1-2] n4 # some\n\n  @gpu\n") == ["n[1-2]", "n4", "@gpu"]
    assert read_host_file("#\n") == []
