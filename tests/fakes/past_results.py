"""Results as they lie in the history once another one has taken their place."""


def into_history(replaced_at: str = "now()") -> str:
    """Return the statement that copies every result there; `replaced_at` is SQL.

    By the names of the columns: the history has one more, in the middle.
    """
    return (
        "INSERT INTO result_history"  # noqa: S608 - our own
        " SELECT (jsonb_populate_record(NULL::result_history, to_jsonb(r)"
        f" || jsonb_build_object('replaced_at', {replaced_at}))).* FROM results AS r"
    )
