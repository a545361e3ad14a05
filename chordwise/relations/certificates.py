"""Certificates: those in force, the first ones, and the random orders of their checks."""

from __future__ import annotations

from chordwise.relations.relation import Relation

_OF_SCOPE = "run = %(run)s AND profile = %(profile)s"
_ONE_EACH = "SELECT DISTINCT ON (analysis_type, name) * FROM certifications"
IN_FORCE = Relation(
    query=f"{_ONE_EACH} WHERE {_OF_SCOPE}",
    order="analysis_type, name, certified_at DESC, id DESC",
)
"""The newest certification of each field and label of a scope."""
FIRST = Relation(
    query=f"""{_ONE_EACH}
WHERE seed = %(seed)s AND question = ANY(%(questions)s) AND verdict = 'certified'""",
    order="analysis_type, name, certified_at, id",
)
"""The first certificate of each field and label in an order of checks."""
SEEDS = Relation(
    query=f"""SELECT seed, min(certified_at) AS drawn_at FROM certifications
WHERE {_OF_SCOPE} AND question = ANY(%(questions)s) GROUP BY seed""",
    order="max(certified_at) DESC, seed",
)
"""The seeds for answers to some questions of a scope, the last used first."""
