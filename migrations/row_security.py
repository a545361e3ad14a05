"""Row-level security: readers see no rows of the profiles that are closed to them.

A session of `chordwise_reader` shows who it belongs to by the setting `chordwise.key`, whose value
only its person knows; another login belongs to the person in `reader_logins`. The roles of the
processes, which may read the outbox, see everything. Row-level security keeps queries from some
indexes, so it is switched on with the first closed profile, and off with the last.
"""

from alembic import op

# The columns that lead from a row to the run or document which it belongs to.
_PARENTS = {
    "documents": (),
    "jobs": (("run_id", "runs", "id"),),
    "intakes": (("run_id", "runs", "id"),),
    "listed_files": (("run_id", "runs", "id"),),
    "chunks": (("job_id", "jobs", "id"),),
    "results": (("job_id", "jobs", "id"),),
    "result_history": (("job_id", "jobs", "id"),),
    "facts": (("job_id", "jobs", "id"),),
    "model_calls": (("run_id", "runs", "id"), ("job_id", "jobs", "id")),
    "inbox_files": (("run_id", "runs", "id"),),
    "inbox_intakes": (("intake_id", "intakes", "id"), ("inbox_file_id", "inbox_files", "id")),
    "batch_requests": (("job_id", "jobs", "id"),),
    "budgets": (("run_id", "runs", "id"),),
    "feedback": (("job_id", "jobs", "id"), ("document_id", "documents", "id")),
    "learned_examples": (("document_id", "documents", "id"), ("feedback_ids[1]", "feedback", "id")),
    "evaluations": (("run_id", "runs", "id"),),
    "evaluation_measures": (("evaluation_id", "evaluations", "id"),),
    "judgments": (("job_id", "jobs", "id"), ("document_id", "documents", "id")),
    "certifications": (("run_id", "runs", "id"),),
    "experiments": (("run_id", "runs", "id"),),
    "experiment_variants": (("experiment_id", "experiments", "id"),),
    "experiment_documents": (
        ("experiment_id", "experiments", "id"),
        ("intake_id", "intakes", "id"),
    ),
}
# `{name}` names its table: in the subquery, a bare name would be a column of `runs`.
_OF_TABLE = (
    "{name} <> ALL ((SELECT hidden_tables())::text[])"
    " AND EXISTS (SELECT FROM runs AS p WHERE p.saved_as = {name})"
)
_CONDITIONS = {
    "runs": "coalesce(options ->> 'profile', '') <> ALL ((SELECT hidden_profiles())::text[])",
    # Its name is that of the first file with its text.
    "documents": "EXISTS (SELECT FROM intakes AS i"
    " WHERE i.document_id = documents.id AND i.source = documents.source)",
    "answer_tables": _OF_TABLE.format(name="answer_tables.name"),
    "entity_values": _OF_TABLE.format(name="split_part(entity_values.column_name, '.', 1)"),
    "entity_decisions": _OF_TABLE.format(name="split_part(entity_decisions.column_name, '.', 1)"),
    # What does not belong to a run that is there may tell of any.
    "model_calls": "coalesce(run_id, job_id) IS NOT NULL",
    "deliveries": "EXISTS (SELECT FROM runs AS p WHERE p.id = deliveries.run_id)",
    **dict.fromkeys(("audit_events", "erasures", "schedules", "schedule_runs"), "false"),
    **dict.fromkeys(
        ("inbox_files", "evaluations", "certifications", "experiments"),
        "coalesce(profile, '') <> ALL ((SELECT hidden_profiles())::text[])",
    ),
}
_SEES_ALL = (
    "(SELECT has_table_privilege('public.outbox', 'SELECT') OR hidden_profiles() = '{}'::text[])"
)


