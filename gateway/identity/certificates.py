"""What counts as a client's TLS certificate (RFC 8705 section 2): read at registration, known by its hash after."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.identity.errors import CertificateRefused
from gateway.identity.models import ClientCertificate
from gateway.identity.peer import thumbprint

MAX_FILE_BYTES = 64 * 1024
MAX_SUBJECT_CHARS = 500


def read_certificate(data: bytes, *, now: datetime) -> ClientCertificate:
    """Read one certificate from PEM or DER; ``now`` (UTC) must not be past its end.

    Raises :class:`CertificateRefused`; a file that holds a private key too is refused, because it left its owner.
    """
    if len(data) > MAX_FILE_BYTES:
        raise CertificateRefused("unreadable")
    if b"PRIVATE KEY-----" in data:
        raise CertificateRefused("private")
    try:
        # Of a chain the first counts: that of the client itself (RFC 8446 section 4.4.2).
        pem = data.lstrip().startswith(b"-----BEGIN")
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        subject = certificate.subject.rfc4514_string()
    except ValueError:
        raise CertificateRefused("unreadable") from None
    if now >= certificate.not_valid_after_utc:
        raise CertificateRefused("expired")
    return ClientCertificate(
        thumbprint=thumbprint(certificate.public_bytes(serialization.Encoding.DER)),
        subject="".join(char for char in subject if char.isprintable())[:MAX_SUBJECT_CHARS],
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        added_at=now,
    )
