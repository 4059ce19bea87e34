"""deliveries make no noise of their own in the job library's tables: no notification, no events.

A notification has every commit that makes one wait for the one before, down to the disk; workers look for deliveries
several times a second anyway. And nobody reads the library's events of a job.
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# Name → when, on which row, under which further condition, and what it calls: as the library has them, but for queues.
_TRIGGERS = {
    "procrastinate_jobs_notify_queue_job_inserted_v1": (
        "AFTER INSERT",
        "new",
        "new.status = 'todo'",
        "procrastinate_notify_queue_job_inserted_v1",
    ),
    "procrastinate_trigger_status_events_insert_v1": (
        "AFTER INSERT",
        "new",
        "new.status = 'todo'",
        "procrastinate_trigger_function_status_events_insert_v1",
    ),
    "procrastinate_trigger_status_events_update_v1": (
        "AFTER UPDATE OF status",
        "new",
        "true",
        "procrastinate_trigger_function_status_events_update_v1",
    ),
    "procrastinate_trigger_scheduled_events_v1": (
        "AFTER UPDATE OR INSERT",
        "new",
        "new.scheduled_at IS NOT NULL AND new.status = 'todo'",
        "procrastinate_trigger_function_scheduled_events_v1",
    ),
    "procrastinate_trigger_delete_jobs_v1": ("BEFORE DELETE", "old", "true", "procrastinate_unlink_periodic_defers_v1"),
}


def upgrade() -> None:
    for name, (moment, row, condition, function) in _TRIGGERS.items():
        op.execute(
            f"CREATE OR REPLACE TRIGGER {name} {moment} ON jobs.procrastinate_jobs FOR EACH ROW "
            f"WHEN ({condition} AND {row}.queue_name NOT LIKE 'to:%') EXECUTE FUNCTION jobs.{function}()"
        )
