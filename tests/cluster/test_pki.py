import datetime
import os
import socket
import ssl
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster import keyfiles
from cluster.pki import TlsFiles, client_context, ensure, server_context
from staging.mover.errors import RefusedError

NOW = datetime.datetime.now(datetime.UTC)  # OpenSSL looks at the real clock


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return ensure(tmp_path_factory.mktemp("ours"), now=NOW)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return ensure(tmp_path_factory.mktemp("foreign"), now=NOW)


def talk(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[object, object]:
    """What each side got from the other over a real connection: its text, or its error."""

    def side(context: ssl.SSLContext, sock: socket.socket, *, is_server: bool) -> object:
        with sock:
            sock.settimeout(10)
            try:
                with context.wrap_socket(sock, server_side=is_server) as secured:
                    secured.sendall(b"server" if is_server else b"client")
                    return secured.recv(100)
            except OSError as error:
                return error

    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(side, server, ours, is_server=True)
        got = side(client, theirs, is_server=False)
        return served.result(), got


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_members_talk(files: TlsFiles, version: ssl.TLSVersion) -> None:
    server, client = server_context(files), client_context(files)
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # newer Pythons' default
    client.maximum_version = version
    assert talk(server, client) == (b"client", b"server")


def test_a_client_without_a_certificate_is_refused(files: TlsFiles) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(files.ca)
    served, got = talk(server_context(files), client)
    assert isinstance(served, ssl.SSLError)
    assert served.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert isinstance(got, OSError)


def test_a_client_of_another_ca_is_refused(files: TlsFiles, foreign: TlsFiles) -> None:
    stranger = client_context(TlsFiles(files.ca, foreign.cert, foreign.key))
    served, got = talk(server_context(files), stranger)
    assert isinstance(served, ssl.SSLCertVerificationError)
    assert isinstance(got, OSError)


def test_a_server_of_another_ca_is_refused(files: TlsFiles, foreign: TlsFiles) -> None:
    served, got = talk(server_context(foreign), client_context(files))
    assert isinstance(got, ssl.SSLCertVerificationError)
    assert isinstance(served, OSError)


def test_the_contexts_trust_our_ca_only(files: TlsFiles) -> None:
    for context in (server_context(files), client_context(files)):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert not context.check_hostname
        assert context.cert_store_stats()["x509"] == 1


def test_the_certificate_is_the_one_promised(files: TlsFiles) -> None:
    ca, cert = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (files.ca, files.cert))
    cert.verify_directly_issued_by(ca)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == cert.public_key()
    assert key.public_key() != ca.public_key()
    assert cert.not_valid_after_utc - NOW <= datetime.timedelta(days=365)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["longshore", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_the_ca_key_is_not_kept_and_all_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        files = ensure(tmp_path / "keys", now=NOW)
    finally:
        os.umask(old)
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {".lock", "ca.pem", "cert.pem", "key.pem"}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.paths} == {0o600}
    assert sum(path.read_bytes().count(b"PRIVATE KEY") for path in files.paths) == 2  # one key's first and last line


def test_present_files_are_returned_as_they_are(tmp_path: Path) -> None:
    before = [path.read_bytes() for path in ensure(tmp_path, now=NOW).paths]
    later = NOW + datetime.timedelta(days=364)
    assert [path.read_bytes() for path in ensure(tmp_path, now=later).paths] == before


def test_a_set_with_a_lost_file_is_made_anew(tmp_path: Path) -> None:
    files = ensure(tmp_path, now=NOW)
    files.cert.unlink()
    assert talk(server_context(ensure(tmp_path, now=NOW)), client_context(files)) == (b"client", b"server")


def test_remains_of_a_set_are_never_mixed_with_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(path: Path, data: bytes) -> None:
        if path.name == "key.pem":
            raise KeyboardInterrupt
        write(path, data)

    write = keyfiles.write
    ensure(tmp_path, now=NOW).ca.unlink()
    monkeypatch.setattr(keyfiles, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path, now=NOW)
    monkeypatch.undo()
    files = ensure(tmp_path, now=NOW)
    assert talk(server_context(files), client_context(files)) == (b"client", b"server")


def test_expired_files_are_refused(tmp_path: Path) -> None:
    files = ensure(tmp_path, now=NOW)
    with pytest.raises(RefusedError, match="expired") as caught:
        ensure(tmp_path, now=NOW + datetime.timedelta(days=365))
    assert all(str(path) in caught.value.remedy for path in files.paths)


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_files_that_others_can_use_are_refused(tmp_path: Path, name: str) -> None:
    ensure(tmp_path, now=NOW)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(RefusedError, match=f"chmod 600 {tmp_path / name}"):
        ensure(tmp_path, now=NOW)


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(RefusedError, match="chmod 700"):
        ensure(tmp_path, now=NOW)


def test_spoilt_files_are_refused(tmp_path: Path, foreign: TlsFiles) -> None:
    files = ensure(tmp_path, now=NOW)
    files.key.write_bytes(foreign.key.read_bytes())
    with pytest.raises(RefusedError, match="cannot be used"):
        server_context(files)
    files.cert.write_bytes(b"")
    with pytest.raises(RefusedError, match="not a certificate"):
        ensure(tmp_path, now=NOW)


def test_first_uses_at_the_same_time_agree(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def first_use(_: int) -> list[bytes]:
        together.wait(10)
        return [path.read_bytes() for path in ensure(tmp_path / "keys", now=NOW).paths]

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(first_use, range(8)))
    assert all(contents == seen[0] for contents in seen)
    files = ensure(tmp_path / "keys", now=NOW)
    assert talk(server_context(files), client_context(files)) == (b"client", b"server")
