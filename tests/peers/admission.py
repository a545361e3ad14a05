"""An unreported rate limit, and the times at which it admits or refuses requests."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests.fakes.simulated_provider import Bucket, rate_of, share_of_refused

SLOW_DOWN = b'{"error":{"message":"slow down"}}'


@dataclass(slots=True)
class Admission:
    """Admits requests as long as its bucket allows, and records the times of both outcomes."""

    bucket: Bucket
    answered_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, per_second: float, burst: float) -> Admission:
        """Return an admission of `per_second` requests a second, and of `burst` at once."""
        return cls(Bucket(per_minute=60 * per_second, capacity=burst, at=time.monotonic()))

    def wait_for_room(self) -> float:
        """Admit a request and return 0, or refuse it and return the seconds to wait."""
        with self._guard:
            now = time.monotonic()
            wait = self.bucket.until(1, now)
            if wait > 0:
                self.refused_at.append(now)
            else:
                self.bucket.level -= 1
                self.answered_at.append(now)
            return wait

    def rate(self, start: float, end: float) -> float:
        """Return the admitted requests per second between two times."""
        return rate_of(self.answered_at, start, end)

    def refused_share(self, start: float, end: float) -> float:
        """Return the share of refused requests between two times."""
        return share_of_refused(self.refused_at, self.answered_at, start, end)
