"""How the properties of the unit tests are checked."""

from __future__ import annotations

from hypothesis import settings

# A machine that others use, too, may take long over one example; the whole test has its timeout.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
