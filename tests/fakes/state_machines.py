"""State machines of Hypothesis over a database, which is the same for all examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_machine(machine: Callable[[], RuleBasedStateMachine], examples: int) -> None:
    """Run so many examples of a machine, each on a new object that `machine` makes."""
    run_state_machine_as_test(
        cast("type[RuleBasedStateMachine]", machine),
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # shrinking would take minutes
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
