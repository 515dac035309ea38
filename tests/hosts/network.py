"""The network of a cluster as text: addresses, and what `ip`, `tc` and `nft` are told. Pure.

In a namespace of its own, the switch has a bridge for each network `nic`; host h's port at it is the veth `h-nic`,
whose other end is the host's `ethNIC`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address

UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BUCKET_SECONDS = 0.004  # long enough for a timer that comes late, short enough not to carry a small file at one go
BUCKET_LEAST = 80_000  # bytes: more than a packet before segmentation, or tbf cuts each one up, at much CPU
QUEUE = "100ms"  # with less, one TCP stream does not fill every rate
PER_MILLION = 1_000_000
COPIED = 0x79  # a packet that has been doubled: the copy passes the rules too


class HostsError(Exception):
    """The cluster cannot be made, or was asked for what it cannot do. The text says what is missing."""


@dataclass
class Link:
    """How a host's links behave now. None: no limit, no delay."""

    rate: str | None = None
    loss: str | None = None
    duplicates: str | None = None
    delay: str | None = None
    cut: bool = False

    def faulty(self) -> bool:
        return self.loss is not None or self.duplicates is not None


@dataclass(frozen=True)
class Place:
    """A host's name and its number in the networks; it has `nics` addresses of either kind."""

    name: str
    index: int
    nics: int
    addresses: tuple[str, ...] = field(init=False)
    addresses6: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        low = f"{self.index >> 8}.{self.index & 255}"
        object.__setattr__(self, "addresses", tuple(f"10.{79 + nic}.{low}" for nic in range(self.nics)))
        object.__setattr__(self, "addresses6", tuple(_ula(nic, self.index) for nic in range(self.nics)))

    def ports(self) -> list[str]:
        return [f"{self.name}-{nic}" for nic in range(self.nics)]

    def devices(self) -> list[str]:
        return [f"eth{nic}" for nic in range(self.nics)]


def _ula(nic: int, index: int) -> str:
    return str(IPv6Address(f"fd79:0:0:{nic:x}::{index:x}"))


def bits(rate: str) -> float:
    """'200mbit' in bits per second."""
    return _number(rate, UNITS, "a rate", "200mbit")


def seconds(time: str) -> float:
    """'2ms' in seconds."""
    return _number(time, TIMES, "a time", "2ms")


def share(percent: str) -> float:
    """'1%' as 0.01."""
    value = _number(percent, {"%": 0.01}, "a share", "1%")
    if value > 1:
        raise HostsError(f"{percent!r} is more than all: give a share such as '1%'")
    return value


def _number(text: str, units: dict[str, float] | dict[str, int], what: str, example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z%]+)", text.strip().lower())
    if match is None or match[2] not in units:
        raise HostsError(f"{text!r} is not {what}: give a number and one of {', '.join(units)}, such as {example!r}")
    return float(match[1]) * units[match[2]]


def check(link: Link) -> None:
    """Raise HostsError for a setting that cannot be read."""
    for value, read in ((link.rate, bits), (link.loss, share), (link.duplicates, share), (link.delay, seconds)):
        if value is not None:
            read(value)


def switch_lines(nics: int) -> list[str]:
    """`ip`: the bridges. Without snooping every host gets every group, as on a plain switch."""
    lines = ["link set lo up"]
    for nic in range(nics):
        lines += [f"link add br{nic} type bridge mcast_snooping 0", f"link set br{nic} up"]
    return lines


def cable_lines(place: Place, pid: int) -> list[str]:
    """`ip`, in the switch: links to the host whose init is `pid`, not at the bridges yet.

    A host keeps its hardware addresses when it boots.
    """
    lines = []
    for nic, (port, device) in enumerate(zip(place.ports(), place.devices(), strict=True)):
        mac = f"02:79:00:{nic:02x}:{place.index >> 8:02x}:{place.index & 255:02x}"
        lines += [
            f"link add {port} type veth peer name {device} address {mac} netns {pid}",
            f"link set {port} up",
        ]
    return lines


def host_lines(place: Place) -> list[str]:
    """`ip`, in the host: its addresses."""
    lines = ["link set lo up"]
    for device, address, address6 in zip(place.devices(), place.addresses, place.addresses6, strict=True):
        lines += [
            f"link set {device} up",
            f"addr add {address}/16 broadcast + dev {device}",
            f"addr add {address6}/64 dev {device} nodad",
        ]
    return [*lines, "route add 224.0.0.0/4 dev eth0"]


def rate_lines(devices: list[str], rate: str | None) -> list[str]:
    """`tc`: the token bucket of each of these devices, or none."""
    if rate is None:
        return [f"qdisc replace dev {device} root noqueue" for device in devices]
    burst = max(BUCKET_LEAST, round(bits(rate) / 8 * BUCKET_SECONDS))
    return [f"qdisc replace dev {d} root tbf rate {bits(rate):.0f}bit burst {burst} latency {QUEUE}" for d in devices]


def wire(port: str) -> str:
    """The forwarder's other end when packets of `port` are delayed."""
    return f"{port}w"


def detour_lines(place: Place) -> list[str]:
    """`ip`, in the switch: a second link to take the port's place at the bridge; a forwarder is to join the two."""
    lines = []
    for port in place.ports():
        lines += [
            f"link set {port} nomaster",
            f"link add {wire(port)} type veth peer name {port}b",
            f"link set {port}b up",
            f"link set {wire(port)} up",
        ]
    return lines


def plug_lines(place: Place, detour: bool, cut: bool) -> list[str]:
    """`ip`, in the switch: the host's ports, or those of its detour, are at the bridges, or not.

    Not the state of the bridge's port: the kernel sets that anew when it comes to know that the host's end is up.
    """
    ends = [f"{port}{'b' * detour}" for port in place.ports()]
    return [f"link set {end} {'nomaster' if cut else f'master br{nic}'}" for nic, end in enumerate(ends)]


def segment_lines(devices: list[str]) -> list[str]:
    """`ip`: what leaves these devices is single packets, for faults that are to hit single packets."""
    return [f"link set {device} gso_max_segs 1" for device in devices]


def fault_lines(place: Place, link: Link) -> str:
    """`nft`, in the switch: what is lost or doubled on the way to the host, before its rate limit."""
    table = f"faults_{place.name}"
    text = f"table netdev {table}\ndelete table netdev {table}\n"
    if not link.faulty():
        return text
    text += f"table netdev {table} {{\n"
    for nic, port in enumerate(place.ports()):
        text += f'chain port{nic} {{\ntype filter hook egress device "{port}" priority 0\nmeta mark {COPIED} accept\n'
        for percent, verdict in ((link.loss, "drop"), (link.duplicates, f'meta mark set {COPIED} dup to "{port}"')):
            if percent is not None:
                text += f"numgen random mod {PER_MILLION} < {share(percent) * PER_MILLION:.0f} {verdict}\n"
        text += "}\n"
    return text + "}\n"
