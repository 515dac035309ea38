"""Walking, measuring and removing whole trees, also such as are deeper than the interpreter's stack."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from staging.mover.trees import below, bytes_held, remove_tree
from support.movers import few_frames_and_descriptors, make_deep, make_odd_tree, unprivileged, write_sparse


def test_all_that_is_below(tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "top")
    found = [entry.path for entry in below(str(tmp_path))]
    assert sorted(found) == sorted(str(path) for path in tmp_path.rglob("*"))
    assert all(
        found.index(str(Path(path).parent)) < at for at, path in enumerate(found) if Path(path).parent != tmp_path
    )


def test_bytes_held_are_those_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 100_000)
    write_sparse(tmp_path / "sparse", 1 << 30, {0: b"x"})
    (tmp_path / "away").symlink_to("/")
    assert 100_000 <= bytes_held(str(tmp_path)) < 150_000


def test_a_tree_goes_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("kept")
    make_odd_tree(tmp_path / "top")
    (tmp_path / "top" / "closed").chmod(0o755)
    (tmp_path / "top" / "away").symlink_to("../outside")
    remove_tree(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside" / "f").read_text() == "kept"


def test_a_very_deep_tree_goes(tmp_path: Path) -> None:
    make_deep(tmp_path / "top", 100)
    with few_frames_and_descriptors():
        assert bytes_held(str(tmp_path / "top")) == 0
        remove_tree(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_tree_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept")
    remove_tree(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_removed_is_left() -> None:
    with unprivileged() as top:
        make_odd_tree(top / "tree")  # one directory in it is closed
        remove_tree(str(top / "tree"))
        assert (top / "tree" / "closed" / "inside").exists()
