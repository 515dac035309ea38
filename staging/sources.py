"""The sources of a copy as a command line names them: what their form means, and what is refused before the start."""

from __future__ import annotations

import os
from collections.abc import Sequence

from staging.mover.errors import UsageError


def check_sources(sources: Sequence[str], recursive: bool) -> bool:
    """Whether the contents of the one source are meant (`d/`, `.`, `..`), as for rsync, rather than the source itself.

    Raises UsageError for a directory without -r, contents beside other sources, and the whole file system.
    """
    for source in sources:
        if os.path.isdir(source) and not recursive:
            raise UsageError(f"{source} is a directory", "give -r to copy it with all that is in it")
        if os.path.realpath(source) == "/":
            raise UsageError(f"{source} is the whole file system of this host", "name the directories to copy")
    inside = [source for source in sources if os.path.basename(source) in ("", ".", "..")]
    if inside and len(sources) > 1:
        name = os.path.basename(os.path.abspath(inside[0]))
        remedy = f"write {inside[0].rstrip('/')} for {name} itself" if inside[0].endswith("/") else "name its directory"
        raise UsageError(f"{inside[0]} means the contents of {name}, which are copied alone", remedy)
    return bool(inside)
