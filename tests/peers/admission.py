"""Who is let through an untold limit, and when."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests.fakes.simulated_provider import Bucket

SLOW_DOWN = b'{"error":{"message":"slow down"}}'


@dataclass(slots=True)
class Admission:
    """Lets through what is in its bucket, and writes down when it admitted and when it refused."""

    bucket: Bucket
    answered_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, per_second: float, burst: float) -> Admission:
        """Return one that admits so many a second, and `burst` at once after a quiet while."""
        return cls(Bucket(per_minute=60 * per_second, capacity=burst, at=time.monotonic()))

    def wait_for_room(self) -> float:
        """Admit a request and return 0, or refuse it and return how long to wait."""
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
        """Return the requests a second that were admitted between two times."""
        return sum(start <= at < end for at in self.answered_at) / (end - start)

    def refused_share(self, start: float, end: float) -> float:
        """Return which share of the requests was refused between two times."""
        refused = sum(start <= at < end for at in self.refused_at)
        return refused / max(1, refused + sum(start <= at < end for at in self.answered_at))
