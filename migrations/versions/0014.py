"""Locks that readers cannot take, and functions that they cannot call."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
works_from = "0003"

_LOOP = """
DO $$
DECLARE
    f regprocedure;
    owner text := (SELECT pg_get_userbyid(datdba) FROM pg_database
                   WHERE datname = current_database());
BEGIN
    FOR f IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
            AND pg_has_role(proowner, 'USAGE')
            AND (proname LIKE 'pg%advisory%' OR proname IN
                ('set_config', 'pg_logical_emit_message', 'pg_notify',
                 'pg_cancel_backend', 'pg_terminate_backend'))
    LOOP
        STATEMENTS
    END LOOP;
END $$
"""
LOCKS = ("leader_lock", "last_attempt_lock", "reader_login_lock")


def upgrade() -> None:
    """Apply."""
    _make_locks()
    _close_functions()


def downgrade() -> None:
    """Take back."""
    _open_functions()
    for lock in LOCKS:
        op.execute(f"DROP VIEW {lock}")


def _make_locks() -> None:
    for lock in LOCKS:
        op.execute(f"CREATE VIEW {lock} AS SELECT 'locked by LOCK TABLE' AS purpose")


def _close_functions() -> None:
    """Only a superuser can; `deploy/create-role.sh` has the same, and `doctor` tells of the rest.

    The owner of the database keeps the right, and so do roles that may read all data: `pg_dump`
    calls `set_config`.
    """
    _for_functions(
        "REVOKE EXECUTE ON FUNCTION %1$s FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION %1$s TO %2$I, pg_read_all_data",
    )


def _open_functions() -> None:
    _for_functions("GRANT EXECUTE ON FUNCTION %1$s TO PUBLIC")


def _for_functions(*statements: str) -> None:
    executed = "\n".join(f"EXECUTE format('{each}', f, owner);" for each in statements)
    op.execute(_LOOP.replace("STATEMENTS", executed))
