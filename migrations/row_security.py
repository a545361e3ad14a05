"""Row-level security: readers see no rows of the profiles that are closed to them.

A session of a reader shows who it belongs to by the setting `chordwise.key`, whose value only its
person knows. The roles of the processes, which may read the outbox, see everything.
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
    "deliveries": (("run_id", "runs", "id"),),
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
_CONDITIONS = {
    "runs": "coalesce(options ->> 'profile', '') <> ALL ((SELECT hidden_profiles())::text[])",
    "documents": "EXISTS (SELECT FROM intakes AS i WHERE i.document_id = documents.id)",
    "answer_tables": "name <> ALL ((SELECT hidden_tables())::text[])",
    "entity_values": "split_part(column_name, '.', 1) <> ALL ((SELECT hidden_tables())::text[])",
    "entity_decisions": "split_part(column_name, '.', 1) <> ALL ((SELECT hidden_tables())::text[])",
    "audit_events": "false",
    # A command line names its profile; its outcome may name runs and files.
    **dict.fromkeys(
        ("schedules", "schedule_runs"),
        "NOT EXISTS (SELECT FROM unnest((SELECT hidden_profiles())::text[]) AS p(name)"
        " WHERE strpos(run, p.name) > 0)",
    ),
    **dict.fromkeys(
        ("inbox_files", "evaluations", "certifications", "experiments"),
        "coalesce(profile, '') <> ALL ((SELECT hidden_profiles())::text[])",
    ),
}
_SEES_ALL = (
    "(SELECT has_table_privilege('public.outbox', 'SELECT') OR hidden_profiles() = '{}'::text[])"
)


def create() -> None:
    """Create the functions and the policies; the owner of the tables is not subject to them."""
    op.execute(
        """
        CREATE FUNCTION hidden_profiles() RETURNS text[]
        LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp AS $$
            SELECT coalesce(array_agg(c.profile), '{}') FROM closed_profiles AS c
            WHERE NOT EXISTS (
                SELECT FROM reader_keys AS k
                WHERE k.key = current_setting('chordwise.key', true)
                    AND (k.name = '' OR k.name = ANY (c.readers))
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
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY readers ON {table} USING ({_SEES_ALL} OR ({' AND '.join(conditions)}))"
        )
    _only_add_audit_events()


def _only_add_audit_events() -> None:
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
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.execute("DROP TRIGGER only_added ON audit_events")
    op.execute("DROP FUNCTION refuse_change()")
    op.execute("DROP FUNCTION hidden_tables()")
    op.execute("DROP FUNCTION hidden_profiles()")
