"""What is at a destination before a transfer, and what becomes of it when blocks come."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from staging.mover.earlier import Earlier
from staging.mover.manifest import DIRECTORY, FILE, SYMLINK, Entry, Manifest

TIME = 1_000_000_000_000_000_000
ENTRIES = (
    Entry(DIRECTORY, "d", 0o755, TIME),
    Entry(FILE, "d/large", 0o644, TIME, 100),
    Entry(FILE, "d/small", 0o644, TIME, 5),
    Entry(FILE, "d/empty", 0o644, TIME),
    Entry(SYMLINK, "d/link", 0o777, TIME, target="there"),
)
LARGE, SMALL, EMPTY, LINK = 1, 2, 3, 4


class Place:
    """`final` is the destination, `staged` the hidden area; both hold what a test puts there."""

    def __init__(self, top: Path) -> None:
        self.final, self.staged = top / "final", top / "staged"
        for path in (self.final, self.staged):
            (path / "d").mkdir(parents=True)

    def put(self, name: str, data: bytes, time: int = TIME) -> None:
        path = self.final / "d" / name
        path.write_bytes(data)
        os.utime(path, ns=(time, time))

    def survey(self, quick: bool) -> Earlier:
        manifest = Manifest(ENTRIES, 10, "blake2b")
        return Earlier(manifest, lambda e: f"{self.staged}/{e.path}", lambda e: f"{self.final}/{e.path}", quick)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("quick", [False, True])
def test_nothing_is_there(place: Place, quick: bool) -> None:
    found = place.survey(quick)
    assert (found.kept, found.comparable, found.path(LARGE)) == (set(), False, "")


@pytest.mark.parametrize(("quick", "kept"), [(False, set()), (True, {SMALL})])
def test_size_and_time(place: Place, quick: bool, kept: set[int]) -> None:
    place.put("large", bytes(100), TIME + 1)
    place.put("small", b"other")
    found = place.survey(quick)
    assert found.kept == kept
    assert found.comparable
    assert found.path(LARGE) == f"{place.final}/d/large"


def test_what_needs_no_bytes_is_kept(place: Place) -> None:
    place.put("empty", b"", TIME + 1)
    place.put("large", bytes(99))
    (place.final / "d" / "link").symlink_to("there")
    found = place.survey(quick=False)
    assert (found.kept, found.comparable) == ({EMPTY, LINK}, False)


def test_another_link_and_a_link_for_a_file_are_not_kept(place: Place) -> None:
    place.put("elsewhere", b"small")
    (place.final / "d" / "small").symlink_to("elsewhere")
    (place.final / "d" / "link").symlink_to("elsewhere")
    assert place.survey(quick=True).kept == set()


def test_a_part_that_was_left_counts_unless_the_file_is_kept(place: Place) -> None:
    for name in ("large", "small"):
        (place.staged / "d" / name).write_bytes(b"part")
    place.put("small", b"other")
    found = place.survey(quick=True)
    assert found.path(LARGE) == f"{place.staged}/d/large"
    assert found.kept == {SMALL}
    assert os.listdir(place.staged / "d") == ["large"]


def test_a_large_file_stays_until_a_piece_of_it_differs(place: Place) -> None:
    place.put("large", bytes(100), TIME + 1)
    found = place.survey(quick=False)
    assert not found.settles(LARGE, 90, bytes(10))  # nobody has compared the rest
    found.keep_all_but(set())
    assert found.kept == {LARGE}
    assert found.settles(LARGE, 90, bytes(10))
    assert not found.settles(LARGE, 80, b"x" * 10)
    assert found.kept == set()
    assert (place.staged / "d" / "large").read_bytes() == bytes(100)  # what is right of it goes on from here


def test_a_small_file_is_judged_by_its_bytes_each_time(place: Place) -> None:
    place.put("small", b"other", TIME + 1)
    found = place.survey(quick=False)
    found.keep_all_but({SMALL})
    assert not found.settles(SMALL, 0, b"small")
    assert found.settles(SMALL, 0, b"other")
    assert found.kept == {SMALL}


def test_trust_that_was_wrong_is_told(place: Place) -> None:
    place.put("large", bytes(100))
    found = place.survey(quick=True)
    assert found.settles(LARGE, 0, bytes(10))
    with pytest.raises(ValueError):
        found.settles(LARGE, 10, b"x" * 10)
