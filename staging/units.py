"""How sizes, rates, times and names are written for people, and how a size is read from them."""

from __future__ import annotations

import re

from cluster.printing import printable as printable
from staging.mover.errors import UsageError

_PREFIXES = "KMGTPE"
MIN_RATE = 16 << 10
_RATE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?(?:([KMGT])(?:iB)?|B)?(?:/s)?", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]+) ?(?:([KMGTPE])(?:iB)?|B)?", re.IGNORECASE)


def human_bytes(n: float) -> str:
    """A number of bytes in binary units, one decimal.

    >>> human_bytes(512), human_bytes(2048), human_bytes(5 << 30)
    ('512 B', '2.0 KiB', '5.0 GiB')
    >>> human_bytes((1 << 20) - 1)
    '1.0 MiB'
    """
    unit = 0
    # What would be rounded up to 1024 belongs to the next unit.
    while round(n, 1 if unit else 0) >= 1024 and unit < len(_PREFIXES):
        n /= 1024
        unit += 1
    return f"{n:.1f} {_PREFIXES[unit - 1]}iB" if unit else f"{n:.0f} B"


def human_rate(n: float, seconds: float) -> str:
    """`n` bytes in `seconds` as a rate; "-" when there is none to speak of.

    >>> human_rate(3 << 20, 2), human_rate(0, 2), human_rate(5, 0)
    ('1.5 MiB/s', '-', '-')
    """
    return f"{human_bytes(n / seconds)}/s" if n > 0 and seconds > 0 else "-"


def human_seconds(s: float) -> str:
    """A duration, with as many digits as matter.

    >>> human_seconds(0.0421), human_seconds(12.34), human_seconds(185)
    ('0.04 s', '12.3 s', '3m 05s')
    >>> human_seconds(3725), human_seconds(183600)
    ('1h 02m', '2d 03h')
    """
    if round(s, 2) < 10:
        return f"{s:.2f} s"
    if round(s, 1) < 60:
        return f"{s:.1f} s"
    whole = round(s)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def parse_size(text: str) -> int:
    """A size in bytes; K, M, G, T, P, E and KiB, MiB, ... are powers of 1024. Anything else: UsageError.

    >>> parse_size("4096"), parse_size("64K"), parse_size("2GiB")
    (4096, 65536, 2147483648)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{printable(text)!r} is not a size", "write it as 4096, 64K, 1M or 2GiB (powers of 1024)")
    digits, prefix = match.groups()
    if len(digits) > 20:
        raise UsageError(f"the size {digits[:20]}... is too large", "no file is larger than 8E")
    return int(digits) * (1024 ** (_PREFIXES.index(prefix.upper()) + 1) if prefix else 1)


def parse_rate(text: str) -> int:
    """A rate in bytes per second, written as a size is, decimals and "/s" allowed; 0 is no limit. UsageError otherwise.

    Rates below 16 KiB/s are refused: whoever writes 5000 as for rsync means KiB, and connections would seem dead.

    >>> parse_rate("100M"), parse_rate("1.5 MiB/s"), parse_rate("0")
    (104857600, 1572864, 0)
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{printable(text)!r} is not a rate", "write bytes per second, as 500K, 100M or 1.5G")
    number, prefix = match.groups()
    rate = round(float(number) * (1024 ** (_PREFIXES.index(prefix.upper()) + 1) if prefix else 1))
    if 0 < rate < MIN_RATE:
        hint = "" if prefix else f", or {number}K for KiB/s"
        raise UsageError(f"{printable(text)} is {rate} bytes/s, too slow", f"give at least 16K{hint}")
    return rate
