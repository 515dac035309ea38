"""Every host's links: how they are to be, and making them so, also while the cluster runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tests.hosts import network
from tests.hosts.host import Host
from tests.hosts.network import Link
from tests.hosts.switch import Switch, Talk


@dataclass
class Forwarder:
    """The process that delays a host's packets."""

    pid: int
    talk: Talk


class Links:
    """The one owner of the links' settings. They outlive a crash of the host, as settings of a switch do."""

    def __init__(self, switch: Switch, hosts: Iterable[Host], first: Link) -> None:
        network.check(first)
        self._switch = switch
        self._hosts = list(hosts)
        self._links = {host.name: replace(first) for host in self._hosts}
        self._forwarders: dict[str, Forwarder] = {}
        self._segmented = first.faulty()

    def forwarders(self) -> list[int]:
        """The pids of the processes that delay packets."""
        return [forwarder.pid for forwarder in self._forwarders.values()]

    def host_setup(self, host: Host) -> dict[str, list[str]]:
        """What a host that boots tells `ip` and `tc`."""
        devices, rate = host.place.devices(), self._links[host.name].rate
        segment = network.segment_lines(devices) if self._segmented else []
        limits = network.rate_lines(devices, rate) if rate else []
        return {"ip": network.host_lines(host.place) + segment, "tc": limits}

    def connect(self, hosts: list[Host]) -> None:
        """Links to the switch for hosts that have none yet."""
        links = [(host, self._links[host.name]) for host in hosts]
        self._switch.batch(
            "ip", (line for host in hosts for line in network.cable_lines(host.place, host.process()[0]))
        )
        self._switch.batch(
            "tc", (line for h, link in links if link.rate for line in network.rate_lines(h.place.ports(), link.rate))
        )
        self._switch.filter("".join(network.fault_lines(host.place, link) for host, link in links if link.faulty()))
        for host, link in links:
            if link.delay:
                self._start_forwarder(host, network.seconds(link.delay))
        self._plug(hosts)

    def disconnect(self, host: Host) -> None:
        """Take a host's links away for good."""
        self._end_forwarder(host)
        self._switch.batch("ip", (f"link del {port}" for port in host.place.ports()))

    def stop(self) -> None:
        for forwarder in self._forwarders.values():
            forwarder.talk.close()
        self._forwarders.clear()

    def rate(self, host: Host, rate: str | None) -> None:
        link = self._changed(host, rate=rate)
        if host.pid is not None:
            self._switch.batch("tc", network.rate_lines(host.place.devices(), link.rate), host)
            self._switch.batch("tc", network.rate_lines(host.place.ports(), link.rate))

    def loss(self, host: Host, share: str | None) -> None:
        self._set_faults(host, self._changed(host, loss=share))

    def duplicates(self, host: Host, share: str | None) -> None:
        self._set_faults(host, self._changed(host, duplicates=share))

    def delay(self, host: Host, time: str | None) -> None:
        self._changed(host, delay=time)
        if host.pid is None:
            return
        known = self._forwarders.get(host.name)
        if time is None:
            self._end_forwarder(host)
            self._plug([host])
        elif known is not None:
            known.talk.say({"delay": network.seconds(time)})
        else:
            self._start_forwarder(host, network.seconds(time))
            self._plug([host])

    def cut(self, host: Host, cut: bool) -> None:
        self._links[host.name].cut = cut
        if host.pid is not None:
            self._plug([host])

    def _changed(self, host: Host, **settings: Any) -> Link:
        link = self._links[host.name]
        wanted = replace(link, **settings)
        network.check(wanted)
        self._links[host.name] = wanted
        return wanted

    def _set_faults(self, host: Host, link: Link) -> None:
        if link.faulty() and not self._segmented:
            self._segmented = True
            for sender in self._hosts:
                if sender.pid is not None:
                    self._switch.batch("ip", network.segment_lines(sender.place.devices()), sender)
        if host.pid is not None:
            self._switch.filter(network.fault_lines(host.place, link))

    def _plug(self, hosts: list[Host]) -> None:
        """Have these hosts at the bridges, but not those that are cut off."""
        every = ((host.place, host.name in self._forwarders, self._links[host.name].cut) for host in hosts)
        self._switch.batch("ip", (line for state in every for line in network.plug_lines(*state)))

    def _start_forwarder(self, host: Host, delay: float) -> None:
        self._switch.batch("ip", network.detour_lines(host.place))
        pairs = [[port, network.wire(port)] for port in host.place.ports()]
        talk = self._switch.fork(f"the forwarder of {host.name}", {"forward": pairs, "delay": delay})
        self._forwarders[host.name] = Forwarder(int(talk.hear("pid")), talk)

    def _end_forwarder(self, host: Host) -> None:
        forwarder = self._forwarders.pop(host.name, None)
        if forwarder is not None:
            forwarder.talk.close()
            self._switch.batch("ip", (f"link del {network.wire(port)}" for port in host.place.ports()))
