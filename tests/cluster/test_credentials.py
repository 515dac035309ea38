import base64
import dataclasses
import json
import math
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster import credentials
from cluster.credentials import Authority, Claims, Verifier, request_digest
from staging.mover.errors import RefusedError, SourceError, UsageError

KEY = rsa.generate_private_key(65537, 1024)  # short: made and used quickly
FOREIGN_KEY = rsa.generate_private_key(65537, 1024)
AUTHORITY = Authority(KEY)
DIGEST = request_digest({"argv": ["hostname"], "uid": 1000})
CLAIMS = Claims(
    uid=1000,
    gid=100,
    groups=(100, 20),
    action="run",
    nodes=("n1", "n2"),
    digest=DIGEST,
    issued=1000.0,
    expires=1060.0,
    nonce="00112233445566778899aabbccddeeff",
)
TOKEN = AUTHORITY.sign(CLAIMS)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def check(token: str, verifier: Verifier | None = None, **asked: Any) -> Claims:
    verifier = verifier or Verifier(KEY.public_key())
    return verifier.check(token, **{"action": "run", "node": "n1", "digest": DIGEST, "now": 1001.0, **asked})


def nonce(number: int) -> str:
    return f"{number:032x}"


def signed(body: bytes, key: rsa.RSAPrivateKey = KEY) -> str:
    """A token over any body, as only the key's holder could make it."""
    signature = key.sign(body, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (body, signature))


def test_a_good_token_gives_its_claims() -> None:
    assert check(TOKEN) == CLAIMS
    assert check(TOKEN, node="n2") == CLAIMS


def test_the_format_is_the_documented_one() -> None:
    body = TOKEN.split(".")[0]
    assert base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)) == (
        b'{"action":"run","digest":"%s","expires":1060.0,"gid":100,"groups":[100,20],"issued":1000.0,'
        b'"nodes":["n1","n2"],"nonce":"00112233445566778899aabbccddeeff","uid":1000}' % DIGEST.encode()
    )
    assert check(signed(json.dumps(dataclasses.asdict(CLAIMS)).encode())) == CLAIMS


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"action": "mover"}, "for the action 'run', not 'mover'"),
        ({"node": "n3"}, "not for node n3"),
        ({"node": "n"}, "not for node n"),
        ({"digest": request_digest({})}, "for another request"),
        ({"now": 969.9}, "not valid yet"),
        ({"now": 1090.0}, "has expired"),
    ],
)
def test_each_refusal_has_its_own_reason(asked: dict[str, Any], reason: str) -> None:
    verifier = Verifier(KEY.public_key())
    with pytest.raises(RefusedError, match=reason) as caught:
        check(TOKEN, verifier, **asked)
    assert "\n" not in str(caught.value)
    assert check(TOKEN, verifier) == CLAIMS  # what was refused was not used up


def test_clocks_may_differ_by_the_skew() -> None:
    check(TOKEN, now=970.0)
    check(TOKEN, now=1089.9)
    exact = Verifier(KEY.public_key(), skew=0)
    for now in (999.9, 1060.0):
        with pytest.raises(RefusedError):
            check(TOKEN, exact, now=now)
    check(TOKEN, exact, now=1000.0)


def test_another_authority_is_refused() -> None:
    with pytest.raises(RefusedError, match="signature"):
        check(Authority(FOREIGN_KEY).sign(CLAIMS))
    with pytest.raises(RefusedError, match="signature"):
        check(signed(b"{}", FOREIGN_KEY))


changed_claims: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"uid": 0},
        {"gid": 0},
        {"groups": (0,)},
        {"action": "mover"},
        {"nodes": ("n1", "n2", "n3")},
        {"digest": request_digest({})},
        {"issued": 0.0},
        {"expires": 1e12},
        {"nonce": nonce(1)},
    ]
)
OTHER_TOKEN = AUTHORITY.sign(dataclasses.replace(CLAIMS, nonce=nonce(2)))


