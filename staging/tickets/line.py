"""The order in which the waiting tickets of one class are served; the rule is told in `staging.tickets.queue`. Pure."""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import Counter


class Line:
    """The order of one class, over users and sequence numbers (asked first = lower).

    A change costs a few binary searches and memory moves; a position one pass over the edges, and one over
    the users who wait where its level is not cached.
    """

    def __init__(self, places: int, per_user: int | None) -> None:
        self._places = places
        self._share = places if per_user is None else min(per_user, places)
        self._busy = 0
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, list[int]] = {}  # user -> sequence numbers, ascending, never empty
        self._turns: list[tuple[int, int, str]] = []  # (running, first waiting, user), sorted
        # A user with r running and n waiting has one ticket on each level from r up to r+n: +1 at the edge r,
        # -1 at the edge r+n. Users share edges, so there are few: distinct queue lengths take many tickets.
        self._edges: Counter[int] = Counter()
        self._levels: dict[int, list[int]] = {}  # cache: level -> its sequence numbers, ascending

    def _count(self, user: str, sign: int) -> None:
        """Enter a user's share in the order (sign 1), or take it out (-1) before it is changed."""
        queue = self._waiting.get(user)
        if not queue:
            return
        low = self._running[user]
        for level, step in ((low, sign), (low + len(queue), -sign)):
            self._edges[level] += step
            if not self._edges[level]:
                del self._edges[level]
        turn = (low, queue[0], user)
        if sign > 0:
            insort(self._turns, turn)
        else:
            del self._turns[bisect_left(self._turns, turn)]

    def _change(self, user: str, *, starts: int = 0, add: int | None = None, drop: int | None = None) -> None:
        self._count(user, -1)
        self._busy += starts
        self._running[user] += starts
        if not self._running[user]:
            del self._running[user]
        queue = self._waiting.setdefault(user, [])
        if add is not None:
            queue.append(add)
        if drop is not None:
            del queue[bisect_left(queue, drop)]
        if not queue:
            del self._waiting[user]
        self._count(user, 1)

    def add(self, user: str, seq: int) -> None:
        """A ticket begins to wait; `seq` is higher than any before."""
        self._change(user, add=seq)
        level = self._running[user] + len(self._waiting[user]) - 1
        if level in self._levels:
            self._levels[level].append(seq)

    def drop(self, user: str, seq: int) -> None:
        """A ticket no longer waits, and got no place."""
        self._change(user, drop=seq)
        self._levels.clear()

    def release(self, user: str) -> None:
        """A copy of this user no longer runs."""
        self._change(user, starts=-1)
        if user in self._waiting:
            self._levels.clear()

    def give(self) -> int | None:
        """Give a free place to the first in order: its sequence number, None without a place or a taker."""
        if self._busy >= self._places or not self._turns or self._turns[0][0] >= self._share:
            return None
        level, seq, user = self._turns[0]
        self._change(user, starts=1, drop=seq)
        if level in self._levels:  # the user's other tickets keep their levels: one less waits, one more runs
            self._levels[level].pop(0)
        return seq

    def position(self, user: str, seq: int) -> int:
        """Counts those on lower levels, those asked earlier on its own level, and itself."""
        level = self._running[user] + bisect_left(self._waiting[user], seq)
        if level not in self._levels:
            found = ((queue, level - self._running[name]) for name, queue in self._waiting.items())
            self._levels[level] = sorted(queue[k] for queue, k in found if 0 <= k < len(queue))
        below = sum((level - edge) * step for edge, step in self._edges.items() if edge < level)
        return below + bisect_left(self._levels[level], seq) + 1

    def order(self) -> list[int]:
        """Those waiting, first the one at position 1."""
        levels = (enumerate(queue, self._running[user]) for user, queue in self._waiting.items())
        return [seq for _, seq in sorted(itertools.chain.from_iterable(levels))]
