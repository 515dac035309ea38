"""Credentials: what the authority signs for a user, and how a node checks it before it acts as that user.

A token is base64url(claims) "." base64url(signature), both without padding. The claims are canonical JSON (sorted
keys, no blanks, ASCII); the signature over those bytes is RSA-PSS with SHA-256 (RFC 8017) and a 3072-bit key.

The privileged launcher imports this module: keep it to the standard library and `cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cluster import keyfiles
from staging.mover.errors import RefusedError, UsageError

KEY_BITS = 3072

_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
_HASH = hashes.SHA256()
_MAX_ID = 2**32 - 2  # the id above it means "leave as it is" to setuid(2) and its relatives
_AGAIN = "run the command again"
_CLOCKS = "compare this node's clock with the head's"


@dataclass(frozen=True)
class Claims:
    """What is allowed to whom: `action` ("run", "mover") as uid, gid and groups on `nodes`, for one request, once.

    `digest` is the request's (`request_digest`), `issued` and `expires` are seconds since the epoch, `nonce` is 16
    random bytes in hex. Raises UsageError.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    action: str
    nodes: tuple[str, ...]
    digest: str
    issued: float
    expires: float
    nonce: str

    def __post_init__(self) -> None:
        if not all(type(number) is int and 0 <= number <= _MAX_ID for number in (self.uid, self.gid, *self.groups)):
            raise UsageError("an id in the claims is not a user's or a group's")
        if not all(type(word) is str and word for word in (self.action, *self.nodes)):
            raise UsageError("the claims name no action, or a node without a name")
        if not (_is_hex(self.digest, 32) and _is_hex(self.nonce, 16)):
            raise UsageError("the claims' digest or nonce is not hexadecimal of the right length")
        if not all(type(time) in (int, float) and math.isfinite(time) for time in (self.issued, self.expires)):
            raise UsageError("a time in the claims is not a number")


def request_digest(request: Mapping[str, object]) -> str:
    """BLAKE2b-256, in hex, of the request as canonical JSON. Raises UsageError for what JSON cannot hold."""
    try:
        return hashlib.blake2b(_canonical(request), digest_size=32).hexdigest()
    except (TypeError, ValueError) as error:
        raise UsageError(f"the request cannot be signed: {error}") from error


class Authority:
    """Signs claims. Who may have which claims is for its caller to know."""

    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        self._key = private_key

    @classmethod
    def ensure(cls, directory: Path) -> Authority:
        """The authority whose key is in `directory`; `authority.key` and `authority.pub` are made on first use.

        Raises RefusedError where others can use the key, or write to the directory.
        """
        path, public_path = directory / "authority.key", cls.public_key_path(directory)
        keyfiles.own_directory(directory, private=False)
        with keyfiles.locked(directory):
            if not path.exists():
                keyfiles.write(path, _private_pem(rsa.generate_private_key(65537, KEY_BITS)))
            key = _load(path)
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            if not public_path.exists() or keyfiles.read(public_path, private=False) != public:
                keyfiles.write(public_path, public, 0o644)
        return cls(key)

    @staticmethod
    def public_key_path(directory: Path) -> Path:
        return directory / "authority.pub"

    def sign(self, claims: Claims) -> str:
        """The token."""
        body = _canonical(asdict(claims))
        return f"{_encode(body)}.{_encode(self._key.sign(body, _PSS, _HASH))}"


class Verifier:
    """Checks tokens on one node, each good for one use.

    `public_key` is the authority's or the file that holds it; `skew` is the difference of clocks, in seconds, that is
    put up with. A used nonce is remembered for as long as its token would pass, so a restart forgets them all.
    """

    def __init__(self, public_key: rsa.RSAPublicKey | Path, *, skew: float = 30.0) -> None:
        self._key = _load_public(public_key) if isinstance(public_key, Path) else public_key
        self._skew = skew
        self._used: set[str] = set()
        self._by_expiry: list[tuple[float, str]] = []
        self._forgotten = -math.inf  # the latest expiry of a nonce that is no longer in `_used`

    def check(self, token: str, *, action: str, node: str, digest: str, now: float) -> Claims:
        """The claims of a token that allows `action` on `node` for the request with `digest`; RefusedError otherwise.

        `now` is in seconds since the epoch. A token that is refused is not used up.
        """
        claims = self._authentic(token)
        if claims.action != action:
            raise RefusedError(f"the credential is for the action {claims.action!r}, not {action!r}")
        if node not in claims.nodes:
            raise RefusedError(f"the credential is not for node {node}")
        if claims.digest != digest:
            raise RefusedError("the credential is for another request")
        if claims.issued > now + self._skew:
            raise RefusedError("the credential is not valid yet", _CLOCKS)
        self._forget(now)
        # the clock may have been set back since nonces were forgotten
        if claims.expires + self._skew <= now or claims.expires <= self._forgotten:
            raise RefusedError("the credential has expired", f"{_AGAIN}, or {_CLOCKS}")
        if claims.nonce in self._used:
            raise RefusedError("the credential has been used before", _AGAIN)
        self._used.add(claims.nonce)
        heapq.heappush(self._by_expiry, (claims.expires, claims.nonce))
        return claims

    def _authentic(self, token: str) -> Claims:
        try:
            body, signature = map(_decode, token.split("."))
        except ValueError as error:
            raise RefusedError("the credential is malformed") from error
        try:
            self._key.verify(signature, body, _PSS, _HASH)
        except InvalidSignature as error:
            raise RefusedError("the credential's signature is not the authority's") from error
        try:
            return _claims(json.loads(body))
        except (UsageError, ValueError, TypeError) as error:
            raise RefusedError("the credential is malformed: its claims are incomplete or unknown") from error

    def _forget(self, now: float) -> None:
        while self._by_expiry and self._by_expiry[0][0] + self._skew <= now:
            self._forgotten, nonce = heapq.heappop(self._by_expiry)
            self._used.discard(nonce)


def _claims(wire: Any) -> Claims:
    if not isinstance(wire, dict) or wire.keys() != {field.name for field in fields(Claims)}:
        raise ValueError("other claims than expected")
    return Claims(**{**wire, "groups": tuple(wire["groups"]), "nodes": tuple(wire["nodes"])})


def _is_hex(text: object, size: int) -> bool:
    return isinstance(text, str) and re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", text) is not None


def _canonical(value: Mapping[str, object]) -> bytes:
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    if _encode(data) != text:
        raise ValueError("not canonical base64url")  # else one signature would have several texts
    return data


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load(path: Path) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(keyfiles.read(path), None)
    except (ValueError, TypeError) as error:
        raise RefusedError(f"{path} is not a private key", f"delete {path}") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise RefusedError(f"{path} is not an RSA key", f"delete {path}")
    return key


def _load_public(path: Path) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_pem_public_key(keyfiles.read(path, private=False))
    except ValueError as error:
        raise RefusedError(f"{path} is not a public key", "copy the authority's there again") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise RefusedError(f"{path} is not an RSA key", "copy the authority's there again")
    return key
