"""Tests of the published corpora: invented samples in their formats give all of their gold back."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from benchmarks import public
from chordwise.domain.json_values import JsonValue
from tests.fakes.office_files import pdf, shown

WIDE = 369
LEASE = "The Lessor is Miller LLC.\nThis lease is governed by the law of Ohio.\n"


def extract_bench(folder: Path) -> None:
    """Write a document in the layout of extract-bench, with a schema of 369 fields."""
    papers = folder / "dataset" / "finance" / "bills" / "pdf+gold"
    papers.mkdir(parents=True)
    members: dict[str, JsonValue] = {
        f"amount_{number}": {"type": "number", "evaluation_config": "number_tolerance"}
        for number in range(WIDE - 1)
    }
    rows: JsonValue = {"type": "object", "properties": {"name": {"type": "string"}}}
    members["rows"] = {"type": "array", "items": rows}
    schema = {"type": "object", "properties": members}
    (papers.parent / "bills-schema.json").write_text(json.dumps(schema), "utf-8")
    truth: dict[str, JsonValue] = {name: 1000 + place for place, name in enumerate(members)}
    truth["rows"] = [{"name": "chair"}, {"name": "desk"}]
    truth["amount_7"] = None
    amounts = [f"Amount {place} is {1000 + place:,} EUR" for place in range(WIDE) if place != 7]
    lines = [*amounts, "One chair", "One desk"]
    pages = [
        "\n".join(shown(line, y=280 - 13 * place) for place, line in enumerate(lines[start:][:20]))
        for start in range(0, len(lines), 20)
    ]
    (papers / "a.pdf").write_bytes(pdf(pages))
    (papers / "a.gold.json").write_text(json.dumps(truth), "utf-8")


def kleister_nda(folder: Path) -> None:
    """Write two agreements in the format of Kleister-NDA, one with decoys."""
    (folder / "dev-0").mkdir(parents=True)
    texts = (
        r"Dated May 4, 2011, between Miller LLC\nand Smith Inc. under the law of New York.\t",
        "An agreement of Jones Ltd.",
    )
    lines = (
        "\t".join((f"{place}.pdf", "party term", *[text] * 4)) for place, text in enumerate(texts)
    )
    with lzma.open(folder / "dev-0" / "in.tsv.xz", "wt", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    expected = (
        "effective_date=2011-05-04 jurisdiction=New_York party=Miller_LLC party=Smith_Inc.",
        "party=Jones_Ltd.",
    )
    (folder / "dev-0" / "expected.tsv").write_text("\n".join(expected) + "\n", "utf-8")


def contract_nli(folder: Path) -> None:
    """Write a lease in the format of ContractNLI, with three hypotheses."""
    folder.mkdir(parents=True)
    start = LEASE.index("This")
    annotations = {
        "nda-1": {"choice": "Entailment", "spans": [1]},
        "nda-2": {"choice": "NotMentioned", "spans": []},
        "nda-3": {"choice": "Contradiction", "spans": [0]},
    }
    corpus = {
        "documents": [
            {
                "id": 1,
                "file_name": "lease.pdf",
                "text": LEASE,
                "spans": [[0, start - 1], [start, len(LEASE) - 1]],
                "annotation_sets": [{"annotations": annotations}],
            }
        ],
        "labels": {
            key: {"short_description": key, "hypothesis": f"Hypothesis {key}."}
            for key in annotations
        },
    }
    (folder / "test.json").write_text(json.dumps(corpus), "utf-8")


def sembench_movies(folder: Path) -> None:
    """Write reviews and movies with the columns of SemBench."""
    folder.mkdir(parents=True)
    lines = ["id,reviewId,originalScore,scoreSentiment,reviewText"]
    for movie in ("taken_3", "ant_man_and_the_wasp_quantumania"):
        for place in range(6):
            sentiment = "NEGATIVE" if place % 3 else "POSITIVE"
            score = 1 + place % 3 if place % 3 else 5
            lines.append(f"{movie},{movie}{place},{score}/5,{sentiment},Review {place} of it")
    (folder / "Reviews_12.csv").write_text("\n".join(lines), "utf-8")
    movies = "id,audienceScore\ntaken_3,40\nant_man_and_the_wasp_quantumania,80\n"
    (folder / "Movies_12.csv").write_text(movies, "utf-8")


@pytest.mark.parametrize(
    "write",
    [extract_bench, kleister_nda, contract_nli, sembench_movies],
    ids=list(public.CORPORA),
)
def test_gold_comes_back_from_the_pipeline(tmp_path: Path, write: object) -> None:
    """Answers with the gold are valid, grounded, on their pages, and right in every measure."""
    name = str(getattr(write, "__name__", "")).replace("_", "-")
    folder = tmp_path / name
    assert callable(write)
    write(folder)
    cases = list(public.CORPORA[name](folder))

    cells = public.row(name, "gold", public.answers(cases, None, 2))

    measured = dict(zip(public.HEAD, cells, strict=False))
    assert int(measured["documents"]) == len(cases)
    assert measured["values F1"] == "1.000"
    assert {measured["valid"], measured["complete"], measured["grounded"]} <= {"1.000", "–"}
    assert measured["evidence F1"] == ("1.000" if name == "contract-nli" else "–")
    if name == "extract-bench":
        assert (measured["with page"], measured["single values F1"]) == ("1.000", "1.000")
        assert (measured["absence F1"], measured["grounded"]) == ("1.000", "1.000")


def test_rows_with_lists_of_their_own_come_back_complete() -> None:
    """A list that few rows have is not missing from the lines of the others."""
    text: JsonValue = {"type": "string"}
    records: JsonValue = {"type": ["array", "null"], "items": text}
    result: JsonValue = {
        "properties": {"rank": {"type": "integer"}, "name": text, "time": text, "records": records}
    }
    groups: list[JsonValue] = [
        {
            "group": group,
            "results": [
                {
                    "rank": rank,
                    "name": f"Ann {group}",
                    "time": f"1:{10 + rank}",
                    "records": ["WR"] if rank == 1 else None,
                }
                for rank in range(1, 9)
            ],
        }
        for group in ("young", "old")
    ]
    lines = [
        f"{rank} Ann {group} 1961 USA Club A 1:{10 + rank} {'WR' if rank == 1 else ''}"
        for group in ("young", "old")
        for rank in range(1, 9)
    ]
    rows: JsonValue = {"type": "array", "items": result}
    members: JsonValue = {"properties": {"group": text, "results": rows}}
    case = public.Case(
        name="results",
        schema={"type": "object", "properties": {"groups": {"type": "array", "items": members}}},
        truth={"groups": groups},
        text="\n".join(lines),
    )

    (answer,) = public.answers([case], None, 1)

    assert (answer.error, answer.is_partial) == ("", False)


def test_the_questions_about_movies_are_answered_from_the_reviews(tmp_path: Path) -> None:
    sembench_movies(tmp_path / "movies")
    cases = list(public.sembench_movies(tmp_path / "movies"))

    measured = public.movie_questions(public.answers(cases, None, 2), tmp_path / "movies")

    assert [measured[f"Q{number} precision"] for number in (1, 2, 5, 6)] == [1, 1, 1, 1]
    assert [measured[f"Q{number} relative error"] for number in (3, 4, 8)] == [0, 0, 0]
    assert measured["Q7 F1"] == 1
    assert measured["Q9 Spearman"] == pytest.approx(0.9, abs=0.1)
