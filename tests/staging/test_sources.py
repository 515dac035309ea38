"""staging.sources: what the form of a source means, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from staging.mover.errors import UsageError
from staging.sources import check_sources


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "contents"),
    [
        (["f"], False),
        (["d"], False),
        (["d", "f"], False),
        (["d/"], True),
        (["."], True),
        ([".."], True),
        (["d/."], True),
        (["d/.."], True),
        (["missing"], False),
        (["f/"], True),  # the scan finds that it is no directory
    ],
)
def test_the_form_of_a_source(sources: list[str], contents: bool) -> None:
    assert check_sources(sources, recursive=True) == contents


def test_a_directory_needs_r(here: Path) -> None:
    assert not check_sources(["f", "missing"], recursive=False)
    for name in ("d", "d/", str(here)):
        with pytest.raises(UsageError, match=f"{name} is a directory; give -r"):
            check_sources(["f", name], recursive=False)


@pytest.mark.parametrize("name", ["/", "//", "/usr/.."])
def test_the_whole_file_system_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is the whole file system of this host; name the directories"):
        check_sources([name], recursive=True)


@pytest.mark.parametrize(
    ("sources", "remedy"), [(["f", "d/"], "write d for d itself"), ([".", "f"], "name its directory")]
)
def test_contents_go_alone(sources: list[str], remedy: str) -> None:
    with pytest.raises(UsageError, match=f"which are copied alone; {remedy}"):
        check_sources(sources, recursive=True)
