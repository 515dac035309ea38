"""What the launcher is asked for: the request to start a process, its checks, and what a credential signs of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from staging.mover.errors import UsageError

MAX_PACKET = 128 << 10
"""Bytes of the largest packet on the launcher's socket."""

ACTION = "launch"
"""The action that a credential must name for the launcher to accept it."""

Kind = Literal["command", "mover"]


def to_bytes(text: str) -> bytes:
    """The bytes that `text` stands for: UTF-8, other bytes as surrogate escapes, whatever the locale is."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """The text that `to_bytes` turns into `data`."""
    return data.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class LaunchRequest:
    """One process to start.

    A "command" is executed; a "mover" is the preloaded mover, called with `argv` as its arguments. `env` is the
    whole environment. `cwd` and `fallback_cwd` are absolute; the second is used where the first does not
    exist. Bytes that are not UTF-8 are surrogate escapes in every text. Raises UsageError.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    fallback_cwd: str | None = None
    umask: int = 0o022
    kind: Kind = "command"

    def __post_init__(self) -> None:
        if self.kind == "command" and not (self.argv and self.argv[0]):
            raise UsageError("there is no command to launch")
        _check_texts(self.argv, "an argument")
        _check_texts((*self.env.keys(), *self.env.values()), "the environment")
        if any(not name or "=" in name for name in self.env):
            raise UsageError("a variable's name in the environment is empty or contains '='")
        directories = [path for path in (self.cwd, self.fallback_cwd) if path is not None]
        _check_texts(directories, "the working directory")
        if not all(path.startswith("/") for path in directories):
            raise UsageError("the working directory is not an absolute path")
        if not 0 <= self.umask <= 0o777:
            raise UsageError("the umask is not within 0 to 0777")

    def to_mapping(self) -> dict[str, Any]:
        """The JSON form; signer and launcher both take the credential's digest over exactly this."""
        return {
            "kind": self.kind,
            "argv": list(self.argv),
            "env": dict(self.env),
            "cwd": self.cwd,
            "fallback_cwd": self.fallback_cwd,
            "umask": self.umask,
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> LaunchRequest:
        """The request that `to_mapping` described; other keys are not looked at. Raises UsageError."""
        kind, argv, env = mapping.get("kind"), mapping.get("argv"), mapping.get("env")
        cwd, fallback_cwd, umask = mapping.get("cwd"), mapping.get("fallback_cwd"), mapping.get("umask")
        if kind not in ("command", "mover"):
            raise UsageError("the kind of process is neither command nor mover")
        if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
            raise UsageError("argv is not a list of strings")
        if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
            raise UsageError("the environment does not map strings to strings")
        if not isinstance(cwd, str) or not isinstance(fallback_cwd, str | None):
            raise UsageError("the working directory is not a string")
        if type(umask) is not int:
            raise UsageError("the umask is not a whole number")
        return cls(tuple(argv), env, cwd, fallback_cwd, umask, kind)


def parse_order(packet: bytes) -> dict[str, Any]:
    """The order in a packet to the launcher, an object whose "id" is a whole number. Raises UsageError."""
    try:
        order = json.loads(packet)
    except (ValueError, RecursionError):
        raise UsageError("a packet is not JSON") from None
    if not isinstance(order, dict) or type(order.get("id")) is not int:
        raise UsageError("a packet is not an object with an id")
    return order


def _check_texts(texts: Iterable[str], what: str) -> None:
    for text in texts:
        if "\0" in text:
            raise UsageError(f"{what} contains a zero byte")
        try:
            to_bytes(text)
        except UnicodeEncodeError:
            raise UsageError(f"{what} contains a surrogate that stands for no byte") from None
