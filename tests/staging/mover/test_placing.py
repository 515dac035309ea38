"""Putting a tree under its final names where the trees are deep or many; the rules themselves are in test_target."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from staging.mover.errors import StageError
from staging.mover.placing import place
from staging.mover.trees import remove_tree
from support.movers import few_frames_and_descriptors, make_deep, open_count

DEEP = 100


@pytest.fixture
def tops(tmp_path: Path) -> Iterator[tuple[Path, Path, int, int]]:
    """Directories to place from and into, as paths and as descriptors."""
    staged, parent = tmp_path / "staged", tmp_path / "parent"
    staged.mkdir()
    parent.mkdir()
    before = open_count()
    fds = [os.open(path, os.O_RDONLY) for path in (staged, parent)]
    yield staged, parent, fds[0], fds[1]
    for fd in fds:
        os.close(fd)
    assert open_count() == before
    remove_tree(str(staged))
    remove_tree(str(parent))


def test_very_deep_trees_are_merged(tops: tuple[Path, Path, int, int]) -> None:
    staged, parent, inner, outer = tops
    for top, text in ((staged, "new"), (parent, "old")):
        bottom = make_deep(top / "d", DEEP)
        Path(bottom, "f").write_text(text)
    Path(bottom, "kept").write_text("old")
    with few_frames_and_descriptors():
        merged = place(inner, outer, {"d": "d"}, str(parent))
    assert len(merged) == DEEP
    assert bottom in merged
    assert [Path(bottom, name).read_text() for name in ("f", "kept")] == ["new", "old"]


def test_a_conflict_far_below_leaves_everything_untouched(tops: tuple[Path, Path, int, int]) -> None:
    staged, parent, inner, outer = tops
    for top in (staged, parent):
        bottom = make_deep(top / "d", 50)
        (top / "a").write_text(top.name)
    Path(bottom, "x").write_text("a file")
    os.mkdir(os.path.join(str(staged / "d"), os.path.relpath(bottom, parent / "d"), "x"))
    with pytest.raises(StageError, match="x is no directory here but a directory at the source"):
        place(inner, outer, {"a": "a", "d": "d"}, str(parent))
    assert (parent / "a").read_text() == "parent"
    assert (staged / "a").exists()


def test_a_directory_that_another_transfer_makes_meanwhile_is_merged(
    tops: tuple[Path, Path, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    staged, parent, inner, outer = tops
    (staged / "d" / "e").mkdir(parents=True)
    (staged / "d" / "e" / "f").write_text("ours")
    rename = os.rename

    def late(name: str, final: str, **fds: int) -> None:
        if final == "d":
            (parent / "d" / "e").mkdir(parents=True)
            (parent / "d" / "e" / "g").write_text("theirs")
        rename(name, final, **fds)

    monkeypatch.setattr(os, "rename", late)
    assert place(inner, outer, {"d": "d"}, str(parent)) == {str(parent / "d"), str(parent / "d" / "e")}
    assert [(parent / "d" / "e" / name).read_text() for name in ("f", "g")] == ["ours", "theirs"]


def test_nothing_to_place(tops: tuple[Path, Path, int, int]) -> None:
    staged, parent, inner, outer = tops
    (staged / "not meant").touch()
    assert place(inner, outer, {}, str(parent)) == set()
    assert os.listdir(parent) == []