@st.composite
def altered(draw: st.DrawFn) -> str:
    """A token that the authority did not make, close to one that it did."""
    body, signature = TOKEN.split(".")
    other_body, other_signature = OTHER_TOKEN.split(".")
    at = draw(st.integers(0, len(TOKEN) - 1))
    odd = st.sampled_from([*ALPHABET, *".=+/ \n\0é\udcff"])
    match draw(st.integers(0, 7)):
        case 0 | 1:
            return TOKEN[:at] + str(draw(odd)) + TOKEN[at + 1 :]
        case 2:
            return TOKEN[:at] + str(draw(odd)) + TOKEN[at:]
        case 3:
            return TOKEN[:at] + TOKEN[at + draw(st.integers(1, 8)) :]
        case 4:
            parts = draw(st.lists(st.sampled_from([body, signature, other_body, other_signature, ""]), max_size=4))
            return ".".join(parts)
        case 5:
            claims = dataclasses.replace(CLAIMS, **draw(changed_claims))
            return AUTHORITY.sign(claims).split(".")[0] + "." + signature
        case 6:
            raw = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
            raw[at % len(raw)] ^= 1 << draw(st.integers(0, 7))
            return body + "." + base64.urlsafe_b64encode(raw).decode().rstrip("=")
        case _:
            return draw(st.text(max_size=40))


@settings(max_examples=400)
@given(altered())
@example(TOKEN + "=")
@example(TOKEN + "\n")
@example(TOKEN.replace(".", "=."))
def test_altered_tokens_are_refused(token: str) -> None:
    if token in (TOKEN, OTHER_TOKEN):
        return
    with pytest.raises(RefusedError, match=r"malformed|signature"):
        check(token)


def test_no_two_texts_stand_for_one_token() -> None:
    # the last character of a base64 text may hold bits that decoding ignores
    for char in ALPHABET.replace(TOKEN[-1], ""):
        with pytest.raises(RefusedError, match=r"malformed|signature"):
            check(TOKEN[:-1] + char)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b"{}",
        b"\xff",
        *(
            json.dumps({**dataclasses.asdict(CLAIMS), **change}).encode()
            for change in (
                {"more": 1},
                {"uid": "0"},
                {"uid": True},
                {"uid": -1},
                {"gid": 2**32 - 1},
                {"groups": None},
                {"groups": ["wheel"]},
                {"nodes": [1]},
                {"nodes": [""]},
                {"action": ""},
                {"digest": "00"},
                {"nonce": None},
                {"issued": "now"},
                {"expires": math.inf},
                {"expires": math.nan},
            )
        ),
    ],
)
def test_signed_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError, match="malformed"):
        check(signed(body))


def test_impossible_claims_are_not_made() -> None:
    changes: list[dict[str, Any]] = [{"uid": 2**32 - 1}, {"nonce": "00"}, {"expires": math.nan}, {"action": ""}]
    for change in changes:
        with pytest.raises(UsageError):
            dataclasses.replace(CLAIMS, **change)


def test_a_replay_is_refused_until_the_token_has_expired() -> None:
    verifier = Verifier(KEY.public_key())
    check(TOKEN, verifier)
    check(OTHER_TOKEN, verifier)
    for now in (1001.0, 1089.9):
        with pytest.raises(RefusedError, match="used before"):
            check(TOKEN, verifier, now=now)
    with pytest.raises(RefusedError, match="expired"):
        check(TOKEN, verifier, now=1090.0)
    with pytest.raises(RefusedError, match="expired"):  # the clock was set back after the nonce was forgotten
        check(TOKEN, verifier, now=1001.0)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 200)), max_size=8))
def test_a_nonce_is_remembered_exactly_as_long_as_its_token_would_pass(uses: list[tuple[float, int]]) -> None:
    verifier = Verifier(KEY.public_key(), skew=10)
    now, live = 1000.0, dict[str, tuple[float, str]]()
    for number, (pause, lifetime) in enumerate(uses):
        now += pause
        claims = dataclasses.replace(CLAIMS, issued=now, expires=now + lifetime, nonce=nonce(number))
        token = AUTHORITY.sign(claims)
        check(token, verifier, now=now)
        live = {key: value for key, value in live.items() if value[0] + 10 > now}
        live[claims.nonce] = (claims.expires, token)
        assert verifier._used == set(live)
        assert len(verifier._by_expiry) == len(live)
        for _, old in live.values():
            with pytest.raises(RefusedError, match="used before"):
                check(old, verifier, now=now)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_the_digest_survives_the_wire_and_ignores_the_order(request: dict[str, object]) -> None:
    digest = request_digest(request)
    assert request_digest(json.loads(json.dumps(dict(reversed(request.items())), indent=1))) == digest
    assert request_digest({**request, "more": 1}) != request_digest({**request, "more": 2})


