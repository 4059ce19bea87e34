"""Changes to clients and keys, used assertions and revoked tokens; each change tells every process at its commit."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.identity.errors import ClientError
from gateway.identity.models import HIGHEST_ASSURANCE, LOWEST_ASSURANCE, Client, ClientKey
from gateway.identity.tables import assertion_jti, client, client_key, revoked_token
from schemas.codes import code_list

CHANNEL = "siis_clients"
MAX_GRACE = timedelta(days=30)
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
    key: ClientKey,
    now: datetime,
) -> Detail:
    """Register a client system with its first public key; return what the audit entry says.

    ``scopes`` are codes of ``schemas/codes/scopes.yaml``, at least one. Raises :class:`ClientError`: ``id``,
    ``name``, ``scope``, ``assurance``, ``institution`` or ``exists``.
    """
    if not _ID.match(client_id):
        raise ClientError("id")
    if not name.isprintable() or not 1 <= len(name.strip()) <= 200:
        raise ClientError("name")
    if not scopes or not scopes <= code_list("scopes").keys():
        raise ClientError("scope")
    if not LOWEST_ASSURANCE <= assurance <= HIGHEST_ASSURANCE:
        raise ClientError("assurance")
    row = {
        "id": client_id,
        "name": name.strip(),
        "institution": institution,
        "scopes": sorted(scopes),
        "assurance": assurance,
        "created_at": now,
    }
    try:
        await connection.execute(insert(client).values(row))
    except IntegrityError as error:
        # The institutions are rows of the catalogue, which stands above us: its foreign key answers.
        known = getattr(error.orig, "sqlstate", "") == "23505"
        raise ClientError("exists" if known else "institution") from None
    await connection.execute(insert(client_key).values(client_id=client_id, kid=key.kid, jwk=key.jwk))
    await _notify(connection, client_id)
    return {
        "client": client_id,
        "institution": institution,
        "scopes": sorted(scopes),
        "assurance": assurance,
        "kid": key.kid,
    }


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


async def list_clients(connection: AsyncConnection) -> list[Client]:
    """Return every client with its keys, by id."""
    rows = (await connection.execute(select(client).order_by(client.c.id))).all()
    keys: dict[str, list[ClientKey]] = {}
    for row in await connection.execute(select(client_key).order_by(client_key.c.not_after.desc(), client_key.c.kid)):
        keys.setdefault(row.client_id, []).append(ClientKey(row.kid, row.jwk, row.not_after))
    return [_client(row, tuple(keys.get(row.id, ()))) for row in rows]


async def claim_assertion(connection: AsyncConnection, client_id: str, jti: str, expires_at: datetime) -> bool:
    """Mark an assertion as used; return False if it had been used before (RFC 7523 section 3, item 7)."""
    claimed = await connection.execute(
        upsert(assertion_jti)
        .values(client_id=client_id, jti=jti, expires_at=expires_at)
        .on_conflict_do_nothing()
        .returning(assertion_jti.c.jti)
    )
    return claimed.first() is not None


async def revoke_token(connection: AsyncConnection, jti: str, expires_at: datetime) -> None:
    """Refuse an access token from now on (RFC 7009); revoking twice is the same as once."""
    await connection.execute(upsert(revoked_token).values(jti=jti, expires_at=expires_at).on_conflict_do_nothing())
    await _notify(connection, "")


async def revoked_tokens(connection: AsyncConnection) -> frozenset[str]:
    """Return the ids of revoked tokens that have not been purged."""
    return frozenset((await connection.scalars(select(revoked_token.c.jti))).all())


async def purge_expired(connection: AsyncConnection, now: datetime) -> None:
    """Forget used assertions and revoked tokens that their own end refuses anyway."""
    for table in (assertion_jti, revoked_token):
        await connection.execute(delete(table).where(table.c.expires_at < now))


async def _lock_active(connection: AsyncConnection, client_id: str) -> None:
    active = await connection.scalar(select(client.c.active).where(client.c.id == client_id).with_for_update())
    if active is None:
        raise ClientError("unknown")
    if not active:
        raise ClientError("disabled")


async def _notify(connection: AsyncConnection, client_id: str) -> None:
    await connection.execute(select(func.pg_notify(CHANNEL, client_id)))


def _client(row: Row[Any], keys: tuple[ClientKey, ...]) -> Client:
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
    )
