"""Signed links over HTTP: for supervisors who make them, and the pages of offices that come by them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import orjson
from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from adapters.models import Reply
from audit.errors import AuditUnavailable, SubjectErased
from consent.models import Caller
from gateway import errors
from gateway.api.documentation import body_of
from gateway.api.request import Door, idempotency_key, media_type, peer_of, read_message, telling_headers
from gateway.clock import PARAGUAY, local_day, utc_now
from gateway.commands import Command, Done
from gateway.identity.errors import TooMany
from gateway.links import pages
from gateway.links.service import ACTS, USUAL_HOURS, USUAL_USES, Link, Links, NewLink
from schemas.errors import InvalidIdentifier, SchemaError
from schemas.ids import parse_uuid, uuid7
from schemas.text import _
from schemas.validation import validate

_SCOPE, _REQUEST, _REPLY = "links.manage", "link-request", "counter-referral"
_FORM = "application/x-www-form-urlencoded"
_MAX_FORM_BYTES, _MAX_FIELDS = 16 * 1024, 20
_HTML = "text/html; charset=utf-8"
_NOWHERE = UUID(int=0)


def build_router(door: Door, links: Links) -> APIRouter:
    """Return the routes of links, for systems and for offices."""
    router = APIRouter(tags=["Enlaces"])

    @router.post("/api/v1/referrals/{referral_id}/links", status_code=201, openapi_extra=body_of(_REQUEST))
    async def make(request: Request, referral_id: str) -> Response:
        """Make a signed link to a referral, for an office of its recipient that has no system."""
        caller = _caller(request)
        body = await door.body(request)
        key = idempotency_key(request)
        message = read_message(_REQUEST, body)
        command = Command(caller.client_id, f"{_REQUEST}:{referral_id}:{key}", body)
        new = NewLink(
            acts=tuple(message.get("acts", ACTS)),
            hours=message.get("hours", USUAL_HOURS),
            uses=message.get("uses", USUAL_USES),
        )
        return _done(await links.make(caller, _id(referral_id), new, command), 201)

    @router.get("/api/v1/referrals/{referral_id}/links")
    async def listing(request: Request, referral_id: str) -> Response:
        """List the links to a referral, to its parties and the coordinator; neither address nor PIN."""
        found = await links.list(_caller(request), _id(referral_id))
        return _json({"links": [link_json(each) for each in found]})

    @router.get("/api/v1/links/{link_id}/pin")
    async def pin(request: Request, link_id: str) -> Response:
        """Show the PIN of a link, which the recipient or the coordinator tells the office by phone."""
        return _json(await links.pin(_caller(request), _id(link_id)))

    @router.post("/api/v1/links/{link_id}/revoke")
    async def revoke(request: Request, link_id: str) -> Response:
        """Take a link back at once."""
        return _done(await links.revoke(_caller(request), _id(link_id)), 200)

    @router.get("/enlace/{token}")
    async def look(request: Request, token: str) -> Response:
        """Ask an office for its PIN. Shows nothing of anybody and changes nothing: programs follow links too."""
        return await _page(request, None, token)

    @router.post("/enlace/{token}")
    async def answer(request: Request, token: str) -> Response:
        """Show an office the referral, or take its answer."""
        form = await _form(request)
        return _unreadable() if form is None else await _page(request, form, token)

    async def _page(request: Request, form: Mapping[str, str] | None, token: str) -> Response:
        address = peer_of(request.scope, telling_headers(request.scope), door.proxies).address or None
        try:
            door.limits.admit(None, address or "")
            return await _served(form, token, address)
        except (errors.NotFound, SubjectErased):
            return _gone()
        except TooMany as error:
            return _wait(429, error.retry_after_s)
        except (errors.EvidenceStopped, AuditUnavailable, SQLAlchemyError):
            return _wait(503, 60)

    async def _served(form: Mapping[str, str] | None, token: str, address: str | None) -> Response:
        if form is None:
            await links.look_at(token)
            return _html(200, pages.ask_pin())
        try:
            if form.get("paso") != "responder":
                opened = await links.open(token, form.get("pin", ""), address)
                return _html(200, pages.show(opened, uuid7(), utc_now()))
            return await _answered(form, token, address)
        except errors.Conflict as error:
            told = {
                "wrong-pin": _("El PIN no es ese. Después de cinco errores el enlace se cierra."),
                "pass-ended": _("La página estuvo abierta mucho tiempo. Escriba el PIN otra vez."),
            }
            return _html(403, pages.ask_pin(told[error.code]))

    async def _answered(form: Mapping[str, str], token: str, address: str | None) -> Response:
        passing = form.get("pase", "")
        try:
            done = await links.act(token, passing, _reply(form), address)
        except (SchemaError, errors.BadRequest):
            opened = await links.again(token, passing, address)
            problem = _("Falta un dato o no es válido: revise lo que escribió.")
            return _html(422, pages.show(opened, uuid7(), utc_now(), problem))
        except errors.Conflict as error:
            if error.code != "out-of-order":
                raise
            said = _("La referencia ya está en otro estado; abra el enlace de nuevo para verla.")
            return _html(409, pages.tell(_("No se anotó"), said))
        number = done.get("receipt", {}).get("entry_id", "")
        said = _("Su respuesta quedó anotada. Comprobante: {number}").format(number=number)
        return _html(200, pages.tell(_("Anotado"), said))

    def _caller(request: Request) -> Caller:
        verified = door.caller(request, _SCOPE)
        request.state.verified = verified
        return door.with_operator(request, verified, None)

    return router


def link_json(link: Link) -> dict[str, Any]:
    """Return a link as those see it who can take it back."""
    return {
        "id": str(link.id),
        "referral": str(link.referral_id),
        "institution": link.institution,
        "acts": link.acts,
        "made_by": link.made_by,
        "made_at": link.made_at.isoformat(),
        "expires_at": link.expires_at.isoformat(),
        "uses": link.uses,
        "uses_allowed": link.uses_allowed,
        "wrong_pins": link.wrong_pins,
        "revoked_at": None if link.revoked_at is None else link.revoked_at.isoformat(),
    }


async def _form(request: Request) -> dict[str, str] | None:
    """Read a small form; ``None`` for anything else, or where a field comes twice."""
    if media_type(request) != _FORM:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _MAX_FORM_BYTES:
            return None
        parts.append(part)
    try:
        pairs = parse_qsl(
            b"".join(parts).decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        return None
    form = dict(pairs)
    # PostgreSQL holds no NUL, and two values of one field are no answer.
    return None if len(form) != len(pairs) or any("\x00" in value for value in form.values()) else form


def _reply(form: Mapping[str, str]) -> Reply:
    """Read an office's answer under the rules of any counter-referral; raises SchemaError, BadRequest."""
    given = {name: value.strip() for name, value in form.items() if value.strip()}
    today, event = local_day(utc_now()), given.get("acto", "")
    message: dict[str, Any] = {
        "event": event,
        "message_id": given.get("mensaje", ""),
        "occurred_on": given.get("dia", today.isoformat()),
    }
    if "motivo" in given:
        message["reason"] = {
            "code": given["motivo"],
            **({"text": given["detalle"]} if "detalle" in given else {}),
        }
    for name, field in (("resultado", "outcome"), ("comprobante", "proof_reference"), ("lugar", "place")):
        if name in given:
            message[field] = given[name]
    if event == "schedule":
        message["appointment"] = {"at": _moment(given.get("cita", ""))}
    validate(_REPLY, message)
    occurred_on = date.fromisoformat(message["occurred_on"])
    if occurred_on > today:
        raise errors.BadRequest("bad-day", pointer="/occurred_on")
    try:
        parse_uuid(message["message_id"])
    except InvalidIdentifier:
        raise errors.BadRequest("bad-identifier", pointer="/message_id") from None
    reason = message.get("reason", {})
    return Reply(
        referral_id=_NOWHERE,
        message_id=message["message_id"],
        event=event,
        occurred_on=occurred_on,
        outcome=message.get("outcome"),
        reason_code=reason.get("code"),
        reason_text=reason.get("text"),
        appointment_at=message.get("appointment", {}).get("at"),
        place=message.get("place"),
        proof_reference=message.get("proof_reference"),
    )


