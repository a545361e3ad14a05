"""Copies results to the history, to which a replacement moves them."""


def into_history(replaced_at: str = "now()") -> str:
    """Return the statement that copies every result to the history; `replaced_at` is SQL.

    It matches columns by name, because the history has an additional column in the middle.
    """
    return (
        "INSERT INTO result_history"  # noqa: S608 - constants
        " SELECT (jsonb_populate_record(NULL::result_history, to_jsonb(r)"
        f" || jsonb_build_object('replaced_at', {replaced_at}))).* FROM results AS r"
    )
