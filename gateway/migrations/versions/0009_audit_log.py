"""yearly logs, tiles, search, witnesses and pruning of the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from audit.tiles import Edge

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Entries numbered before logs had years belong to the year of the migration.
_YEAR = sa.text("extract(year FROM now() AT TIME ZONE 'UTC')")


def upgrade() -> None:
    for table in ("sequence", "checkpoint", "tree"):
        op.add_column(table, sa.Column("log", sa.SmallInteger(), nullable=False, server_default=_YEAR), schema="audit")
        op.alter_column(table, "log", server_default=None, schema="audit")
        op.drop_constraint(f"{table}_pkey", table, schema="audit")
    op.drop_index("tree_one_row", table_name="tree", schema="audit")
    op.drop_constraint("checkpoint_number_key", "checkpoint", schema="audit")
    op.create_primary_key("sequence_pkey", "sequence", ["log", "index"], schema="audit")
    op.create_primary_key("checkpoint_pkey", "checkpoint", ["log", "size"], schema="audit")
    op.create_primary_key("tree_pkey", "tree", ["log"], schema="audit")
    op.create_index("checkpoint_number", "checkpoint", ["log", "number"], unique=True, schema="audit")
    op.add_column(
        "entry",
        sa.Column("terms", postgresql.ARRAY(sa.Text()), nullable=False, server_default=sa.text("'{}'")),
        schema="audit",
    )
    op.create_table(
        "tile",
        sa.Column("log", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log", "level", "number"),
        schema="audit",
    )
    op.create_table(
        "block",
        sa.Column("log", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("terms", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("log", "number"),
        schema="audit",
    )
    op.create_index("block_terms", "block", ["terms"], unique=False, schema="audit", postgresql_using="gin")
    op.create_table(
        "cosignature",
        sa.Column("log", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("witness", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("log", "size", "witness"),
        schema="audit",
    )
    op.create_table(
        "time_stamp",
        sa.Column("log", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("log", "size"),
        schema="audit",
    )
    op.create_table(
        "pruned",
        sa.Column("log", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("minimum", sa.BigInteger(), nullable=False),
        sa.Column("chains", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("log"),
        schema="audit",
    )
    op.create_table(
        "witnessed",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("verifier_key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("origin"),
        schema="audit",
    )
    _cut_tiles()
    # The integrator's own writer; the tree's first row it makes itself. The triggers refuse what the log never does.
    op.execute("ALTER TABLE audit.writer DISABLE TRIGGER USER")
    op.execute(
        "INSERT INTO audit.writer (slot, counter, last_leaf) "
        "SELECT max(slot) + 1, 0, decode(repeat('00', 32), 'hex') FROM audit.writer"
    )
    op.execute("ALTER TABLE audit.writer ENABLE TRIGGER USER")
    op.execute("ALTER TABLE audit.tree DISABLE TRIGGER USER")
    op.execute("DELETE FROM audit.tree WHERE size = 0")
    op.execute("ALTER TABLE audit.tree ENABLE TRIGGER USER")


def _cut_tiles() -> None:
    """Make the tiles of what is numbered already, and its blocks, which have no search terms."""
    edge, log = Edge(), None
    leaves = sa.text("SELECT log, leaf_hash FROM audit.sequence ORDER BY log, index")
    for row in op.get_bind().execute(leaves.execution_options(yield_per=10_000)):
        log = row.log
        edge.append(row.leaf_hash)
    tile = sa.text("INSERT INTO audit.tile (log, level, number, hashes) VALUES (:log, :level, :number, :hashes)")
    for key, hashes in (edge.take_full() | edge.growing()).items():
        op.execute(tile.bindparams(log=log, level=key.level, number=key.number, hashes=hashes))
    op.execute("""
        INSERT INTO audit.block (log, number, first_at, last_at, terms)
        SELECT s.log, s.index / 256, min(e.at), max(e.at), CAST('{}' AS text[])
        FROM audit.sequence AS s JOIN audit.entry AS e ON e.id = s.entry_id
        GROUP BY s.log, s.index / 256 HAVING count(*) = 256
    """)
