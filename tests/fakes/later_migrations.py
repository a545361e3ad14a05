"""The migrations of a later version: one additional revision, for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Engine

from chordwise.storage import migration, revisions

REVISION = '''"""A later revision."""

from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None
works_from = "{works_from}"


def upgrade() -> None:
    """Apply."""
    op.execute("ALTER TABLE jobs ADD COLUMN priority integer NOT NULL DEFAULT 0")


def downgrade() -> None:
    """Revert."""
    op.execute("ALTER TABLE jobs DROP COLUMN priority")
'''
NEWEST = revisions.newest_revision()
LATER = f"{int(NEWEST) + 1:04}"


def newer_version(folder: Path, patch: pytest.MonkeyPatch, works_from: str) -> None:
    """Replace the migrations by those of a version that has one more revision."""
    copy = folder / "migrations"
    shutil.copytree(revisions.migrations_folder(), copy)
    later = REVISION.format(revision=LATER, before=NEWEST, works_from=works_from)
    (copy / "versions" / f"{LATER}.py").write_text(later, "utf-8")
    patch.setattr(revisions, "migrations_folder", lambda: copy)


def take_back(engine: Engine, revision: str) -> None:
    config = migration.configuration()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()
