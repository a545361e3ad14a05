"""${message}.

Rules: old and new workers run side by side during a migration, so first add, later remove;
what is added has a default or may be null; `works_from` is the oldest revision whose code still
works afterwards; a released migration or view file never changes; large tables get indexes
CONCURRENTLY (docs/decisions/0011-schema-compatibility.md).
"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
works_from = ${repr(down_revision)}  # that of the one before, unless something is removed


def upgrade() -> None:
    """Apply."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Take back."""
    ${downgrades if downgrades else "pass"}
