"""Health and metrics: alive (the process), ready (database reachable, migrations known, workers), numbers."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from gateway import migrations
from gateway.database import Database
from gateway.witnesses.quorum import NO_WITNESSES, Quorum

_WORKERS = text(
    "SELECT count(*) FROM jobs.procrastinate_workers WHERE last_heartbeat > now() - make_interval(secs => 15)"
)


def build_router(database: Database, quorum: Quorum = NO_WITNESSES) -> APIRouter:
    """Return the routes that orchestrators and Prometheus ask."""
    router = APIRouter(tags=["Salud"])

    @router.get("/health/live")
    async def live() -> Response:
        """Say that the process answers."""
        return Response(b'{"status":"ok"}', 200, media_type="application/json")

    @router.get("/health/ready")
    async def ready() -> Response:
        """Say whether requests can be served; missing workers or witnesses degrade, they do not fail (DESIGN 9.14)."""
        try:
            async with database.connection() as connection:
                found = await connection.run_sync(migrations.current)
                current = migrations.known(found)
                workers = await _workers(connection) if current else 0
        except (SQLAlchemyError, OSError, TimeoutError):
            return _answer(503, "unavailable", database=False, migrations=False, workers=0)
        if not current:
            return _answer(503, "unavailable", database=True, migrations=False, workers=0)
        witnesses = quorum.standing.state
        word = "ok" if workers and witnesses != "missing" else "degraded"
        return _answer(200, word, database=True, migrations=True, workers=workers, witnesses=witnesses)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Return counters and histograms in Prometheus' text format; no label holds anything personal."""
        return Response(generate_latest(), 200, media_type=CONTENT_TYPE_LATEST)

    return router


async def _workers(connection: AsyncConnection) -> int:
    return int(await connection.scalar(_WORKERS) or 0)


def _answer(status: int, word: str, **checks: bool | int | str) -> Response:
    return Response(orjson.dumps({"status": word, "checks": checks}), status, media_type="application/json")
