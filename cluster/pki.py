from __future__ import annotations
import datetime, ssl
from dataclasses import dataclass
from pathlib import Path
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
@dataclass(frozen=True)
class TlsFiles:
    ca: Path
    cert: Path
    key: Path
def ensure(directory: Path, *, now: datetime.datetime) -> TlsFiles:
    directory.mkdir(exist_ok=True, mode=0o700)
    f = TlsFiles(directory/"ca.pem", directory/"cert.pem", directory/"key.pem")
    if f.key.exists(): return f
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "longshore CA")])
    ck = ec.generate_private_key(ec.SECP256R1()); k = ec.generate_private_key(ec.SECP256R1())
    ca = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(ck.public_key()).serial_number(x509.random_serial_number()).not_valid_before(now-datetime.timedelta(days=1)).not_valid_after(now+datetime.timedelta(days=365)).add_extension(x509.BasicConstraints(ca=True,path_length=None),True).sign(ck,hashes.SHA256())
    c = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "longshore")])).issuer_name(name).public_key(k.public_key()).serial_number(x509.random_serial_number()).not_valid_before(now-datetime.timedelta(days=1)).not_valid_after(now+datetime.timedelta(days=365)).sign(ck,hashes.SHA256())
    f.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM)); f.cert.write_bytes(c.public_bytes(serialization.Encoding.PEM)); f.key.write_bytes(k.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return f
def server_context(files):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_verify_locations(files.ca); c.load_cert_chain(files.cert, files.key); c.verify_mode=ssl.CERT_REQUIRED; return c
def client_context(files):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname=False; c.load_verify_locations(files.ca); c.load_cert_chain(files.cert, files.key); c.verify_mode=ssl.CERT_REQUIRED; return c