def test_the_digest_is_the_documented_one() -> None:
    # b2sum -l 256 of {"a":["\udcff",1],"b":null}
    assert request_digest({"b": None, "a": ("\udcff", 1)}) == (
        "459e3121ccbd24efad392d23e236469bc78fdc2f69cf66faf2df2787406f6aaf"
    )


def test_what_json_cannot_hold_has_no_digest() -> None:
    for value in (math.nan, object(), b"bytes"):
        with pytest.raises(UsageError):
            request_digest({"value": value})


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which an authority was made, by eight first uses at the same time and with no umask."""
    directory = tmp_path_factory.mktemp("authority") / "keys"
    together = threading.Barrier(8)

    def first_use(_: int) -> str:
        together.wait(10)
        return Authority.ensure(directory).sign(CLAIMS)

    old = os.umask(0)
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(first_use, range(8)))
    os.umask(old)
    for token in tokens:
        check(token, Verifier(Authority.public_key_path(directory)))
    return directory


def test_the_authority_is_made_once_and_its_key_is_private(directory: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"authority.key": 0o600, "authority.pub": 0o644, ".lock": 0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    key = serialization.load_pem_public_key((directory / "authority.pub").read_bytes())
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 3072
    before = (directory / "authority.key").read_bytes()
    check(Authority.ensure(directory).sign(CLAIMS), Verifier(directory / "authority.pub"))
    assert (directory / "authority.key").read_bytes() == before


def test_no_secret_is_shown(directory: Path) -> None:
    authority = Authority.ensure(directory)
    assert repr(authority) == object.__repr__(authority)
    assert str(authority) == repr(authority)


def test_a_lost_or_wrong_public_key_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "KEY_BITS", 1024)
    Authority.ensure(tmp_path)
    public = (tmp_path / "authority.pub").read_bytes()
    (tmp_path / "authority.pub").unlink()
    Authority.ensure(tmp_path)
    assert (tmp_path / "authority.pub").read_bytes() == public
    (tmp_path / "authority.pub").write_bytes(b"other")
    Authority.ensure(tmp_path)
    assert (tmp_path / "authority.pub").read_bytes() == public


def test_keys_that_others_can_reach_or_that_are_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "KEY_BITS", 1024)
    key, public = tmp_path / "authority.key", tmp_path / "authority.pub"
    with pytest.raises(SourceError):
        Verifier(public)
    Authority.ensure(tmp_path)
    public.chmod(0o666)
    with pytest.raises(RefusedError, match="chmod 644"):
        Verifier(public)
    key.chmod(0o644)
    with pytest.raises(RefusedError, match="chmod 600"):
        Authority.ensure(tmp_path)
    for path in (key, public):
        path.chmod(0o600)
    pem, elliptic = serialization.Encoding.PEM, ec.generate_private_key(ec.SECP256R1())
    other = elliptic.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    other_public = elliptic.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    for private_text, public_text in ((b"none", b"none"), (other, other_public)):
        key.write_bytes(private_text)
        public.write_bytes(public_text)
        with pytest.raises(RefusedError, match=r"authority\.key is not"):
            Authority.ensure(tmp_path)
        with pytest.raises(RefusedError, match=r"authority\.pub is not"):
            Verifier(public)


def test_the_import_brings_only_what_a_privileged_process_should_hold() -> None:
    script = "import sys; before = set(sys.modules); import cluster.credentials; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names = set(done.stdout.split())
    ours = {name for name in names if name.split(".")[0] in ("cluster", "staging", "scheduler_hooks")}
    assert ours - {"cluster", "staging", "staging.mover"} == {
        "cluster.credentials",
        "cluster.keyfiles",
        "staging.mover.errors",
    }
    others = {name.split(".")[0] for name in names - ours} - set(sys.stdlib_module_names)
    assert others <= {"cryptography", "_cffi_backend", "_openssl", "bcrypt"}  # what `cryptography` is made of