# The owner of the function owns the tables; the role of the processes may not.
_SWITCH = """
CREATE FUNCTION secure_rows() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    p record;
    way text := CASE WHEN EXISTS (SELECT FROM closed_profiles) THEN 'ENABLE' ELSE 'DISABLE' END;
BEGIN
    IF NOT has_table_privilege(session_user, 'public.outbox', 'INSERT') THEN
        RAISE insufficient_privilege;
    END IF;
    FOR p IN
        SELECT c.oid::regclass AS name
        FROM pg_policy INNER JOIN pg_class AS c ON c.oid = polrelid
        WHERE polname = 'readers' AND c.relrowsecurity <> (way = 'ENABLE')
        ORDER BY c.relname
    LOOP
        EXECUTE format('ALTER TABLE %s %s ROW LEVEL SECURITY', p.name, way);
    END LOOP;
END $$
"""


def create() -> None:
    """Create the functions and the policies; the owner of the tables is not subject to them."""
    op.execute(
        """
        CREATE FUNCTION hidden_profiles() RETURNS text[]
        LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp AS $$
            SELECT coalesce(array_agg(c.profile), '{}') FROM closed_profiles AS c
            WHERE NOT EXISTS (
                SELECT FROM (
                    SELECT name FROM reader_keys
                    WHERE key = current_setting('chordwise.key', true)
                    UNION ALL
                    SELECT name FROM reader_logins WHERE role = session_user
                ) AS k
                WHERE k.name = '' OR k.name = ANY (c.readers)
            )
        $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION hidden_tables() RETURNS text[]
        LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp AS $$
            SELECT coalesce(array_agg(DISTINCT saved_as), '{}') FROM runs
            WHERE saved_as IS NOT NULL AND options ->> 'profile' = ANY (hidden_profiles())
        $$
        """
    )
    for table in sorted({*_PARENTS, *_CONDITIONS}):
        conditions = [
            f"({column} IS NULL OR EXISTS (SELECT FROM {parent} AS p"
            f" WHERE p.{key} = {table}.{column}))"
            for column, parent, key in _PARENTS.get(table, ())
        ]
        conditions += [_CONDITIONS[table]] if table in _CONDITIONS else []
        op.execute(
            f"CREATE POLICY readers ON {table} USING ({_SEES_ALL} OR ({' AND '.join(conditions)}))"
        )
    op.execute(_SWITCH)
    _keep_audit_events()


# Of each table whose rows are logged: the actor, the action and the subject, without any text.
_LOGGED = {
    "feedback": (
        "coalesce(NEW.author, '')",
        "CASE WHEN NEW.withdraws IS NULL THEN 'decided' ELSE 'withdrew' END",
        "concat(NEW.verdict, ' ', NEW.job_id, NEW.path)",
    ),
    "entity_decisions": (
        "coalesce(NEW.author, '')",
        "CASE WHEN NEW.withdraws IS NULL THEN NEW.action ELSE 'withdrew' END",
        "concat(NEW.column_name, ' ', NEW.id)",
    ),
    "erasures": ("NEW.requested_by", "'erased'", "concat(NEW.document_id, ' ', NEW.sha256)"),
}


def _keep_audit_events() -> None:
    """Log each stored decision and erasure, and refuse changes of the log."""
    for table, columns in _LOGGED.items():
        op.execute(
            f"""
            CREATE FUNCTION log_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO audit_events (id, actor, action, subject)
                VALUES (gen_random_uuid(), {", ".join(columns)});
                RETURN NULL;
            END $$
            """  # noqa: S608 - constants
        )
        op.execute(
            f"CREATE TRIGGER logged AFTER INSERT ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION log_{table}()"
        )
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'rows of % are only added', tg_table_name; END $$
        """
    )
    op.execute(
        "CREATE TRIGGER only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def drop() -> None:
    """Drop the policies, the trigger and their functions."""
    for table in sorted({*_PARENTS, *_CONDITIONS}):
        op.execute(f"DROP POLICY readers ON {table}")
    op.execute("DROP TRIGGER only_added ON audit_events")
    for table in _LOGGED:
        op.execute(f"DROP TRIGGER logged ON {table}")
        op.execute(f"DROP FUNCTION log_{table}()")
    op.execute("DROP FUNCTION refuse_change()")
    op.execute("DROP FUNCTION secure_rows()")
    op.execute("DROP FUNCTION hidden_tables()")
    op.execute("DROP FUNCTION hidden_profiles()")
