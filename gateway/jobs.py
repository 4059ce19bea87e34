"""Durable work on the same PostgreSQL: jobs are deferred inside the business transaction and carry ids only."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from procrastinate import App, PsycopgConnector
from procrastinate.schema import SchemaManager
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.database import CONNECT_OPTIONS, driver_connection

DELIVER = "deliver"
# A queue that has just filled has no statistics, and the planner would sort all of it for every single job: on these
# connections, which do nothing else, it takes the next one from the index.
_QUEUE_OPTIONS = f"{CONNECT_OPTIONS} -c enable_sort=off -c enable_bitmapscan=off -c enable_hashjoin=off"
_unconnected = App(connector=PsycopgConnector())


def job_app(url: str) -> App:
    """Return the job library's application on a database (libpq address)."""
    return App(
        connector=PsycopgConnector(
            conninfo=url, kwargs={"options": _QUEUE_OPTIONS, "connect_timeout": 5}, min_size=1, max_size=6
        )
    )


async def defer_delivery(connection: AsyncConnection, referral_id: UUID, after: timedelta | None = None) -> None:
    """Defer the delivery of a referral in the caller's transaction; deliveries of one referral run one at a time."""
    driver = await driver_connection(connection)
    key = str(referral_id)
    if after is None:
        deferrer = _unconnected.configure_task(DELIVER, lock=key, connection=driver)
    else:
        deferrer = _unconnected.configure_task(
            DELIVER, lock=key, connection=driver, schedule_in={"seconds": int(after.total_seconds()) or 1}
        )
    await deferrer.defer_async(referral_id=key)


def job_schema() -> str:
    """Return the SQL that creates the job library's tables."""
    return SchemaManager.get_schema()
