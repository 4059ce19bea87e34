"""What is accepted as a key, ours and a client's."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from gateway.identity.errors import KeyFileError, KeyRefused
from gateway.identity.keys import load_ring, read_public_key

# The example of RFC 7517 appendix A.1, a public P-256 key.
RFC7517_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}


def _pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def test_pem_and_jwk_of_one_key_are_the_same_key() -> None:
    key = ECKey.generate_key("P-256")
    from_pem = read_public_key(key.as_pem(private=False))
    from_jwk = read_public_key(orjson.dumps(key.as_dict(private=False)))
    assert from_pem == from_jwk
    assert from_pem.kid == key.thumbprint()
    assert from_pem.jwk == key.as_dict(private=False) | {"kid": key.thumbprint(), "use": "sig", "alg": "ES256"}


def test_jwk_keeps_the_kid_its_owner_gave_it() -> None:
    assert read_public_key(orjson.dumps(RFC7517_KEY | {"kid": "2026-a"})).kid == "2026-a"


def test_private_parts_never_get_into_what_is_stored() -> None:
    stored = read_public_key(orjson.dumps(RFC7517_KEY | {"extra": "x", "p": "y"})).jwk
    assert set(stored) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


@pytest.mark.parametrize(
    "form",
    [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL],
)
def test_private_pem_is_refused_as_private(form: serialization.PrivateFormat) -> None:
    with pytest.raises(KeyRefused, match=r"^private$"):
        read_public_key(_private_pem(ec.generate_private_key(ec.SECP256R1()), form))


@pytest.mark.parametrize(
    "key",
    [ECKey.generate_key("P-256"), RSAKey.generate_key(2048), OKPKey.generate_key("Ed25519"), OctKey.generate_key(256)],
    ids=["EC", "RSA", "OKP", "oct"],
)
def test_private_jwk_is_refused_as_private(key: ECKey | RSAKey | OKPKey | OctKey) -> None:
    with pytest.raises(KeyRefused, match=r"^private$"):
        read_public_key(orjson.dumps(key.as_dict(private=True)))


def test_other_kinds_of_key_are_refused() -> None:
    for public in (
        rsa.generate_private_key(65537, 2048).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
    ):
        with pytest.raises(KeyRefused, match=r"^type$"):
            read_public_key(_pem(public))
    with pytest.raises(KeyRefused, match=r"^type$"):
        read_public_key(orjson.dumps(RSAKey.generate_key(2048).as_dict(private=False)))


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1()], ids=lambda curve: curve.name)
def test_other_curves_are_refused(curve: ec.EllipticCurve) -> None:
    with pytest.raises(KeyRefused, match=r"^curve$"):
        read_public_key(_pem(ec.generate_private_key(curve).public_key()))


def test_other_curve_in_a_jwk_is_refused() -> None:
    with pytest.raises(KeyRefused, match=r"^curve$"):
        read_public_key(orjson.dumps(ECKey.generate_key("P-384").as_dict(private=False)))


def test_certificate_is_refused_with_its_own_reason() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(KeyRefused, match=r"^certificate$"):
        read_public_key(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\xff",
        b"hola",
        b"{",
        b"{}",
        b"[" * 50_000,
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        orjson.dumps(RFC7517_KEY | {"y": RFC7517_KEY["x"]}),
        orjson.dumps(RFC7517_KEY | {"x": 7}),
        orjson.dumps(RFC7517_KEY | {"x": "!!"}),
        orjson.dumps({name: value for name, value in RFC7517_KEY.items() if name != "y"}),
    ],
)
def test_what_is_no_key_is_unreadable(data: bytes) -> None:
    with pytest.raises(KeyRefused, match=r"^unreadable$"):
        read_public_key(data)


@pytest.mark.parametrize("more", [{"use": "enc"}, {"alg": "ES384"}, {"key_ops": ["sign"]}, {"key_ops": 5}])
def test_key_meant_for_something_else_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(KeyRefused, match=r"^use$"):
        read_public_key(orjson.dumps(RFC7517_KEY | more))


@pytest.mark.parametrize("kid", ["", "x" * 129, "con espacio", "ñ", 7, "a\u0000b"])
def test_unusable_kid_is_refused(kid: object) -> None:
    with pytest.raises(KeyRefused, match=r"^kid$"):
        read_public_key(orjson.dumps(RFC7517_KEY | {"kid": kid}))


def test_ring_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    first = load_ring(tmp_path / "keys", create=True)
    again = load_ring(tmp_path / "keys", create=True)
    assert first.current.kid == again.current.kid == first.current.thumbprint()
    assert stat.S_IMODE((tmp_path / "keys" / "token-current.pem").stat().st_mode) == 0o600


def test_ring_is_not_made_where_that_is_not_allowed(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"token-current\.pem"):
        load_ring(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_previous_and_next_keys_are_published_and_found_and_nothing_private_is(tmp_path: Path) -> None:
    kids = [load_ring(tmp_path, create=True).current.kid]
    for name in ("previous", "next"):
        (tmp_path / "token-current.pem").rename(tmp_path / f"token-{name}.pem")
        kids.append(load_ring(tmp_path, create=True).current.kid)
    ring = load_ring(tmp_path, create=False)
    published = ring.jwks()["keys"]
    assert [key["kid"] for key in published] == [kids[2], kids[0], kids[1]]
    assert all(set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"} for key in published)
    assert all(ring.find(kid) is not None for kid in kids if kid)
    assert ring.find("otro") is None


@pytest.mark.parametrize("mode", [0o604, 0o660, 0o644, 0o601])
def test_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    load_ring(tmp_path, create=True)
    (tmp_path / "token-current.pem").chmod(mode)
    with pytest.raises(KeyFileError, match="mode"):
        load_ring(tmp_path, create=True)


def test_key_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token-current.pem"
    pkcs8 = serialization.PrivateFormat.PKCS8
    for content in (
        b"nada",
        _private_pem(ec.generate_private_key(ec.SECP384R1()), pkcs8),
        _private_pem(rsa.generate_private_key(65537, 2048), pkcs8),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match=r"token-current\.pem"):
            load_ring(tmp_path, create=False)
