"""Who a copy goes to: words, node sets, addresses and host files, as names of a cluster's nodes. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from cluster.nodes import fold, parse
from staging.mover.errors import UsageError

Known = Mapping[str, str]  # name to address

_COMMA = re.compile(r",(?![^\[]*\])")  # outside brackets
_REMOTE = re.compile(r"([^/:]+):(/.*)")  # scp's way to name a place


def split_hosts(words: Sequence[str], known: Known) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tell `SRC... DEST` from the `HOST...` that follow: hosts are the longest run of node names at the end."""
    remote = _REMOTE.fullmatch(words[-1]) if len(words) == 2 else None
    if remote:
        raise UsageError("a host follows its path", f"write pcp {words[0]} {remote[2]} {remote[1]}")
    _enough(words, 3)
    hosts: list[str] = []
    rest = list(words)
    while len(rest) > 2:
        try:
            hosts = [*expand(rest[-1], known), *hosts]
        except UsageError:
            if not hosts and _canonical(rest[-1]) in map(_canonical, known.values()):
                raise  # one that several nodes share
            break
        rest.pop()
    if not hosts:
        raise UsageError(f"{words[-1]!r} is no node of this cluster", _where_hosts_stand(words, known))
    return tuple(rest), tuple(dict.fromkeys(hosts))


def choose_hosts(
    words: Sequence[str], known: Known, named: Sequence[str] = (), excluded: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`SRC... DEST` and the nodes: those in `named` (then no host follows DEST) or at the end, but for `excluded`.

    A node set in `excluded` may hold nodes that are not of this cluster. UsageError where no node is left.
    """
    if named:
        _enough(words, 2)
        rest = tuple(words)
        hosts = tuple(dict.fromkeys(name for word in named for name in expand(word, known)))
    else:
        rest, hosts = split_hosts(words, known)
    out = {name for word in excluded for name in _names(word, known)}
    left = tuple(name for name in hosts if name not in out)
    if not left:
        raise UsageError(f"no node is left of {fold(hosts)} without {','.join(excluded)}", "look at -x")
    _check_dest(rest, known)
    return rest, left


def expand(word: str, known: Known) -> list[str]:
    """The nodes of a node set in which addresses may stand for names, IPv6 ones plain or in brackets."""
    names = _names(word, known)
    for name in names:
        if name not in known:
            raise UsageError(f"{name!r} is no node of this cluster", _those(known))
    return names


def read_host_file(text: str) -> list[str]:
    """The node sets in a host file: separated by blanks or newlines; `#` begins a comment."""
    return [word for line in text.splitlines() for word in line.partition("#")[0].split()]


def _names(word: str, known: Known) -> list[str]:
    """Names and, where they are no node's, addresses, in the order in which they are written."""
    by_address: dict[str, list[str]] = {}
    for name, address in known.items():
        by_address.setdefault(_canonical(address), []).append(name)
    pieces = [word] if _canonical(word) in by_address else _COMMA.split(word)
    literal = [piece for piece in pieces if ":" in piece or _canonical(piece) in by_address]
    rest = ",".join(piece for piece in pieces if piece not in literal)
    found: list[str] = []
    for name in [*(parse(rest) if rest or not literal else ()), *literal]:
        at = by_address.get(_canonical(name), []) if name not in known else [name]
        if len(at) > 1:
            raise UsageError(f"{name} is the address of {fold(at)}", "give the node's name")
        found += at or [name]
    return found


def _canonical(address: str) -> str:
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return address


def _enough(words: Sequence[str], least: int) -> None:
    if len(words) < least:
        raise UsageError("pcp needs a source, a destination and at least one host", "write pcp SRC... DEST HOST...")
    if not all(words):
        raise UsageError("an empty word is no path and no host", "look at the variables on the command line")


def _check_dest(words: Sequence[str], known: Known) -> None:
    dest = words[-1]
    if dest.startswith("/"):
        return
    if dest in known:
        raise UsageError(f"no destination stands before the host {dest}", f"write pcp SRC... /scratch/ {dest}")
    remote = _REMOTE.fullmatch(dest)
    if remote:
        raise UsageError(f"{dest!r} names a host and a path at once", f"write {remote[2]}, and {remote[1]} as the host")
    if "/" not in dest and len(words) > 2 and words[-2].startswith("/"):
        raise UsageError(f"{dest!r} is no node of this cluster", _those(known))
    raise UsageError(
        f"the destination {dest!r} is no absolute path", f"write /scratch/{dest.lstrip('~./')} or the like"
    )


def _where_hosts_stand(words: Sequence[str], known: Known) -> str:
    remote = _REMOTE.fullmatch(words[-1])
    if remote:
        return f"write pcp {' '.join(words[:-1])} {remote[2]} {remote[1]}"
    hosts = [word for word in words[1:] if word in known]
    if hosts:
        rest = [word for word in words if word not in hosts]
        return f"hosts stand last: pcp {' '.join([*rest, *hosts])}"
    if "/" in words[-1]:
        return f"hosts stand last: pcp {' '.join(words)} {next(iter(known), 'HOST...')}"
    return _those(known)


def _those(known: Iterable[str]) -> str:
    names = list(known)
    return f"write pcp SRC... DEST HOST..., with hosts out of {fold(names)}" if names else "start some nodes"
