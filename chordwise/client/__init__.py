"""The client: what the commands do, from Python.

with Client() as client:
    run = client.submit("contracts/", profile="contracts")
    for result in run.results(as_completed=True):
        print(result.document, result.facts["governing law"].value)
"""

from __future__ import annotations

from chordwise.client.asynchronous import AsyncClient, AsyncRun
from chordwise.client.client import Client
from chordwise.client.run import FactValue, Result, Run

__all__ = ["AsyncClient", "AsyncRun", "Client", "FactValue", "Result", "Run"]
