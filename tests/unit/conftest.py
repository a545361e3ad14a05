"""Settings for the property tests of the unit tests."""

from __future__ import annotations

from hypothesis import settings

# On a busy machine one example may be slow; the whole test has a timeout.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
