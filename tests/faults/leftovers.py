"""I6 and I9 of the oracle: documents are unchanged; no leftovers, and memory within limits."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil

from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster

_BLOCK_LINES = 80


def untouched_documents(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """I6: the input files have their original bytes."""
    for path in cluster.documents.changed():
        yield f"{path.name} is gone or was changed"


def memory(cluster: Cluster, allowance: Allowance) -> Iterator[str]:
    """I9: no process exceeded its memory limit."""
    for member in cluster.members.all:
        megabytes = member.peak_bytes / 1_048_576
        if megabytes > allowance.memory_megabytes:
            yield f"{member.log.name} held {megabytes:.0f} MB"


def temporary_files(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """I9: the processes have left no temporary files."""
    for path in sorted(cluster.temporary.rglob("*")):
        yield f"{path.relative_to(cluster.folder)} was left behind"


def stray_processes(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """I9: there are no zombie processes, and no child outlives its member."""
    alive = {member.process.pid for member in cluster.members.all if member.is_alive}
    gone = {member.process.pid for member in cluster.members.all} - alive
    for process in psutil.process_iter(["pid", "ppid", "status", "name"]):
        try:
            session = os.getsid(process.pid)
        except (psutil.Error, OSError):
            continue
        if session in gone:
            yield f"the process {process.info['name']} has outlived its member"
        elif session in alive and process.info["status"] == psutil.STATUS_ZOMBIE:
            yield f"the process {process.info['name']} is a zombie"


def tracebacks(cluster: Cluster, allowance: Allowance) -> Iterator[str]:
    """I8: logs have no tracebacks except those that the experiment allows."""
    for member in cluster.members.all:
        lines = member.text().splitlines()
        for number, line in enumerate(lines):
            if "Traceback" not in line:
                continue
            block = (
                line if line.startswith("{") else "\n".join(lines[number : number + _BLOCK_LINES])
            )
            if not any(text in block for text in allowance.tracebacks):
                yield f"{member.log.name} has a traceback: {block[-400:]}"
    if "Traceback" in "\n".join(cluster.spoken):
        yield "a command has shown a traceback"
