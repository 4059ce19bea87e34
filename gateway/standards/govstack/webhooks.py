"""Webhooks: who wants to be told of answers, and the calls that tell them, deferred with the answer or not at all.

The building block has no operation to choose events, so a webhook is told of every answer and every end of a consent
under agreements of its institution. A call says ids only, signed with the webhook's secret.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any
from uuid import UUID

import procrastinate
import structlog
from procrastinate import App, PsycopgConnector
from prometheus_client import Counter
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consent.agreements import read_history
from consent.records import read_record
from consent.transaction import instant
from gateway import errors
from gateway.database import Database, driver_connection
from gateway.events.calls import CONTENT_TYPE, calling, may_be_called
from gateway.standards.govstack import individuals
from gateway.standards.govstack.models import Answer, Call, object_id
from gateway.standards.govstack.tables import webhook
from gateway.vault import Vault
from schemas.canonical import canonical_json
from schemas.ids import uuid7
from schemas.text import _

CALL = "consent-webhook"
SIGNATURE_HEADER = "X-SIIS-Signature"
EVENTS = frozenset({"consent.given", "consent.refused", "consent.withdrawn", "consent.revoked", "consent.invalidated"})
_COLUMN = "govstack_webhook.secret"
# Two seconds, four, eight: the twelfth repetition comes some 2¼ hours after the first call.
_RETRY = procrastinate.RetryStrategy(max_attempts=12, exponential_wait=2)

_log = structlog.get_logger(__name__)
_calls = Counter("siis_consent_webhook_calls_total", "Calls to webhooks of the Consent building block", ["outcome"])
_unconnected = App(connector=PsycopgConnector())


class NotTaken(RuntimeError):
    """A webhook did not answer with success; the call is repeated."""


async def create(call: Call) -> Answer:
    """Create a webhook of the caller's institution; its secret is stored encrypted and never shown."""
    given = _checked(call, secret_needed=True)
    webhook_id = uuid7()
    new = {
        "id": webhook_id,
        "institution": call.institution,
        **_values(given),
        "secret": call.vault.seal(_COLUMN, webhook_id, given["secretKey"]),
        "created_at": call.at,
    }
    await call.connection.execute(insert(webhook).values(new))
    return await _changed(call, "consentbb.webhook_created", webhook_id)


async def change(call: Call) -> Answer:
    """Change a webhook; an empty secret leaves the secret as it is."""
    webhook_id = await _mine(call)
    given = _checked(call, secret_needed=False)
    values = _values(given)
    if given["secretKey"]:
        values["secret"] = call.vault.seal(_COLUMN, webhook_id, given["secretKey"])
    await call.connection.execute(update(webhook).where(webhook.c.id == webhook_id).values(values))
    return await _changed(call, "consentbb.webhook_changed", webhook_id)


async def remove(call: Call) -> Answer:
    """Delete a webhook with its secret; calls that still wait are not made."""
    webhook_id = await _mine(call)
    await call.connection.execute(delete(webhook).where(webhook.c.id == webhook_id))
    return {"event": "consentbb.webhook_deleted", "webhook": str(webhook_id)}, {}


async def show(call: Call) -> Answer:
    """Show a webhook to its institution; it has no revisions, so asked for in one it is not there."""
    webhook_id = await _mine(call)
    if "revisionId" in call.query:
        raise errors.NotFound("not-found")
    return None, {"webhook": await _one(call.connection, webhook_id)}


async def show_all(call: Call) -> Answer:
    """List the webhooks of the caller's institution by id."""
    if "revisionId" in call.query:
        raise errors.NotFound("not-found")
    mine = select(webhook).where(webhook.c.institution == call.institution).order_by(webhook.c.id)
    rows = await call.connection.execute(mine.offset(call.offset).limit(call.limit))
    return None, {"webhooks": [_json(row) for row in rows]}


