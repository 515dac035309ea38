from __future__ import annotations
import base64, hashlib, json, os, secrets
from collections.abc import Mapping
from dataclasses import dataclass, asdict
from pathlib import Path
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from staging.mover.errors import RefusedError
@dataclass(frozen=True)
class Claims:
    uid: int
    gid: int
    groups: tuple[int, ...]
    action: str
    nodes: tuple[str, ...]
    digest: str
    issued: float
    expires: float
    nonce: str
def request_digest(request: Mapping[str, object]) -> str:
    return hashlib.blake2b(json.dumps(request, sort_keys=True, separators=(",", ":")).encode(), digest_size=32).hexdigest()
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
class Authority:
    def __init__(self, key): self._key = key
    @classmethod
    def ensure(cls, directory: Path):
        directory.mkdir(exist_ok=True, mode=0o700)
        p = directory / "authority.key"
        if not p.exists():
            key = rsa.generate_private_key(65537, 3072)
            (directory / "authority.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
            p.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return cls(serialization.load_pem_private_key(p.read_bytes(), None))
    @staticmethod
    def public_key_path(directory: Path) -> Path: return directory / "authority.pub"
    def sign(self, claims: Claims) -> str:
        body = json.dumps(asdict(claims), sort_keys=True).encode()
        return base64.urlsafe_b64encode(body).decode() + "." + base64.urlsafe_b64encode(self._key.sign(body, PSS, hashes.SHA256())).decode()
class Verifier:
    def __init__(self, path, *, skew=30.0): self._key = serialization.load_pem_public_key(Path(path).read_bytes())
    def check(self, token, *, action, node, digest, now) -> Claims:
        b, s = (base64.urlsafe_b64decode(x) for x in token.split("."))
        self._key.verify(s, b, PSS, hashes.SHA256())
        d = json.loads(b); d["groups"] = tuple(d["groups"]); d["nodes"] = tuple(d["nodes"])
        c = Claims(**d)
        if c.action != action or node not in c.nodes or c.digest != digest: raise RefusedError("no")
        return c
