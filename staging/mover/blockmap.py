"""Which blocks are here, and which one a stream should ask for next. Pure; the caller holds the lock.

The rule is "next available": a stream takes the first missing block of its own stripe that nobody has
asked for, then, when nothing is owed to it any more, one of any other stripe, and at the very end, when it has been
idle, one that a slower stream still owes. So one slow stream or feed never sets the pace, and a dead one's blocks are
asked for again elsewhere; but no stream asks its feed for what another is about to get sooner.
"""

from __future__ import annotations

MAX_CLAIMS = 2  # how many streams may have asked for the same block at the end


class BlockMap:
    def __init__(self, blocks: int, stripes: int = 1) -> None:
        self.blocks = blocks
        self.stripes = max(1, stripes)
        self._have = bytearray(blocks)
        self._claims: dict[int, set[int]] = {}
        self._cursor = list(range(self.stripes))  # no block of the stripe before it is both missing and unclaimed
        self.missing = blocks

    def __contains__(self, block: int) -> bool:
        return bool(self._have[block])

    @property
    def complete(self) -> bool:
        return self.missing == 0

    def add(self, block: int) -> bool:
        """Mark a block as present; False when it already was."""
        self._claims.pop(block, None)
        if self._have[block]:
            return False
        self._have[block] = 1
        self.missing -= 1
        return True

    def drop(self, block: int) -> None:
        """A block turned out to be wrong: it is missing again."""
        if self._have[block]:
            self._have[block] = 0
            self.missing += 1
            self._rewind(block)

    def next(self, stream: int, stripe: int, duplicate: bool = False) -> int | None:
        """Claim a block for `stream`; None when there is nothing it could usefully ask for now.

        Without `duplicate` only blocks that nobody has asked for; with it also those that another stream still owes,
        the one it will come to last first.
        """
        near = self.stripes == 1 or any(stream in who for who in self._claims.values())
        for offset in range(1 if near else self.stripes):
            block = self._first_free((stripe + offset) % self.stripes)
            if block is not None:
                self._claims[block] = {stream}
                return block
        if not duplicate:
            return None
        owed = [(-len(who), b) for b, who in self._claims.items() if stream not in who and len(who) < MAX_CLAIMS]
        if not owed:
            return None
        block = max(owed)[1]
        self._claims[block].add(stream)
        return block

    def release(self, stream: int) -> None:
        """A stream died: what it had asked for is free again."""
        for block, who in list(self._claims.items()):
            who.discard(stream)
            if not who:
                del self._claims[block]
                self._rewind(block)

    def _first_free(self, stripe: int) -> int | None:
        block = self._cursor[stripe]
        while block < self.blocks and (self._have[block] or block in self._claims):
            block += self.stripes
        self._cursor[stripe] = block
        return block if block < self.blocks else None

    def _rewind(self, block: int) -> None:
        stripe = block % self.stripes
        self._cursor[stripe] = min(self._cursor[stripe], block)
