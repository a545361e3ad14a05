"""What docker-compose.yml tells its servers, told to real ones of the same versions."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import yaml
from pydantic import SecretStr
from sqlalchemy import make_url

from chordwise.embedded import valkey
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.storage import migrating
from chordwise.storage.engine import open_engine
from tests.fakes.processes import wait_until
from tests.house.checkout import ROOT

PASSWORD = "a'quote and 0123"  # noqa: S105 - nobody's
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]


@pytest.fixture
def postgres(short_folder: Path) -> Iterator[EmbeddedPostgres]:
    """Start a server of this test's own: roles belong to the whole of it."""
    server = EmbeddedPostgres(short_folder / "postgres", short_folder)
    server.start()
    yield server
    server.stop()
