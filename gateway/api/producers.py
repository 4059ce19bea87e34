"""The producers over HTTP: ``GET /api/v1/producers``, what each holds and how it was last seen."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from adapters.registry import Adapters
from gateway.api.request import Door
from gateway.database import Database
from gateway.producers.service import describe, last_seen


def build_router(door: Door, adapters: Adapters, database: Database) -> APIRouter:
    """Return the route of the producers."""
    router = APIRouter(tags=["Instituciones"])

    @router.get("/api/v1/producers")
    async def producers(request: Request) -> Response:
        """List the institutions' systems: kind, datasets, services, health with reason and since when."""
        request.state.verified = door.caller(request, "producers.read")
        async with database.connection() as connection:
            seen = await last_seen(connection)
        body = orjson.dumps({"producers": describe(adapters, seen)})
        return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")

    return router
