"""messages to a recipient after the referral, and the lanes by which all workers share what an institution can take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_INSTANTS = {
    "paused_at": None,
    "closed_until": "nothing is sent before; then one message to try",
    "reopened_at": "its rate grows from here, so that nobody is flooded",
    "stocked_at": None,
    "taken_at": "when a worker last took messages for it",
}

# A statement inside the function sees what other workers committed before the lane's row was locked: so what is under
# way is counted exactly, whoever took it. A lane that another worker has in hand is left to that one.
_TAKE = """
CREATE FUNCTION siis.take_deliveries(
    taker bigint, moment timestamptz, lanes text[], wanted integer[], places integer[], rates double precision[]
) RETURNS TABLE (job bigint, referral uuid, institution text, starts integer, troubled boolean)
LANGUAGE plpgsql SET enable_sort = off SET enable_bitmapscan = off AS $$
DECLARE
    gate record;
    room integer;
    rate double precision;
    held double precision;
    taken integer;
BEGIN
    FOR gate IN
        SELECT g.*, l.wanted, l.places, l.rate AS agreed
        FROM siis.delivery_lane AS g
        JOIN unnest(lanes, wanted, places, rates) AS l (lane, wanted, places, rate) ON l.lane = g.institution
        WHERE NOT g.paused AND l.wanted > 0 AND (g.closed_until IS NULL OR g.closed_until <= moment)
            AND EXISTS (
                SELECT FROM jobs.procrastinate_jobs AS j
                WHERE j.queue_name = 'to:' || g.institution AND j.status = 'todo'
                    AND coalesce(j.scheduled_at, moment) <= moment
            )
        FOR UPDATE OF g SKIP LOCKED
    LOOP
        -- One that did not answer gets a single message first.
        room := least(gate.wanted, CASE WHEN gate.closings > 0 THEN 1 ELSE gate.places END - (
            SELECT count(*) FROM jobs.procrastinate_jobs AS j
            WHERE j.queue_name = 'to:' || gate.institution AND j.status = 'doing'
        ));
        rate := gate.agreed;
        IF gate.reopened_at > moment - interval '10 seconds' THEN
            rate := least(rate, 2 ^ greatest(extract(epoch FROM moment - gate.reopened_at), 0));
        END IF;
        held := NULL;
        IF rate IS NOT NULL THEN
            held := least(
                greatest(rate, 1),
                coalesce(gate.stock, 1) + rate * coalesce(extract(epoch FROM moment - gate.stocked_at), 0)
            );
            room := least(room, floor(held)::integer);
        END IF;
        CONTINUE WHEN room <= 0;
        RETURN QUERY
            WITH due AS (
                SELECT j.id
                FROM jobs.procrastinate_jobs AS j
                WHERE j.queue_name = 'to:' || gate.institution AND j.status = 'todo'
                    AND coalesce(j.scheduled_at, moment) <= moment
                    AND NOT EXISTS (
                        SELECT FROM jobs.procrastinate_jobs AS o
                        WHERE o.lock = j.lock AND (
                            o.status = 'doing'
                            OR o.status = 'todo' AND o.id < j.id AND coalesce(o.scheduled_at, moment) <= moment
                        )
                    )
                ORDER BY j.id
                LIMIT room
                FOR UPDATE OF j SKIP LOCKED
            )
            UPDATE jobs.procrastinate_jobs AS j
            SET status = 'doing', worker_id = taker, attempts = j.attempts + 1
            FROM due WHERE j.id = due.id
            RETURNING j.id, (j.args ->> 'referral_id')::uuid, gate.institution, j.attempts, gate.failures > 0;
        GET DIAGNOSTICS taken = ROW_COUNT;
        UPDATE siis.delivery_lane AS g
        SET taken_at = moment, stock = held - taken, stocked_at = CASE WHEN held IS NOT NULL THEN moment END
        WHERE g.institution = gate.institution;
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "message",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("referral_id", sa.Uuid(), nullable=False),
        sa.Column(
            "number",
            sa.Integer(),
            nullable=False,
            comment="place among the referral's messages; the referral itself is 0",
        ),
        sa.Column("kind", sa.Text(), nullable=False, comment="cancel, reopen, note"),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("event_number", sa.Integer(), nullable=False, comment="the event of the referral it tells of"),
        sa.Column("texts", sa.LargeBinary(), nullable=True),
        sa.Column(
            "delivery",
            sa.Text(),
            nullable=False,
            comment="as of a referral, or needless: confirmed by the gateway",
        ),
        sa.Column("delivery_reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("concluded_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["referral_id"], ["siis.referral.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("referral_id", "number"),
        schema="siis",
    )
    op.create_index(
        "message_waiting",
        "message",
        ["recipient", "delivery"],
        schema="siis",
        postgresql_where=sa.text("delivery <> 'transmitted'"),
    )
    op.create_table(
        "delivery_lane",
        sa.Column("institution", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("paused_by", sa.Text(), nullable=True, comment="institution of who paused it"),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False, comment="in a row, without an answer"),
        sa.Column(
            "closings", sa.Integer(), server_default="0", nullable=False, comment="times closed since its last answer"
        ),
        sa.Column("stock", sa.Float(), nullable=True, comment="messages it may get at once under its rate"),
        sa.Column("transmitted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("retried", sa.BigInteger(), server_default="0", nullable=False),
        *(sa.Column(name, sa.DateTime(timezone=True), comment=comment) for name, comment in _INSTANTS.items()),
        sa.PrimaryKeyConstraint("institution"),
        schema="siis",
    )
    # One queue for each institution; what waits from before joins its own.
    op.execute(
        """
        UPDATE jobs.procrastinate_jobs AS j SET queue_name = 'to:' || r.recipient
        FROM siis.referral AS r WHERE j.task_name = 'deliver' AND r.id = (j.args ->> 'referral_id')::uuid
        """
    )
    op.execute(
        "CREATE INDEX siis_jobs_waiting ON jobs.procrastinate_jobs (queue_name, id) WHERE status = 'todo'",
    )
    op.execute("CREATE INDEX siis_jobs_under_way ON jobs.procrastinate_jobs (queue_name) WHERE status = 'doing'")
    op.execute(_TAKE)
