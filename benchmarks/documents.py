"""Generated documents for benchmarks, identical on every machine."""

from __future__ import annotations

import csv
import random
import textwrap
from pathlib import Path

CHUNK_TOKENS = 750
_CHUNK_CHARACTERS = 2400
_SMALL_CHARACTERS = 2000
_LINE_CHARACTERS = 72
_SENTENCE = (
    "the report and a service with its customers was delivered late because every contract names "
    "one supplier that answers within two days while prices rise and teams review what they found"
)
_OPINIONS = (
    "The delivery was quick and the support was excellent.",
    "It broke after two days and the refund never came.",
    "The parcel arrived on Tuesday.",
    "Great value, and my family loves it. I would buy it again.",
    "The manual is confusing. The support was slow. I am disappointed.",
)


def text(number: int, characters: int) -> str:
    """Return paragraphs of wrapped lines, of about this length; each number gives another text."""
    words, paragraphs, length = _SENTENCE.split(), [f"Document {number}."], 0
    source = random.Random(number)  # noqa: S311 - not for secrets
    while length < characters:
        sentences = [
            f"{' '.join(source.choices(words, k=source.randint(8, 18))).capitalize()}."
            for _ in range(source.randint(1, 8))
        ]
        paragraphs.append(textwrap.fill(" ".join(sentences), _LINE_CHARACTERS))
        length += len(paragraphs[-1]) + 2
    return "\n\n".join(paragraphs)


def write_documents(folder: Path, count: int, chunks: int) -> None:
    """Write `count` text files of about `chunks` chunks of CHUNK_TOKENS each."""
    folder.mkdir(parents=True)
    size = _CHUNK_CHARACTERS * chunks if chunks > 1 else _SMALL_CHARACTERS
    for number in range(count):
        (folder / f"d{number:06}.txt").write_text(text(number, size), "utf-8")


FIELDS = (
    *("governing law", "effective date: date", "expiry date: date", "parties: list"),
    *("annual fee: money", "penalty: money", "notice period", "term", "territory"),
    *("contact person", "renewal", "court"),
)


def write_forms(folder: Path, count: int) -> None:
    """Write `count` text files with a value for each of `FIELDS`."""
    folder.mkdir()
    for number in range(count):
        values = {
            "governing law": "Ohio",
            "effective date": f"{number % 28 + 1} March {2000 + number % 25}",
            "expiry date": f"{number % 28 + 1} May {2030 + number % 5}",
            "parties": f"Ada {number} Ltd and Bob {number} Inc.",
            "annual fee": f"US$ {1_000 * (number % 90 + 1):,}.50",
            "penalty": f"EUR {100 * (number % 50 + 1)}",
        }
        lines = [f"Form {number}"]
        for field in FIELDS:
            name = field.partition(":")[0]
            lines.append(f"{name}: {values.get(name, f'{name} no. {number % 40}')}")
        (folder / f"form-{number:05}.txt").write_text("\n\n".join(lines), "utf-8")


def write_table(file: Path, rows: int) -> None:
    """Write a CSV file whose column `text` has a few short sentences in each row."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text"])
        for number in range(rows):
            opinion = _OPINIONS[number % len(_OPINIONS)]
            writer.writerow([number, f"Order {number}. {opinion}"])