async def tell(connection: AsyncConnection, said: dict[str, Any]) -> None:
    """Defer a call to every webhook that must learn of a change, in the transaction of the change.

    ``said`` is what the log says of it (:mod:`consent.records`); anything but an answer or its end is left alone.
    """
    if said["event"] not in EVENTS:
        return
    driver = await driver_connection(connection)
    for record_id in [said["consent"]] if "consent" in said else said["ended"]:
        record = await read_record(connection, UUID(record_id))
        history = await read_history(connection, record.agreement)
        wanted = select(webhook.c.id).where(webhook.c.institution.in_(history.parties), webhook.c.disabled.is_(False))
        at = instant(record.withdrawn_at or record.given_at)
        for webhook_id in list(await connection.scalars(wanted)):
            # Calls of one webhook run one after the other, so that it learns things in their order.
            deferrer = _unconnected.configure_task(CALL, lock=f"{CALL} {webhook_id}", connection=driver)
            await deferrer.defer_async(
                webhook_id=str(webhook_id), call_id=str(uuid7()), event=said["event"], record_id=record_id, at=at
            )


def add_task(app: App, calls: Calls) -> None:
    """Let a worker make the calls (the names of the arguments are those that :func:`tell` defers)."""

    @app.task(name=CALL, retry=_RETRY)
    async def call_webhook(webhook_id: str, call_id: str, event: str, record_id: str, at: str) -> None:
        message = {"id": call_id, "event": event, "timestamp": at, "consentRecordId": record_id}
        await calls.make(UUID(webhook_id), UUID(record_id), message)


class Calls:
    """Makes the calls to webhooks."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    async def make(self, webhook_id: UUID, record_id: UUID, message: dict[str, Any]) -> None:
        """Call a webhook once; raises NotTaken unless it answers 2xx. One that is gone or disabled is left alone.

        The person's id goes along unless their case is closed to the institution meanwhile: then nothing is said.
        """
        async with self._database.connection() as connection:
            query = select(webhook).where(webhook.c.id == webhook_id, webhook.c.disabled.is_(False))
            found = (await connection.execute(query)).one_or_none()
            if found is None:
                return
            record = await read_record(connection, record_id)
            if await individuals.is_closed(connection, record.subject, found.institution):
                _calls.labels("withheld").inc()
                return
        body = canonical_json({**message, "dataAgreementId": record.agreement, "individualId": str(record.subject)})
        secret = self._vault.open(_COLUMN, webhook_id, bytes(found.secret))
        async with calling(found.url) as post:
            reply = await post(body, {SIGNATURE_HEADER: signature_of(secret, body)})
        _calls.labels("taken" if reply.taken else "failed").inc()
        if not reply.taken:
            _log.warning("webhook.not_taken", webhook=str(webhook_id), status=reply.status)
            raise NotTaken(str(webhook_id))


def signature_of(secret: str, body: bytes) -> str:
    """Return what the signature header says: HMAC-SHA256 (RFC 2104) of the body under the secret, hexadecimal."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _checked(call: Call, *, secret_needed: bool) -> dict[str, Any]:
    given: dict[str, Any] = call.message["webhook"]
    if not may_be_called(given["payloadUrl"], local=call.local):
        detail = _("Use una dirección https sin usuario ni fragmento.")
        raise errors.BadRequest("bad-url", pointer="/webhook/payloadUrl", detail=detail)
    if given["contentType"] != CONTENT_TYPE:
        raise errors.BadRequest("unknown-code", pointer="/webhook/contentType", allowed=[CONTENT_TYPE])
    if secret_needed and not given["secretKey"]:
        detail = _("La clave secreta lleva de 16 a 200 caracteres.")
        raise errors.BadRequest("bad-secret", pointer="/webhook/secretKey", detail=detail)
    return given


def _values(given: dict[str, Any]) -> dict[str, Any]:
    return {"url": given["payloadUrl"], "content_type": given["contentType"], "disabled": given["disabled"]}


async def _changed(call: Call, event: str, webhook_id: UUID) -> Answer:
    said = {"event": event, "webhook": str(webhook_id)}
    return said, {"webhook": await _one(call.connection, webhook_id)}


async def _mine(call: Call) -> UUID:
    webhook_id = object_id(call.path["webhookId"])
    mine = (webhook.c.id == webhook_id) & (webhook.c.institution == call.institution)
    if await call.connection.scalar(select(webhook.c.id).where(mine)) is None:
        raise errors.NotFound("not-found")
    return webhook_id


async def _one(connection: AsyncConnection, webhook_id: UUID) -> dict[str, Any]:
    return _json((await connection.execute(select(webhook).where(webhook.c.id == webhook_id))).one())


def _json(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "payloadUrl": row.url,
        "contentType": row.content_type,
        "disabled": row.disabled,
        "secretKey": "",
    }
