"""For one node of benchmarks.faults, by its PYTHONPATH: a mover that flips a bit in every block that it serves."""

from staging.mover import serve, wire


def _send_block(conversation: serve._Conversation, block: int) -> None:
    digest, data = conversation._replica.digest_of(block)
    flipped = bytearray(conversation._replica.read(block) if data is None else data)
    flipped[0] ^= 1
    conversation._send(wire.BLOCK, block, flipped, digest)  # under the MAC of the right bytes


serve._Conversation._send_block = _send_block  # type: ignore[method-assign,assignment]