def _moment(text: str) -> str:
    """Return a moment that a browser's field gave, in Paraguay's time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return at.isoformat() if at.tzinfo is not None else at.replace(tzinfo=PARAGUAY).isoformat()


def _id(text: str) -> UUID:
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise errors.NotFound("not-found") from None


def _gone() -> Response:
    # The same to the last byte for a link that never was, ended, was taken back or belongs to somebody else.
    said = _("El enlace venció, se retiró o no existe. Pida otro a quien se lo envió.")
    return _html(404, pages.tell(_("Este enlace no sirve"), said))


def _wait(status: int, seconds: float) -> Response:
    said = _("Ahora no se puede atender. Nada se mostró ni se anotó; intente más tarde.")
    answer = _html(status, pages.tell(_("Intente más tarde"), said))
    answer.headers["Retry-After"] = str(int(seconds))
    return answer


def _unreadable() -> Response:
    return _html(400, pages.tell(_("No se entendió"), _("Abra el enlace de nuevo y complete el formulario.")))


def _html(status: int, content: bytes) -> Response:
    return Response(content, status, pages.HEADERS, _HTML)


def _done(done: Done, status: int) -> Response:
    headers = {"Idempotency-Replayed": "true"} if done.replayed else {}
    return Response(orjson.dumps(done.answer), status, {"Cache-Control": "no-store", **headers}, "application/json")


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-store"}, "application/json")
