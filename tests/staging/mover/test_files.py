"""The open files of a replica: few at once, shared, and never closed under their user."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from staging.mover.files import OpenFiles


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


class Opener:
    """Opens files named by number; counts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: list[int] = []
        for number in range(12):
            (directory / str(number)).write_text(str(number))

    def __call__(self, entry: int) -> int:
        self.calls.append(entry)
        return os.open(self.directory / str(entry), os.O_RDONLY)


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    before = open_count()
    yield Opener(tmp_path)
    assert open_count() == before


def test_a_file_is_opened_once(opener: Opener) -> None:
    files = OpenFiles(opener, limit=2)
    with files.use(1) as first:
        pass
    with files.use(1) as again, files.use(1) as shared:
        assert first == again == shared
    assert opener.calls == [1]
    files.close()


def test_the_least_recently_used_is_closed(opener: Opener) -> None:
    files = OpenFiles(opener, limit=2)
    for entry in (1, 2, 1, 3, 1):
        with files.use(entry):
            pass
    assert opener.calls == [1, 2, 3]
    with files.use(2):
        pass
    assert opener.calls == [1, 2, 3, 2]
    files.close()


def test_more_in_use_than_the_limit(opener: Opener) -> None:
    before = open_count()
    files = OpenFiles(opener, limit=2)
    with ExitStack() as stack:
        fds = [stack.enter_context(files.use(entry)) for entry in range(10)]
        assert [os.pread(fd, 9, 0).decode() for fd in fds] == [str(entry) for entry in range(10)]
    assert open_count() - before == 2
    files.close()


def test_the_one_in_use_survives_others(opener: Opener) -> None:
    files = OpenFiles(opener, limit=1)
    with files.use(0) as held:
        for entry in range(1, 6):
            with files.use(entry):
                pass
        assert os.pread(held, 9, 0) == b"0"
    files.close()


def test_an_error_of_the_opener_leaves_nothing(opener: Opener) -> None:
    files = OpenFiles(opener, limit=1)
    with pytest.raises(FileNotFoundError), files.use(99):
        pass
    with files.use(3) as fd:
        assert os.pread(fd, 9, 0) == b"3"
    files.close()


def test_an_error_of_the_user_gives_the_file_back(opener: Opener) -> None:
    before = open_count()
    files = OpenFiles(opener, limit=1)
    for entry in range(4):
        with pytest.raises(ZeroDivisionError), files.use(entry):
            raise ZeroDivisionError
    assert open_count() - before == 1
    files.close()


def test_threads_always_read_their_own_file(opener: Opener) -> None:
    files = OpenFiles(opener, limit=2)
    wrong: list[tuple[int, bytes]] = []

    def work(start: int) -> None:
        for step in range(300):
            entry = (start + step * 5) % 12
            with files.use(entry) as fd:
                if (got := os.pread(fd, 9, 0)) != str(entry).encode():
                    wrong.append((entry, got))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    files.close()
