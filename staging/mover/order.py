"""What binds a mover to its opening order. A module of its own, since commands need it without the mover."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def order_digest(order: Mapping[str, Any]) -> str:
    """Digest of an opening order but for what differs from node to node or is secret."""
    body = {name: value for name, value in order.items() if name not in ("transfer", "key", "host", "root")}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=32).hexdigest()
