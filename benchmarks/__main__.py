"""`python -m benchmarks` measures the rows of docs/performance.md and prints their tables."""

from __future__ import annotations

import argparse
import subprocess
import sys

import psycopg

from benchmarks import peers
from benchmarks.machine import raise_file_limit
from benchmarks.rows import ROWS, Bench, parser, tell
from benchmarks.stack import MeasurementError


def main() -> int:
    """Measure the selected rows and print the report; return 1 if a row could not be measured."""
    options = _options()
    raise_file_limit()
    bench = Bench.of(options, options.peer)
    failed = [name for name in options.rows or ROWS if not _measure(name, bench)]
    print(bench.report.markdown())
    return 1 if failed else 0


def _measure(name: str, bench: Bench) -> bool:
    """Measure a row; log its start to standard error, and add an error to the report."""
    tell(f"{name} …")
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
    made = parser("benchmarks", __doc__)
    made.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    made.add_argument(
        "--peer",
        type=_peer,
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="a Python that has curator, langextract or docetl installed",
    )
    return made.parse_args()


if __name__ == "__main__":
    sys.exit(main())
