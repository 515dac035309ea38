"""Which node of a running tree holds up the others. Pure: progress and `now` in, a name out.

A node is slow when it gets much less than the fastest node does although whoever feeds it has more for it. Of several
slow nodes the one nearest to the source is the cause: those behind it only starve. When a second node with the same
parent is found slow it is the parent that cannot send.

Where a single node gets all from the source there may be nobody faster to compare with. Then the rate that is known
from earlier transfers tells, or, once in a transfer that has long to go, a trial: that node is put aside, and the next
one shows what the source can give.

A pipeline that is still filling looks alike but for the lag: a node behind waits for blocks that its parent has not got
itself. So a lag counts only when it is more than what a parent gets within LAG_REPORTS, and a few blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

WINDOW_REPORTS = 3.2  # over which a rate is taken
LAG_REPORTS = 2  # more than the reports of two nodes may be apart
LAG_BLOCKS = 4
SLOW = 0.4  # of the best rate; a node with two parents of which one has stopped still gets half
PERSIST_SECONDS = 0.4  # for which a node must look slow, so that one late report convicts nobody
SETTLE_SECONDS = 2.0  # after a change, before anybody is judged again
TRIAL_SECONDS = 10.0  # still to go, for a trial to be worth its while
MEMORY_SECONDS = 3.0  # how long a best rate counts: the source itself may become slow


class Pace:
    """Owner of what is known of every node's progress. Times are seconds of any one clock, sizes bytes.

    every: how long a node waits at most before it tells of progress. known: bytes/s that a node has got in an earlier
    transfer, 0 for not known. After `cause` has named a node, `trial` tells whether it was on trial only.
    """

    def __init__(self, total: int, block: int, every: float, now: float, known: float = 0.0) -> None:
        self._total = total
        self._block = block
        self._window = WINDOW_REPORTS * every
        self._apart = LAG_REPORTS * every
        self._started = now
        self._quiet_until = now + self._window
        self._samples: dict[str, deque[tuple[float, int]]] = {}
        self._best: deque[tuple[float, float]] = deque()
        self._known = known
        self._tried = False
        self.trial = False
        self.best = 0.0  # bytes/s, of any node at any time
        self._suspect: tuple[str, float] | None = None  # who looks slow, and since when
        self._judged: set[str] = set()
        self._failed_children: set[str] = set()

    def heard(self, node: str, here: int, now: float) -> None:
        """`node` has `here` bytes."""
        samples = self._samples.setdefault(node, deque())
        samples.append((now, here))
        while len(samples) > 2 and samples[1][0] <= now - self._window:
            samples.popleft()

    def rate(self, node: str, now: float) -> float:
        """Bytes/s over the window that ends now; a node that says nothing gets nothing."""
        samples = self._samples.get(node)
        if not samples:
            return 0.0
        since = max(now - self._window, self._started)
        base = next((here for at, here in reversed(samples) if at <= since), samples[0][1])
        return (samples[-1][1] - base) / max(now - since, 1e-3)

    def cause(self, parents: Mapping[str, Collection[str]], now: float) -> str | None:
        """The node that holds up others and is to feed nobody from now on; None while all is well.

        parents: who feeds whom, in the order of the plan, for every node that does not have everything yet. A name
        that is not among the keys, such as the source, can give whatever it is asked for. A node is named once.
        """
        rates = {node: self.rate(node, now) for node in parents}
        best = self._best_rate(rates, now)
        if now < self._quiet_until:
            return None
        self.best = max(self.best, best)
        self.trial = False
        slack = best * self._apart + LAG_BLOCKS * self._block
        slow = {node for node in parents if rates[node] < SLOW * best and self._lag(node, parents) > slack}
        first = next((n for n in parents if n in slow and not slow & set(parents[n]) and n not in self._judged), None)
        if first is None or self._suspect is None or self._suspect[0] != first:
            self._suspect = None if first is None else (first, now)
            return self._on_trial(parents, best, now) if first is None else None
        if now - self._suspect[1] < PERSIST_SECONDS:
            return None
        self._suspect = None
        self._quiet_until = now + SETTLE_SECONDS
        return self._blame(first, parents)

    def _on_trial(self, parents: Mapping[str, Collection[str]], best: float, now: float) -> str | None:
        fed = [node for node in parents if not any(p in parents for p in parents[node])]
        if self._tried or best <= 0 or len(fed) != 1 or len(parents) < 2 or fed[0] in self._judged:
            return None
        left = (self._total - self._here(fed[0])) / best
        if best >= SLOW * self._known if self._known else left < TRIAL_SECONDS:
            return None
        self._tried = self.trial = True
        self._judged.add(fed[0])
        self._quiet_until = now + SETTLE_SECONDS
        return fed[0]

    def _blame(self, node: str, parents: Mapping[str, Collection[str]]) -> str:
        for parent in sorted(parents[node]):
            if parent in self._failed_children and parent in parents and parent not in self._judged:
                node = parent
                break
        else:
            self._failed_children.update(parents[node])
        self._judged.add(node)
        return node

    def _best_rate(self, rates: Mapping[str, float], now: float) -> float:
        self._best.append((now, max(rates.values(), default=0.0)))
        while self._best[0][0] < now - MEMORY_SECONDS:
            self._best.popleft()
        return max(rate for _, rate in self._best)

    def _lag(self, node: str, parents: Mapping[str, Collection[str]]) -> int:
        """How much more each of its parents has."""
        ahead = min((self._here(p) if p in parents else self._total for p in parents[node]), default=0)
        return ahead - self._here(node)

    def _here(self, node: str) -> int:
        samples = self._samples.get(node)
        return samples[-1][1] if samples else 0
