"""Changes to clients and what they prove themselves with, used assertions and proofs, revoked tokens.

Each change tells every process at its commit.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.identity.errors import ClientError
from gateway.identity.models import (
    HIGHEST_ASSURANCE,
    LOWEST_ASSURANCE,
    Client,
    ClientCertificate,
    ClientKey,
    Network,
)
from gateway.identity.peer import read_network
from gateway.identity.tables import (
    assertion_jti,
    client,
    client_certificate,
    client_key,
    revoked_token,
    used_proof,
)
from schemas.codes import code_list

CHANNEL = "siis_clients"
MAX_GRACE = timedelta(days=30)
MAX_NETWORKS = 50
# Built once: building a statement costs as much as running it.
_CLAIM_ASSERTION = upsert(assertion_jti).on_conflict_do_nothing().returning(assertion_jti.c.jti)
_CLAIM_PROOF = upsert(used_proof).on_conflict_do_nothing().returning(used_proof.c.jti)
_NO_WAIT = text("SET LOCAL synchronous_commit = off")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")

Detail = dict[str, Any]


async def add_client(
    connection: AsyncConnection,
    *,
    client_id: str,
    name: str,
    institution: str,
    scopes: frozenset[str],
    assurance: int,
    now: datetime,
    key: ClientKey | None = None,
    certificate: ClientCertificate | None = None,
    secret_sha256: bytes | None = None,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
    networks: tuple[Network, ...] = (),
) -> Detail:
    """Register a client system with what it will prove itself with; return what the audit entry says.

    ``scopes`` are codes of ``schemas/codes/scopes.yaml``, at least one; a secret marks the client as a pilot. Raises
    :class:`ClientError`: ``id``, ``name``, ``scope``, ``assurance``, ``credential``, ``validity``, ``network``,
    ``institution`` or ``exists``.
    """
    if not _ID.match(client_id):
        raise ClientError("id")
    if not name.isprintable() or not 1 <= len(name.strip()) <= 200:
        raise ClientError("name")
    if not scopes or not scopes <= code_list("scopes").keys():
        raise ClientError("scope")
    if not LOWEST_ASSURANCE <= assurance <= HIGHEST_ASSURANCE:
        raise ClientError("assurance")
    if key is None and certificate is None and secret_sha256 is None:
        raise ClientError("credential")
    pilot = secret_sha256 is not None
    row = {
        "id": client_id,
        "name": name.strip(),
        "institution": institution,
        "scopes": sorted(scopes),
        "assurance": assurance,
        "created_at": now,
        "pilot": pilot,
        "secret_sha256": secret_sha256,
        "networks": _texts(networks),
        **_validity(valid_from, valid_to),
    }
    try:
        await connection.execute(insert(client).values(row))
    except IntegrityError as error:
        # The institutions are rows of the catalogue, which stands above us: its foreign key answers.
        known = getattr(error.orig, "sqlstate", "") == "23505"
        raise ClientError("exists" if known else "institution") from None
    told: Detail = {"client": client_id, "institution": institution, "scopes": sorted(scopes), "assurance": assurance}
    if key is not None:
        await connection.execute(insert(client_key).values(client_id=client_id, kid=key.kid, jwk=key.jwk))
        told["kid"] = key.kid
    if certificate is not None:
        await connection.execute(insert(client_certificate).values(_certificate_row(client_id, certificate)))
        told["certificate"] = certificate.thumbprint
    if pilot:
        told["pilot"] = True
    if networks:
        told["networks"] = _texts(networks)
    if valid_from or valid_to:
        told |= _told_validity(valid_from, valid_to)
    await _notify(connection, client_id)
    return told


async def rotate_key(
    connection: AsyncConnection, *, client_id: str, key: ClientKey, grace: timedelta, now: datetime
) -> Detail:
    """Give a client a new key; its former keys stay usable for ``grace`` (0 to 30 days), then never again.

    With no grace, tokens obtained with a former key stop too. Returns what the audit entry says. Raises
    :class:`ClientError`: ``grace``, ``unknown``, ``disabled`` or ``key-known``.
    """
    if not timedelta(0) <= grace <= MAX_GRACE:
        raise ClientError("grace")
    await _lock_active(connection, client_id)
    end = now + grace
    former = await connection.scalars(
        update(client_key)
        .where(client_key.c.client_id == client_id)
        .where(or_(client_key.c.not_after.is_(None), client_key.c.not_after > end))
        .values(not_after=end)
        .returning(client_key.c.kid)
    )
    kids = sorted(former.all())
    added = await connection.execute(
        upsert(client_key)
        .values(client_id=client_id, kid=key.kid, jwk=key.jwk)
        .on_conflict_do_nothing()
        .returning(client_key.c.kid)
    )
    if added.first() is None:
        raise ClientError("key-known")
    await _notify(connection, client_id)
    return {"client": client_id, "kid": key.kid, "former": kids, "former_until": end.isoformat()}


async def disable_client(connection: AsyncConnection, *, client_id: str, now: datetime) -> Detail:
    """Disable a client at once and for good; return what the audit entry says.

    Raises :class:`ClientError`: ``unknown`` or ``disabled``.
    """
    await _lock_active(connection, client_id)
    await connection.execute(update(client).where(client.c.id == client_id).values(active=False, disabled_at=now))
    await _notify(connection, client_id)
    return {"client": client_id}


async def add_certificate(connection: AsyncConnection, *, client_id: str, certificate: ClientCertificate) -> Detail:
    """Register a further certificate of a client; return what the audit entry says.

    Raises :class:`ClientError`: ``unknown``, ``disabled`` or ``certificate-known`` (one that was removed stays so).
    """
    await _lock_active(connection, client_id)
    added = await connection.execute(
        upsert(client_certificate)
        .values(_certificate_row(client_id, certificate))
        .on_conflict_do_nothing()
        .returning(client_certificate.c.thumbprint)
    )
    if added.first() is None:
        raise ClientError("certificate-known")
    await _notify(connection, client_id)
    return {
        "client": client_id,
        "certificate": certificate.thumbprint,
        "not_after": certificate.not_after.isoformat(),
    }


async def remove_certificate(connection: AsyncConnection, *, client_id: str, thumbprint: str, now: datetime) -> Detail:
    """Take a certificate from a client; tokens obtained with it or bound to it stop at once.

    Returns what the audit entry says. Raises :class:`ClientError`: ``unknown``, ``disabled`` or
    ``certificate-unknown``.
    """
    await _lock_active(connection, client_id)
    removed = await connection.execute(
        update(client_certificate)
        .where(client_certificate.c.client_id == client_id, client_certificate.c.thumbprint == thumbprint)
        .where(client_certificate.c.removed_at.is_(None))
        .values(removed_at=now)
        .returning(client_certificate.c.thumbprint)
    )
    if removed.first() is None:
        raise ClientError("certificate-unknown")
    await _notify(connection, client_id)
    return {"client": client_id, "certificate": thumbprint}


async def change_secret(connection: AsyncConnection, *, client_id: str, secret_sha256: bytes | None) -> Detail:
    """Give a pilot another secret, or with None end its pilot; tokens obtained with the former one stop at once.

    Returns what the audit entry says. Raises :class:`ClientError`: ``unknown``, ``disabled`` or ``not-pilot``.
    """
    await _lock_active(connection, client_id)
    changed = await connection.execute(
        update(client)
        .where(client.c.id == client_id, client.c.pilot)
        .values(secret_sha256=secret_sha256, pilot=secret_sha256 is not None)
        .returning(client.c.id)
    )
    if changed.first() is None:
        raise ClientError("not-pilot")
    await _notify(connection, client_id)
    return {"client": client_id, "pilot": secret_sha256 is not None}


async def change_networks(connection: AsyncConnection, *, client_id: str, networks: tuple[Network, ...]) -> Detail:
    """Say from where a client may come, from anywhere if ``networks`` is empty; return what the audit entry says.

    Raises :class:`ClientError`: ``network``, ``unknown`` or ``disabled``.
    """
    texts = _texts(networks)
    await _lock_active(connection, client_id)
    await connection.execute(update(client).where(client.c.id == client_id).values(networks=texts))
    await _notify(connection, client_id)
    return {"client": client_id, "networks": texts}


async def change_validity(
    connection: AsyncConnection, *, client_id: str, valid_from: datetime | None, valid_to: datetime | None
) -> Detail:
    """Say when a client counts (UTC, None: no bound); return what the audit entry says.

    Raises :class:`ClientError`: ``validity``, ``unknown`` or ``disabled``.
    """
    values = _validity(valid_from, valid_to)
    await _lock_active(connection, client_id)
    await connection.execute(update(client).where(client.c.id == client_id).values(values))
    await _notify(connection, client_id)
    return {"client": client_id, **_told_validity(valid_from, valid_to)}


async def list_clients(connection: AsyncConnection) -> list[Client]:
    """Return every client with its keys and certificates, by id."""
    rows = (await connection.execute(select(client).order_by(client.c.id))).all()
    keys: dict[str, list[ClientKey]] = {}
    for row in await connection.execute(select(client_key).order_by(client_key.c.not_after.desc(), client_key.c.kid)):
        keys.setdefault(row.client_id, []).append(ClientKey(row.kid, row.jwk, row.not_after))
    certificates: dict[str, list[ClientCertificate]] = {}
    known = client_certificate.c
    for row in await connection.execute(select(client_certificate).order_by(known.added_at, known.thumbprint)):
        shown = ClientCertificate(
            row.thumbprint, row.subject, row.not_before, row.not_after, row.added_at, row.removed_at
        )
        certificates.setdefault(row.client_id, []).append(shown)
    return [_client(row, tuple(keys.get(row.id, ())), tuple(certificates.get(row.id, ()))) for row in rows]


async def claim_assertion(connection: AsyncConnection, client_id: str, jti: str, expires_at: datetime) -> bool:
    """Mark an assertion as used; return False if it had been used before (RFC 7523 section 3, item 7)."""
    claimed = await connection.execute(_CLAIM_ASSERTION, {"client_id": client_id, "jti": jti, "expires_at": expires_at})
    return claimed.first() is not None


async def claim_proof(connection: AsyncConnection, jkt: str, jti: str, expires_at: datetime) -> bool:
    """Mark a DPoP proof as used; return False if it had been used before (RFC 9449 section 11.1).

    The connection's transaction must be for this alone: it does not wait for the disk.
    """
    # There is one proof per request, good for a minute: a database that falls over may forget its last half second.
    await connection.execute(_NO_WAIT)
    claimed = await connection.execute(_CLAIM_PROOF, {"jkt": jkt, "jti": jti, "expires_at": expires_at})
    return claimed.first() is not None


async def revoke_token(connection: AsyncConnection, jti: str, expires_at: datetime) -> None:
    """Refuse an access token from now on (RFC 7009); revoking twice is the same as once."""
    await connection.execute(upsert(revoked_token).values(jti=jti, expires_at=expires_at).on_conflict_do_nothing())
    await _notify(connection, "")


async def revoked_tokens(connection: AsyncConnection) -> frozenset[str]:
    """Return the ids of revoked tokens that have not been purged."""
    return frozenset((await connection.scalars(select(revoked_token.c.jti))).all())


async def purge_expired(connection: AsyncConnection, now: datetime) -> None:
    """Forget used assertions and proofs and revoked tokens that their own end refuses anyway."""
    for table in (assertion_jti, used_proof, revoked_token):
        await connection.execute(delete(table).where(table.c.expires_at < now))


async def _lock_active(connection: AsyncConnection, client_id: str) -> None:
    active = await connection.scalar(select(client.c.active).where(client.c.id == client_id).with_for_update())
    if active is None:
        raise ClientError("unknown")
    if not active:
        raise ClientError("disabled")


async def _notify(connection: AsyncConnection, client_id: str) -> None:
    await connection.execute(select(func.pg_notify(CHANNEL, client_id)))


def _validity(valid_from: datetime | None, valid_to: datetime | None) -> dict[str, datetime | None]:
    if valid_from is not None and valid_to is not None and valid_from >= valid_to:
        raise ClientError("validity")
    return {"valid_from": valid_from, "valid_to": valid_to}


def _told_validity(valid_from: datetime | None, valid_to: datetime | None) -> Detail:
    named = {"valid_from": valid_from, "valid_to": valid_to}
    return {name: None if at is None else at.isoformat() for name, at in named.items()}


def _texts(networks: tuple[Network, ...]) -> list[str]:
    if len(networks) > MAX_NETWORKS:
        raise ClientError("network")
    return sorted({str(network) for network in networks})


def _certificate_row(client_id: str, certificate: ClientCertificate) -> dict[str, Any]:
    return {
        "client_id": client_id,
        "thumbprint": certificate.thumbprint,
        "subject": certificate.subject,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "added_at": certificate.added_at,
    }


def _client(row: Row[Any], keys: tuple[ClientKey, ...], certificates: tuple[ClientCertificate, ...]) -> Client:
    return Client(
        id=row.id,
        name=row.name,
        institution=row.institution,
        active=row.active,
        scopes=frozenset(row.scopes),
        assurance=row.assurance,
        keys=keys,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        certificates=certificates,
        pilot=row.pilot,
        secret_sha256=None if row.secret_sha256 is None else bytes(row.secret_sha256),
        valid_from=row.valid_from,
        valid_to=row.valid_to,
        networks=tuple(read_network(text) for text in row.networks),
    )
