"""What a stranger may do to a port."""

from __future__ import annotations

import os
import socket
from typing import Any

SECONDS = 15


def throw(family: socket.AddressFamily, address: Any) -> None:
    """Send a megabyte of random bytes and hear the other side out. TimeoutError when it does neither."""
    with socket.socket(family) as sock:
        sock.settimeout(SECONDS)
        sock.connect(address)
        try:
            sock.sendall(os.urandom(1 << 20))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                continue
        except TimeoutError:
            raise
        except OSError:
            return  # it hung up on us, as it may
