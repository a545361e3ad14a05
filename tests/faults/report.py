"""`python -m tests.faults.report` writes the measured rows into `results.md`.

The table is between two marker lines. The rest of the page, and rows of experiments that did not
run, stay unchanged.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.faults import rows

PAGE = Path(__file__).with_name("results.md")
BEGIN = "<!-- fault experiments: begin -->"
END = "<!-- fault experiments: end -->"


def main() -> int:
    """Write the table; return 1 if there is no page, no marker or no row."""
    if not rows.FILE.exists() or not PAGE.exists():
        sys.stderr.write("Run `make faults` first, and have tests/faults/results.md.\n")
        return 1
    try:
        PAGE.write_text(written(PAGE.read_text("utf-8"), rows.read()), "utf-8")
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def written(page: str, measured: list[rows.Row]) -> str:
    """Return the page with these rows between its markers.

    Raises:
        ValueError: A marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{Path(PAGE).name} lacks the lines “{BEGIN}” and “{END}”.")
    told = re.findall(r"\d{4}-\d\d-\d\d", old.partition("|")[0])
    dates = sorted({*told, *(row.date for row in measured if row.date)})
    when = f"Measured {dates[0]} to {dates[-1]}." if dates else ""
    return f"{before}{BEGIN}\n\n{when}\n\n{rows.markdown_table(measured, old)}\n\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
