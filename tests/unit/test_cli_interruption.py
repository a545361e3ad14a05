"""Ctrl-C is never lost, wherever it arrives."""

from __future__ import annotations

import signal
import weakref

import pytest

from chordwise.cli.interruption import deferred, noted


class Freed:
    """An object whose end runs code, as those of database drivers and locks of imports do."""


def test_ctrl_c_interrupts() -> None:
    """The exception is raised where nothing is being freed."""
    with pytest.raises(KeyboardInterrupt), noted():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_an_object_is_freed_is_noted() -> None:
    """Python drops the exception there; the next pause ends at once instead."""
    freed = Freed()
    weakref.finalize(freed, signal.raise_signal, signal.SIGINT)

    with noted() as interruption:
        assert not interruption.wait(0)
        del freed
        assert interruption.wait(60)


def test_the_second_ctrl_c_insists() -> None:
    """The first asks to stop, and the user hears of it; the next one does not wait."""
    heard: list[str] = []

    with deferred(lambda: heard.append("stopping")) as stopped:
        assert not stopped.is_set()
        signal.raise_signal(signal.SIGINT)
        assert stopped.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    assert heard == ["stopping"]


def test_the_handler_before_comes_back() -> None:
    """After the wait Ctrl-C means what it did."""
    before = signal.getsignal(signal.SIGINT)
    with noted():
        assert signal.getsignal(signal.SIGINT) is not before

    assert signal.getsignal(signal.SIGINT) is before
