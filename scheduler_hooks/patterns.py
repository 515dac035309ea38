"""Slurm's filename patterns, as sbatch's --output knows them.

    %j  job id      %u  user         %x  job name
    %N  node name   %n  node rank    %%  a percent sign

Fill a text once only: a second pass would take the percent sign that `%%` left for the start of a pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATTERN = re.compile(r"%(.)", re.DOTALL)


@dataclass(frozen=True)
class Values:
    """What the patterns stand for; `node` and `rank` (from 0) are None where no one node is meant."""

    job_id: str
    user: str
    job_name: str
    node: str | None = None
    rank: int | None = None


def fill(text: str, values: Values) -> str:
    """`text` with its patterns filled in; one that is unknown, or has no value yet, is left as it is."""
    known = {
        "%": "%",
        "j": values.job_id,
        "u": values.user,
        "x": values.job_name,
        "N": values.node,
        "n": None if values.rank is None else str(values.rank),
    }

    def value(match: re.Match[str]) -> str:
        found = known.get(match[1])
        return match[0] if found is None else found

    return _PATTERN.sub(value, text)


def names_node(text: str) -> bool:
    """Whether `text` differs from node to node: it holds %N or %n (and not only %%N)."""
    return any(match[1] in "Nn" for match in _PATTERN.finditer(text))
