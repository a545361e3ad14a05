"""Learning: feedback, evaluations, judgments and calibrations, and the views of them."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
works_from = "0003"

TABLES = ("judgments", "feedback", "evaluation_measures", "evaluations", "calibrations")
VIEWS = (
    "judged_claims@1",
    "reliability_curve@1",
    "evaluation_history@1",
    "calibration_segments@1",
    "calibrated_results@1",
    "calibrated_facts@1",
)


def upgrade() -> None:
    """Apply."""
    _feedback()
    _evaluations()
    _judgments()
    _calibrations()
    folder = Path(__file__).resolve().parent.parent / "views"
    for view in VIEWS:
        op.execute((folder / f"{view}.sql").read_text("utf-8"))
    _reader()


def downgrade() -> None:
    """Take back."""
    for view in reversed(VIEWS):
        op.execute(f"DROP VIEW {view.partition('@')[0]}")
    for table in TABLES:
        op.drop_table(table)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=sa.text("clock_timestamp()"),
        nullable=False,
    )


def _texts(*names: str, nullable: bool = False) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.Text(), nullable=nullable) for name in names]


def _feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("result_id", sa.Uuid(), nullable=False),
        sa.Column("analysis_type", sa.Text(), nullable=False),
        sa.Column("question", JSONB(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("judged", JSONB(), nullable=True),
        sa.Column("corrected", JSONB(), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        *_texts("note", "author", nullable=True),
        _now("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_feedback_job_id"),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name="fk_feedback_document_id"),
    )
    op.create_index("ix_feedback_job_id", "feedback", ["job_id"])
    op.create_index("ix_feedback_question", "feedback", ["document_id", "analysis_type"])


def _evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        *_texts("run", "profile", nullable=True),
        sa.Column("analysis_type", sa.Text(), nullable=False),
        sa.Column("is_whole", sa.Boolean(), nullable=False),
        *_texts("provider", "model", "prompt_version", "gold_file", "gold_sha256", nullable=True),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("unjudged", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        _now("evaluated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_evaluations_run_id"),
    )
    op.create_index("ix_evaluations_run_id", "evaluations", ["run_id"])
    op.create_index("ix_evaluations_evaluated_at", "evaluations", ["evaluated_at"])
    op.create_table(
        "evaluation_measures",
        sa.Column("evaluation_id", sa.Uuid(), nullable=False),
        *_texts("metric", "label", "found"),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "evaluation_id", "metric", "label", "found", name="pk_evaluation_measures"
        ),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name="fk_evaluation_measures_evaluation_id"
        ),
    )


def _judgments() -> None:
    op.create_table(
        "judgments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("evaluation_id", sa.Uuid(), nullable=True),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("result_id", sa.Uuid(), nullable=False),
        *_texts("options_hash", "analysis_type", "provider", "model", "prompt_version"),
        *_texts("judged_by", "part", "path"),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("is_right", sa.Boolean(), nullable=False),
        sa.Column("expected", JSONB(), nullable=True),
        sa.Column("found", JSONB(), nullable=True),
        _now("judged_at"),
        sa.PrimaryKeyConstraint("id", name="pk_judgments"),
        sa.UniqueConstraint(
            "result_id",
            "judged_by",
            "part",
            "path",
            name="uq_judgments_result_id_judged_by_part_path",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_judgments_job_id"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name="fk_judgments_evaluation_id"
        ),
    )
    op.create_index("ix_judgments_job_id", "judgments", ["job_id"])


def _calibrations() -> None:
    op.create_table(
        "calibrations",
        sa.Column("id", sa.Uuid(), nullable=False),
        *_texts("analysis_type", "provider", "model", "part", "method"),
        sa.Column("points", JSONB(), nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("judged_right", sa.Integer(), nullable=False),
        sa.Column("error_before", sa.Float(), nullable=False),
        sa.Column("error_after", sa.Float(), nullable=False),
        sa.Column("most_errors", sa.Float(), nullable=False),
        sa.Column("accept_from", sa.Float(), nullable=True),
        sa.Column("accepted_share", sa.Float(), nullable=True),
        _now("learnt_at"),
        sa.PrimaryKeyConstraint("id", name="pk_calibrations"),
    )
    op.create_index(
        "ix_calibrations_key",
        "calibrations",
        ["analysis_type", "provider", "model", "part", "learnt_at"],
    )


def _reader() -> None:
    readable = ", ".join([*TABLES, *(view.partition("@")[0] for view in VIEWS)])
    op.execute(
        f"""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
                GRANT SELECT ON {readable} TO chordwise_reader;
            END IF;
        END $$
        """
    )
