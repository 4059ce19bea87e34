"""yearly logs, tiles, search, witnesses and pruning of the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from gateway.migrations.errors import CannotCarryOver

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Signed under another name and key, and its persons' keys wrapped by another one: nothing of it would verify.
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM audit.entry)")):
        raise CannotCarryOver
    for table in ("sequence", "checkpoint", "tree"):
        column = sa.Column("log", sa.SmallInteger(), nullable=False, server_default=sa.text("0"))
        op.add_column(table, column, schema="audit")
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
    # The integrator's own writer; the tree's first row it makes itself. The triggers refuse what the log never does.
    op.execute("ALTER TABLE audit.writer DISABLE TRIGGER USER")
    op.execute(
        "INSERT INTO audit.writer (slot, counter, last_leaf) "
        "SELECT max(slot) + 1, 0, decode(repeat('00', 32), 'hex') FROM audit.writer"
    )
    op.execute("ALTER TABLE audit.writer ENABLE TRIGGER USER")
    op.execute("ALTER TABLE audit.tree DISABLE TRIGGER USER")
    op.execute("DELETE FROM audit.tree")
    op.execute("ALTER TABLE audit.tree ENABLE TRIGGER USER")
