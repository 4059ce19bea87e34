"""Subscriptions to events over HTTP: made, seen and ended by their institution; events pulled and confirmed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from consent.models import Caller
from gateway.api import paging
from gateway.api.documentation import body_of
from gateway.api.request import Door, idempotency_key, read_message
from gateway.api.rights import record_id, shown, told
from gateway.commands import Command, Done
from gateway.subscriptions.models import Filter, NewSubscription, Subscription
from gateway.subscriptions.service import Subscriptions
from schemas.ids import parse_uuid

_MANAGE, _READ = "events.manage", "events.read"
_REQUEST, _NEXT, _CONFIRM = "subscription-request", "subscription-next", "subscription-confirm"
_PATH = "/api/v1/subscriptions"
_USUAL, _USUAL_LEASE_S = 50, 60


def build_router(door: Door, subscriptions: Subscriptions) -> APIRouter:
    """Return the routes of subscriptions."""
    router = APIRouter(tags=["Avisos"])

    @router.post(_PATH, status_code=201, openapi_extra=body_of(_REQUEST))
    async def create(request: Request) -> Response:
        """Subscribe the caller's institution to events; the answer shows the secret of a webhook, this once."""
        caller, message, body = await _message(request, _REQUEST, _MANAGE)
        command = Command(caller.client_id, f"{_REQUEST}:{idempotency_key(request)}", body)
        return told(_with_secret(*await subscriptions.create(caller, _new(message), command)), 201)

    @router.get(_PATH)
    async def page(request: Request) -> Response:
        """List the subscriptions of the caller's institution."""
        caller, asked = _caller(request, _MANAGE), paging.page_of(request)
        found = await subscriptions.page(caller, after=asked.after, limit=asked.limit)
        return paging.answer("subscriptions", [subscription_json(item) for item in found], asked)

    @router.get(_PATH + "/{subscription_id}")
    async def read(request: Request, subscription_id: str) -> Response:
        """Show a subscription of the caller's institution: its state, and how many events wait."""
        found = await subscriptions.read(_caller(request, _MANAGE), record_id(subscription_id))
        return shown(subscription_json(found))

    @router.delete(_PATH + "/{subscription_id}")
    async def remove(request: Request, subscription_id: str) -> Response:
        """End a subscription; what waits is not told any more."""
        work = subscriptions.removing(record_id(subscription_id))
        return told(await subscriptions.change(_caller(request, _MANAGE), work), 200)

    @router.post(_PATH + "/{subscription_id}/secret", status_code=201)
    async def renew(request: Request, subscription_id: str) -> Response:
        """Give a webhook another secret, shown this once; for a day the one before signs as well."""
        caller = _caller(request, _MANAGE)
        command = Command(caller.client_id, f"subscription-secret:{subscription_id}:{idempotency_key(request)}", b"")
        return told(_with_secret(*await subscriptions.renew(caller, record_id(subscription_id), command)), 201)

    @router.post(_PATH + "/{subscription_id}/enable")
    async def enable(request: Request, subscription_id: str) -> Response:
        """Let a webhook be called again at once, from where it stopped."""
        work = subscriptions.enabling(record_id(subscription_id))
        return told(await subscriptions.change(_caller(request, _MANAGE), work), 200)

    @router.post("/api/v1/events/next", openapi_extra=body_of(_NEXT))
    async def next_(request: Request) -> Response:
        """Hand out the next events of a subscription; what is not confirmed in time comes again."""
        caller, message, _body = await _message(request, _NEXT, _READ)
        pulled = await subscriptions.next(
            caller,
            record_id(message["subscription"]),
            limit=message.get("limit", _USUAL),
            lease=timedelta(seconds=message.get("lease_s", _USUAL_LEASE_S)),
        )
        return shown({"events": pulled.messages, "until": pulled.until.isoformat(), "more": pulled.more})

    @router.post("/api/v1/events/confirm", openapi_extra=body_of(_CONFIRM))
    async def confirm(request: Request) -> Response:
        """Confirm events by their ids: they do not come again."""
        caller, message, _body = await _message(request, _CONFIRM, _READ)
        ids = [parse_uuid(item) for item in message["ids"]]
        return shown({"confirmed": await subscriptions.confirm(caller, record_id(message["subscription"]), ids)})

    def _caller(request: Request, scope: str) -> Caller:
        verified = door.caller(request, scope)
        request.state.verified = verified
        return door.with_operator(request, verified, None)

    async def _message(request: Request, name: str, scope: str) -> tuple[Caller, dict[str, Any], bytes]:
        caller = _caller(request, scope)
        body = await door.body(request)
        return caller, read_message(name, body), body

    return router


def subscription_json(found: Subscription) -> dict[str, Any]:
    """Return a subscription without its secret."""
    moments = {name: getattr(found, name) for name in ("failing_since", "taken_at", "old_secret_until", "created_at")}
    return {
        "id": str(found.id),
        "institution": found.institution,
        "channel": found.channel,
        "state": found.state,
        **{name: sorted(getattr(found.wanted, name)) for name in Filter.__dataclass_fields__},
        "url": found.url,
        "position": found.position,
        "waiting": found.waiting,
        "failures": found.failures,
        **{name: None if moment is None else moment.isoformat() for name, moment in moments.items()},
    }


def _new(message: dict[str, Any]) -> NewSubscription:
    wanted = Filter(**{name: frozenset(message.get(name, ())) for name in Filter.__dataclass_fields__})
    return NewSubscription(channel=message["channel"], wanted=wanted, url=message.get("url"))


def _with_secret(done: Done, secret: str | None) -> Done:
    return done if secret is None else replace(done, answer={**done.answer, "secret": secret})
