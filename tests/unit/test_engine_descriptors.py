"""A process without a file descriptor left cannot reach the database; it has no defect."""

from __future__ import annotations

import errno

import pytest

from chordwise.errors import ServiceUnavailableError
from chordwise.storage.database import translate_errors


def test_no_descriptor_left_counts_as_a_database_that_is_away() -> None:
    """Work waits for it, as for an outage, and the hint names the limit."""
    with pytest.raises(ServiceUnavailableError) as caught, translate_errors():
        raise OSError(errno.EMFILE, "Too many open files")

    assert "Too many open files" in caught.value.what
    assert "ulimit" in caught.value.hint


def test_other_errors_of_the_system_stay_what_they_are() -> None:
    """A pipe that somebody closed has nothing to do with the database."""
    with pytest.raises(BrokenPipeError), translate_errors():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
