"""Durable work on the same PostgreSQL: jobs are deferred inside the business transaction and carry ids only."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from procrastinate import App, PsycopgConnector
from procrastinate.schema import SchemaManager
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.database import CONNECT_OPTIONS, driver_connection

DELIVER, RECALL = "deliver", "recall"
# Deliveries wait in one queue for each recipient, from which lanes take them; this is the queue of all other tasks.
OTHER_TASKS = "default"
# A queue that has just filled has no statistics, and the planner would sort all of it for every single job: on these
# connections, which do nothing else, it takes the next one from the index.
_QUEUE_OPTIONS = f"{CONNECT_OPTIONS} -c enable_sort=off -c enable_bitmapscan=off -c enable_hashjoin=off"
_unconnected = App(connector=PsycopgConnector())

# The library's own call costs several times this statement in Python, and this runs for every referral.
_DEFER = """
INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, lock, args, scheduled_at)
SELECT 'to:' || recipient, 'deliver', id::text, jsonb_build_object('referral_id', id), now() + %s::interval
FROM siis.referral WHERE id = %s
"""


def job_app(url: str) -> App:
    """Return the job library's application on a database (libpq address)."""
    return App(
        connector=PsycopgConnector(
            conninfo=url, kwargs={"options": _QUEUE_OPTIONS, "connect_timeout": 5}, min_size=1, max_size=6
        )
    )


async def defer_delivery(connection: AsyncConnection, referral_id: UUID, after: timedelta | None = None) -> None:
    """Defer the next transmission of a referral to its recipient in the caller's transaction, at once or after a while.

    Those of one referral run one at a time.
    """
    driver = await driver_connection(connection)
    await driver.execute(_DEFER, (after, referral_id), prepare=True)


async def defer_recall(connection: AsyncConnection, referral_id: UUID) -> None:
    """Defer the question whether a referral that its requester takes back was ever sent at all."""
    driver = await driver_connection(connection)
    task = _unconnected.configure_task(RECALL, queue=OTHER_TASKS, connection=driver)
    await task.defer_async(referral_id=str(referral_id))


def job_schema() -> str:
    """Return the SQL that creates the job library's tables."""
    return SchemaManager.get_schema()
