"""Settings for the property tests of the unit tests."""

from __future__ import annotations

from hypothesis import settings

# A single example may be slow on a busy machine; the whole test has a timeout.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
