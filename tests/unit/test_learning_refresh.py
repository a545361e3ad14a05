"""Tests of dividing a sample among strata."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from chordwise.pipeline.learning.refresh import allot

SIZES = st.dictionaries(st.text(max_size=3), st.integers(1, 500), min_size=1, max_size=8)


@given(SIZES, st.integers(0, 600))
def test_each_stratum_contributes_its_share(sizes: dict[str, int], count: int) -> None:
    given_by = allot(sizes, count)

    total = sum(sizes.values())
    assert sum(given_by.values()) == min(count, total)
    assert all(0 <= given_by[name] <= size for name, size in sizes.items())
    if len(sizes) == 2:
        quotas = {name: min(count, total) * size / total for name, size in sizes.items()}
        assert all(abs(given_by[name] - quota) < 1 for name, quota in quotas.items())
    pairs = itertools.permutations(sizes, 2)
    assert all(given_by[one] >= given_by[two] for one, two in pairs if sizes[one] > sizes[two])
