"""Makes up every secret a manifest asks for, new for each run: they open nothing but the kit's own servers."""

from __future__ import annotations

import ipaddress
import re
import secrets
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from adapters.connections import secret_places
from adapters.manifest import Manifest
from adapters.soap.security import Signer

_SECRET_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: _Key

    @property
    def certificate_pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def signer(self) -> Signer:
        """Make what signs messages with it."""
        return Signer.load(self.key_pem, self.certificate_pem)


class Keys:
    """The keys of one run."""

    @cached_property
    def authority(self) -> Pair:
        """Signs the certificates of both sides."""
        return _pair("Autoridad de ensayo", ec.generate_private_key(ec.SECP256R1()))

    @cached_property
    def server(self) -> Pair:
        """The producer's, for TLS."""
        return _pair("127.0.0.1", ec.generate_private_key(ec.SECP256R1()), self.authority)

    @cached_property
    def client(self) -> Pair:
        """Ours, for TLS."""
        return _pair("Pasarela de ensayo", ec.generate_private_key(ec.SECP256R1()), self.authority)

    @cached_property
    def signer(self) -> Pair:
        """Ours, for messages."""
        return _pair("Pasarela de ensayo", _rsa())

    @cached_property
    def partner(self) -> Pair:
        """The producer's, for messages."""
        return _pair("Institución de ensayo", _rsa())

    @cached_property
    def stranger(self) -> Pair:
        """Somebody else's, for messages."""
        return _pair("Otra institución", _rsa())

    def tls(self, manifest: Manifest, folder: Path) -> ssl.SSLContext | None:
        """Make what a server needs where the manifest speaks of TLS; it asks for our certificate where it names one."""
        if not manifest.tls:
            return None
        chain, authority = folder / "server.pem", folder / "authority.pem"
        chain.write_bytes(self.server.certificate_pem + self.server.key_pem)
        authority.write_bytes(self.authority.certificate_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        if "certificate" in manifest.tls:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def write(self, manifest: Manifest, folder: Path) -> None:
        """Write a file for every secret the manifest names; in ``options`` whatever may be the name of one."""
        for place in secret_places(manifest):
            name = manifest.source.content[place[0]][place[1]]
            (folder / name).write_bytes(self._secret(".".join(place)))
        for name in _texts(manifest.options):
            if _SECRET_NAME.match(name):
                (folder / name).write_bytes(_password())

    def _secret(self, place: str) -> bytes:
        match place:
            case "tls.certificate":
                return self.client.certificate_pem + self.client.key_pem
            case "tls.ca":
                return self.authority.certificate_pem
            case "security.certificate":
                return self.signer.certificate_pem + self.signer.key_pem
            case "security.partner":
                return self.partner.certificate_pem
            case "security.saml":
                until = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
                return f'<Assertion xmlns="{_SAML}"><Conditions NotOnOrAfter="{until}"/></Assertion>'.encode()
        return _password()


def _password() -> bytes:
    return f"clave-de-ensayo-{secrets.token_hex(8)}".encode()


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pair(name: str, key: _Key, issuer: Pair | None = None) -> Pair:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    return Pair(builder.sign(key if issuer is None else issuer.key, hashes.SHA256()), key)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)
