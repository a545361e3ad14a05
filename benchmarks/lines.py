"""Counts the lines of the code by feature: `python -m benchmarks.lines [REVISION]`.

A file belongs to the first feature with a pattern that matches its path. With a revision of Git,
the table also has the lines at that revision and the difference.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch

FEATURES = {
    "tests": "tests/*",
    "benchmarks": "benchmarks/*",
    "learning": "*/learning/* *experiment* *judgment* *feedback* *evaluat* *calibrat* *certif* "
    "*review* *refresh* *gold* *learned*",
    "schedules": "*schedule* *occurrence* *due_times* *night_report* *insight* *prun*",
    "inbox": "*inbox*",
    "deliveries": "*deliver* *webhook*",
    "batches": "*batch*",
    "budgets and quotes": "*budget* *quot* *price* *money* *sizing* *estimates*",
    "exports and SQL": "*/exports/* *export* */sql.py *user_sql* *answer_tables* *tool_* *tables*",
    "pages": "chordwise/web/*",
    "commands": "chordwise/cli/* chordwise/rendering/*",
    "client": "chordwise/client/*",
    "relations": "chordwise/relations/*",
    "readers": "chordwise/readers/* *transcription*",
    "models": "chordwise/llm/* *pipeline/models/*",
    "questions and answers": "*/asking/* chordwise/domain/* chordwise/prompts/* *analyzer.py",
    "embedded stack": "chordwise/embedded/*",
    "jobs and recovery": "chordwise/pipeline/* worker/* scheduler/* chordwise/storage/*",
    "settings": "chordwise/*",
    "migrations": "migrations/*",
}


def lines_by_feature(revision: str) -> Counter[str]:
    """Return the lines of the Python files of a revision, by feature."""
    tree = ["git", "grep", "--count", "", revision, "--", "*.py"]
    listed = subprocess.run(tree, capture_output=True, text=True, check=True).stdout
    counts = Counter[str]()
    for line in listed.splitlines():
        path, _, lines = line.removeprefix(f"{revision}:").rpartition(":")
        counts[feature_of(path)] += int(lines)
    return counts


def feature_of(path: str) -> str:
    """Return the feature of a file; `other` if no pattern matches its path."""
    features = ((feature, patterns.split()) for feature, patterns in FEATURES.items())
    matching = (
        name for name, patterns in features if any(fnmatch(path, pattern) for pattern in patterns)
    )
    return next(matching, "other")


def main() -> None:
    """Print a table of the lines now and, with an argument, at that revision."""
    now, then = lines_by_feature("HEAD"), Counter[str]()
    if sys.argv[1:]:
        then = lines_by_feature(sys.argv[1])
    for feature in sorted(now.keys() | then.keys(), key=lambda name: -now[name]):
        change = f"{then[feature]:>8,} {now[feature] - then[feature]:>+8,}" if then else ""
        sys.stdout.write(f"{feature:<24}{now[feature]:>8,} {change}\n")


if __name__ == "__main__":
    main()
