"""Where the shared corpora are, beside the checkout; the fixture `corpora` requires them."""

from __future__ import annotations

from tests.fakes.processes import ROOT

CORPORA = ROOT.parent / "shared" / "corpora"
