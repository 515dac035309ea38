"""The block map against a plain model: who may claim what, and that nothing is ever left over."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from staging.mover.blockmap import MAX_CLAIMS, BlockMap

streams = st.integers(0, 4)


class Claims(RuleBasedStateMachine):
    """Streams that claim, bring and drop blocks, and die at any time."""

    @initialize(blocks=st.integers(0, 12), stripes=st.integers(1, 4))
    def start(self, blocks: int, stripes: int) -> None:
        self.map = BlockMap(blocks, stripes)
        self.have: set[int] = set()
        self.claims: dict[int, set[int]] = {}

    def free(self) -> list[int]:
        return [b for b in range(self.map.blocks) if b not in self.have and b not in self.claims]

    def finish(self, block: int) -> None:
        assert self.map.add(block) == (block not in self.have)
        self.have.add(block)
        self.claims.pop(block, None)

    @rule(stream=streams, stripe=st.integers(0, 3), duplicate=st.booleans())
    def claim(self, stream: int, stripe: int, duplicate: bool) -> None:
        free = self.free()
        own = [b for b in free if b % self.map.stripes == stripe % self.map.stripes]
        owed = [b for b, who in self.claims.items() if stream not in who and len(who) < MAX_CLAIMS]
        block = self.map.next(stream, stripe, duplicate)
        if own:
            assert block == own[0]
        elif free and not any(stream in who for who in self.claims.values()):
            assert block in free
        elif owed and duplicate:
            fewest = min(len(self.claims[b]) for b in owed)
            assert block == max(b for b in owed if len(self.claims[b]) == fewest)
        else:
            assert block is None
        if block is not None:
            self.claims.setdefault(block, set()).add(stream)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.claims))))

    @precondition(lambda self: self.map.blocks)
    @rule(data=st.data())
    def arrive_unasked_or_again(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.integers(0, self.map.blocks - 1)))

    @precondition(lambda self: self.map.blocks)
    @rule(data=st.data())
    def turn_out_wrong(self, data: st.DataObject) -> None:
        block = data.draw(st.integers(0, self.map.blocks - 1))
        self.map.drop(block)
        self.have.discard(block)

    @rule(stream=streams)
    def die(self, stream: int) -> None:
        self.map.release(stream)
        for block, who in list(self.claims.items()):
            who.discard(stream)
            if not who:
                del self.claims[block]

    @invariant()
    def counts(self) -> None:
        assert self.map.missing == self.map.blocks - len(self.have)
        assert self.map.complete == (len(self.have) == self.map.blocks)
        assert all(len(who) <= MAX_CLAIMS for who in self.claims.values())
        assert [b for b in range(self.map.blocks) if b in self.map] == sorted(self.have)

    def teardown(self) -> None:
        """Whatever happened: once the others have died, one stream gets every block that is missing."""
        if not hasattr(self, "map"):
            return
        for stream in range(5):
            self.map.release(stream)
        missing = self.map.missing
        got = []
        while (block := self.map.next(9, 0)) is not None:
            got.append(block)
            assert self.map.add(block)
        assert len(got) == missing
        assert self.map.complete


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.integers(1, 60), st.integers(1, 4), st.randoms(use_true_random=False))
def test_streams_of_any_speed_share_all_blocks(blocks: int, count: int, random: Random) -> None:
    """Each of `count` streams prefers its stripe and delivers at random times; all but one die midway."""
    have = BlockMap(blocks, count)
    owed: dict[int, list[int]] = {stream: [] for stream in range(count)}
    asked = [0] * blocks
    while not have.complete:
        stream = random.choice(sorted(owed))
        if len(owed) > 1 and have.missing == blocks // 2:
            del owed[stream]
            have.release(stream)
            continue
        block = have.next(stream, stream, duplicate=not owed[stream])
        if block is not None:
            asked[block] += 1
            owed[stream].append(block)
        if owed[stream] and random.random() < 0.5:
            have.add(owed[stream].pop(0))
    assert all(1 <= times < MAX_CLAIMS + count for times in asked)


def test_more_stripes_than_blocks() -> None:
    have = BlockMap(2, 8)
    assert {have.next(0, 7), have.next(1, 7)} == {0, 1}


def test_another_stripe_is_taken_from_block_by_block() -> None:
    """What a feed will have late must not be asked from it while the block's own feed is about to send it."""
    have = BlockMap(8, 2)
    assert [have.next(0, 0) for _ in range(5)] == [0, 2, 4, 6, None]
    for block in (0, 2, 4, 6):
        assert have.next(0, 0) is None
        have.add(block)
    assert [have.next(0, 0), have.next(0, 0)] == [1, None]
    assert [have.next(1, 1) for _ in range(4)] == [3, 5, 7, None]


def test_no_blocks_is_complete() -> None:
    have = BlockMap(0, 2)
    assert have.complete
    assert have.next(0, 0) is None
