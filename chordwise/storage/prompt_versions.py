"""Prompt versions: the texts of the prompts that `prompt_version` refers to."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.analysis_tasks import PromptTemplate
from chordwise.errors import ConfigurationError
from chordwise.storage.record import CreatedAt, Record


class PromptVersion(Record):
    """A released template, stored when this installation first used it."""

    __tablename__ = "prompt_versions"

    version: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    system: Mapped[str]
    user: Mapped[str]
    created_at: Mapped[CreatedAt]


def register(session: Session, templates: Iterable[PromptTemplate]) -> None:
    """Store new templates.

    Raises:
        ConfigurationError: A template differs from the stored one of the same version.
    """
    stored = session.execute(select(PromptVersion.version, PromptVersion.sha256))
    known = {version: sha256 for version, sha256 in stored}  # noqa: C416 - rows are no pairs to mypy
    rows = []
    for template in templates:
        if known.get(template.version, template.sha256) != template.sha256:
            raise ConfigurationError(
                f"The prompt template {template.version} differs from the one in the database.",
                "A released version never changes: give the new text the next number.",
            )
        if template.version not in known:
            rows.append(
                {name: getattr(template, name) for name in ("version", "sha256", "system", "user")}
            )
    if rows:
        session.execute(insert(PromptVersion).values(rows).on_conflict_do_nothing())
