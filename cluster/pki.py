"""The TLS files of one cluster: a CA made for it alone and one certificate that all its members share.

Whoever holds these files is a full member of the cluster. The CA's private key is forgotten once it has signed the
certificate, so nothing can be added to the set; a new set is a new CA.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster import keyfiles
from staging.mover.errors import RefusedError

LIFETIME = datetime.timedelta(days=365)
BACKDATED = datetime.timedelta(hours=1)  # a member's clock may be behind the one that made the files
NAMES = ("longshore", "localhost")
ADDRESSES = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the CA to trust, the certificate to show, and its private key."""

    ca: Path
    cert: Path
    key: Path

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.ca, self.cert, self.key


def ensure(directory: Path, *, now: datetime.datetime) -> TlsFiles:
    """The files in `directory`, made there if they are not all present; `now` has a time zone.

    Raises RefusedError where others have access to the directory or a file, and for expired certificates.
    """
    files = TlsFiles(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    keyfiles.own_directory(directory)
    if not _complete(files):
        with keyfiles.locked(directory):
            if not _complete(files):
                _mint(files, now)
    _check(files, now)
    return files


def existing(directory: Path, *, now: datetime.datetime) -> TlsFiles:
    """The files in `directory`, as `ensure` has made them before. Raises SourceError, RefusedError."""
    files = TlsFiles(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    _check(files, now)
    return files


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For the side that listens: only clients with a certificate of our CA."""
    return _context(ssl.PROTOCOL_TLS_SERVER, files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """For the side that connects: only servers with a certificate of our CA, at whatever address they are."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # nodes come and go; the CA signs for nobody but members
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(files.ca)
        context.load_cert_chain(files.cert, files.key)
    except OSError as error:
        raise RefusedError(f"the TLS files cannot be used: {error}", _renew(files)) from error
    return context


def _complete(files: TlsFiles) -> bool:
    return all(path.exists() for path in files.paths)


def _check(files: TlsFiles, now: datetime.datetime) -> None:
    ca, cert, _ = (keyfiles.read(path) for path in files.paths)
    for path, pem in ((files.ca, ca), (files.cert, cert)):
        try:
            expires = x509.load_pem_x509_certificate(pem).not_valid_after_utc
        except ValueError as error:
            raise RefusedError(f"{path} is not a certificate", _renew(files)) from error
        if expires <= now:
            raise RefusedError(f"{path} expired on {expires:%Y-%m-%d}", _renew(files))


def _renew(files: TlsFiles) -> str:
    return f"stop the cluster, delete {' '.join(map(str, files.paths))} and start it again"


def _mint(files: TlsFiles, now: datetime.datetime) -> None:
    for path in files.paths:
        path.unlink(missing_ok=True)  # remains of another set would pass for a part of this one
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("longshore CA")
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    alternatives = [x509.DNSName(name) for name in NAMES]
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ADDRESSES]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    cert = (
        _builder(_name("longshore"), ca_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName([*alternatives, *addresses]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    keyfiles.write(files.ca, ca.public_bytes(pem))
    keyfiles.write(files.cert, cert.public_bytes(pem))
    keyfiles.write(files.key, key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
