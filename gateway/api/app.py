"""The HTTP application: the routes of every resource, with the disclosure route placed ahead of the router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from audit.published import Published
from gateway.api import (
    achievements,
    agreements,
    anomalies,
    audit,
    boards,
    breaches,
    catalogue,
    codes,
    consent_bb,
    consents,
    decisions,
    delivery,
    disclosures,
    emergencies,
    facts,
    forms,
    guidance,
    health,
    hsds,
    links,
    log,
    merges,
    oauth,
    people,
    producers,
    protection,
    receipts,
    referrals,
    reports,
    rights,
    roles,
    statistics,
    subscriptions,
    usage,
    usage_abroad,
)
from gateway.api.answers import Answers
from gateway.api.proofs import settle_proofs
from gateway.api.request import Door
from gateway.auditing.forms import Source
from gateway.runtime import Runtime
from gateway.standards.fhir.service import FhirIntake
from gateway.standards.govstack import webhooks
from gateway.witnesses.policy import policy_text

_DESCRIPTION = (
    "Pasarela de interoperabilidad del SIIS: consultas con decisión previa, referencias que se cierran y un registro "
    "que se prueba a sí mismo."
)


def create_app(runtime: Runtime) -> ASGIApp:
    """Build the application over an open runtime; the caller closes the runtime."""
    door = Door(
        runtime.checker,
        runtime.settings.max_body_bytes,
        issuer=runtime.tokens.issuer,
        proxies=runtime.proxies,
        limits=runtime.limits,
        subjects=runtime.subjects,
    )
    answers = Answers(runtime.refusals, runtime.settings.max_body_bytes)
    disclose = disclosures.build_endpoint(door, runtime.exchange)
    asking = disclosures.build_router(disclose)
    # A redirect would be built from the request's own Host, and send the body there.
    app = FastAPI(title="SIIS", version="1", description=_DESCRIPTION, lifespan=_no_lifespan, redirect_slashes=False)
    app.include_router(oauth.build_router(runtime.tokens, on_refusal=runtime.refusals.token, proxies=runtime.proxies))
    app.include_router(asking)
    app.include_router(referrals.build_router(door, runtime.referrals, FhirIntake(runtime.referrals)))
    app.include_router(protection.build_router(door, runtime.statuses))
    app.include_router(achievements.build_router(door, runtime.achievements))
    app.include_router(statistics.build_router(door, runtime.statistics, runtime.trajectories))
    app.include_router(producers.build_router(door, runtime.adapters, runtime.database))
    app.include_router(codes.build_router(door))
    app.include_router(catalogue.build_router(door, runtime.governance, runtime.catalogue))
    app.include_router(hsds.build_router(runtime.catalogue, runtime.tokens.issuer.url))
    app.include_router(agreements.build_router(door, runtime.governance))
    app.include_router(roles.build_router(door, runtime.governance))
    app.include_router(emergencies.build_router(door, runtime.governance))
    app.include_router(consents.build_router(door, runtime.consents))
    app.include_router(people.build_router(door, runtime.protection))
    app.include_router(merges.build_router(door, runtime.merges))
    app.include_router(rights.build_router(door, runtime.rights))
    app.include_router(breaches.build_router(door, runtime.breaches))
    app.include_router(subscriptions.build_router(door, runtime.subscriptions))
    app.include_router(decisions.build_router(door, runtime.explanations))
    app.include_router(usage.build_router(door, runtime.usage))
    app.include_router(usage_abroad.build_router(door, runtime.usage, runtime.refusals))
    app.include_router(forms.build_router(door, runtime.forms))
    app.include_router(facts.build_router(door, runtime.reported))
    app.include_router(guidance.build_router(door, runtime.guidance, runtime.threads))
    app.include_router(reports.build_router(door, runtime.reports))
    app.include_router(boards.build_router(door, runtime.governance, runtime.boards, runtime.cases))
    app.include_router(links.build_router(door, runtime.links))
    app.include_router(delivery.build_router(door, runtime.delivery_desk))
    app.include_router(receipts.build_router(door, runtime.governance))
    source = Source(runtime.tokens.issuer.url, runtime.settings.log_origin, version("siis-gateway"))
    app.include_router(audit.build_router(door, runtime.auditing, runtime.exports, source))
    app.include_router(anomalies.build_router(door, runtime.anomalies))
    # Whichever face a person answers at, webhooks of the building block learn of it.
    runtime.governance.followers.append(webhooks.tell)
    app.include_router(consent_bb.build_router(door, runtime.governance, runtime.vault, runtime.refusals))
    published = Published(runtime.database.engine)
    policy = partial(policy_text, runtime.signer, witnesses_file=runtime.settings.witnesses)
    app.include_router(log.build_router(door, runtime.governance, published, policy))
    app.include_router(health.build_router(runtime.database, runtime.quorum))
    for kind, answering in answers.by_kind.items():
        app.add_exception_handler(kind, answering)

    # The router and its middlewares cost a third of what a disclosure may cost (docs/performance.md).
    async def ahead(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != disclosures.PATH or scope["method"] != "POST":
            # Answered and noted by then; the framework raises it once more, and the server would print its text.
            with suppress(Exception):
                await app(scope, receive, send)
            return
        scope["route"] = asking.routes[0]
        request = Request(scope, receive)
        try:
            response = await disclose(request)
        except Exception as error:  # noqa: BLE001
            response = await answers.respond(request, error)
        await response(scope, receive, send)

    return settle_proofs(ahead, door)


@asynccontextmanager
async def _no_lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
