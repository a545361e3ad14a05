"""The Python client, with the functions of the commands (docs/python.md)."""

from __future__ import annotations

from chordwise.client.asynchronous import AsyncClient, AsyncRun
from chordwise.client.client import Client
from chordwise.client.run import FactValue, Result, Run

__all__ = ["AsyncClient", "AsyncRun", "Client", "FactValue", "Result", "Run"]
