"""Times that contradict each other are refused, and the sentence names the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise.errors import ConfigurationError
from chordwise.settings import FILE_NAME, load


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("[pipeline]\nheartbeat_seconds = 60", ["pipeline.heartbeat_seconds", "lease_seconds"]),
        ("[retries]\ntotal_seconds = 901", ["retries.total_seconds", "half"]),
        ("[worker]\nvisibility_timeout_seconds = 599", ["worker.visibility_timeout_seconds"]),
        (
            'model = "openai/a"\n[retries]\ntotal_seconds = 60',
            ["models.openai/a.timeout_seconds", "retries.total_seconds"],
        ),
        (
            'fallback = ["anthropic/a"]\n[retries]\ntotal_seconds = 60',
            ["models.anthropic/a.timeout_seconds"],
        ),
        (
            '[models.house]\nprovider = "openai"\ntimeout_seconds = 301',
            ["models.house.timeout_seconds"],
        ),
    ],
)
def test_contradictions_are_refused(content: str, names: list[str]) -> None:
    """Whatever could make two workers work on the same chunk is told beforehand."""
    Path(FILE_NAME).write_text(content, "utf-8")

    with pytest.raises(ConfigurationError) as caught:
        load()

    assert [name for name in names if name not in caught.value.what] == []


@pytest.mark.parametrize(
    "content",
    [
        "[retries]\ntotal_seconds = 60",
        'fallback = ["extractive"]\n[retries]\ntotal_seconds = 900',
        'fallback = ["openai/a", "openai/b", "openai/c"]\n[retries]\ntotal_seconds = 900',
        'model = "nobody/knows"\n[retries]\ntotal_seconds = 60',
        "[worker]\nvisibility_timeout_seconds = 600",
    ],
)
def test_what_just_fits_is_taken(content: str) -> None:
    """Models share the time of a chunk, however many; one that is not there is told when asked."""
    Path(FILE_NAME).write_text(content, "utf-8")

    assert load().worker.visibility_timeout_seconds > 0
