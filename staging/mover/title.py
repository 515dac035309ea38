"""What a process is called in `ps -o comm` and for `pgrep -x`, so that an admin sees which part of us it is."""

from __future__ import annotations


def name_process(name: str) -> None:
    """At most 15 characters; a system without /proc keeps the old name."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
    except OSError:
        return
