"""`python -m benchmarks` measures the rows of docs/performance.md and prints their tables."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

import psycopg

from benchmarks import peers
from benchmarks.machine import heading, raise_file_limit
from benchmarks.report import Report
from benchmarks.rows import ROWS, Bench
from benchmarks.stack import MeasurementError


def main() -> int:
    """Measure the selected rows and print the report; return 1 if a row could not be measured."""
    options = _options()
    raise_file_limit()
    # Exit through the `finally` clauses, which stop the stack.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report(heading=heading(options.scale))
    bench = Bench(
        scale=options.scale,
        timeout=60 * options.minutes,
        peers=dict(options.peer),
        report=report,
    )
    failed = [name for name in options.rows or ROWS if not _measure(name, bench)]
    print(report.markdown())
    return 1 if failed else 0


def _measure(name: str, bench: Bench) -> bool:
    """Measure a row; log its start to standard error, and add an error to the report."""
    print(f"{time.strftime('%H:%M:%S')} {name} …", file=sys.stderr, flush=True)
    try:
        ROWS[name](bench)
    except (MeasurementError, OSError, psycopg.Error, subprocess.SubprocessError) as error:
        bench.report.notes.append(f"{name} could not be measured: {error}")
        print(f"{name} could not be measured: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _peer(value: str) -> tuple[str, str]:
    name, _, python = value.partition("=")
    if name not in peers.NAMES or not python:
        raise argparse.ArgumentTypeError(
            f"NAME=PYTHON, where NAME is one of {', '.join(peers.NAMES)}"
        )
    return name, python


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--scale", type=float, default=1.0, help="the share of the work; default 1")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="time limit of a command; default 30"
    )
    parser.add_argument(
        "--peer",
        type=_peer,
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="a Python that has curator, langextract or docetl installed",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
