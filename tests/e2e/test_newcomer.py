"""A new user analyzes contracts and invoices, and runs ten SQL queries from three programs.

The scripted provider answers truthfully: about contracts as lawyers annotated them, about invoices
as their lines state, each value with its quote.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.embedded import stack
from tests.fakes.commands import called
from tests.fakes.stacks import open_to_programs, postgres_extension_of_duckdb
from tests.peers.answering_server import (
    QUOTE,
    AnsweringHandler,
    AnsweringServer,
    completion,
    material_of,
)
from tests.peers.serving import serving_in_a_thread

pytestmark = pytest.mark.xdist_group("newcomer")

INVOICES = Path(__file__).parents[2] / "samples" / "invoices"
ITEMS = {
    "agreement date": "Agreement Date",
    "document name": "Document Name",
    "effective date": "Effective Date",
    "expiration date": "Expiration Date",
    "governing law": "Governing Law",
    "parties": "Parties",
}
ROW_TYPES = {"what": "string", "quantity": "integer", "price": "number", "amount": "number"}
INVOICE: JsonObject = {
    "type": "object",
    "properties": {
        "number": {"type": "string"},
        "vendor": {"type": "string"},
        "issued": {"type": "string", "format": "date"},
        "due": {"type": "string", "format": "date"},
        "currency": {"enum": ["EUR", "USD"]},
        "total": {"type": "number"},
        "line_items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": kind} for name, kind in ROW_TYPES.items()},
            },
        },
    },
}
SETTINGS = """
model = "peer"

[worker]
processes = 1

[models.peer]
provider = "openai"
model = "peer"
base_url = "{base_url}"

[profiles.contracts]
types = ["extraction"]
instructions = "{items}"

[profiles.invoices]
types = ["extraction"]
schema = "invoice.json"
"""
DATE_FORMATS = ("%d %B %Y", "%d.%m.%Y", "%B %d, %Y")

_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{2})$")
_CELLS = re.compile(r" *\| *| {2,}")
_DATED = re.compile(r"^.*(?:[Dd]ate|[Dd]atum|[Dd]ue|bis):[* ]*(.*\d{4}).*$", re.MULTILINE)
_NUMBERED = re.compile(r"(?:INVOICE|Nr\.|number:\*\*) (\S+)")
_TOTAL = re.compile(r"^.*(?:Total due|Gesamtbetrag|Total:).*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract of the corpus with the annotations of its lawyers."""

    name: str
    text: str
    marks: Mapping[str, Sequence[tuple[str, str]]]

    def value(self, item: str) -> str | None:
        return next((value for value, _ in self.marks[item]), None)

    def date(self, item: str) -> date | None:
        value = self.value(item)
        return date.fromisoformat(value) if value else None


def squeezed(text: str) -> str:
    return " ".join(text.split())


def twelve_contracts(corpus: Path) -> list[Contract]:
    """Return the shortest contracts with a valid date and at least two parties."""
    lines = (corpus / "labels.jsonl").read_text("utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: row["chars"])
    contracts = [
        Contract(
            Path(row["path"]).name,
            squeezed((corpus / row["path"]).read_text("utf-8")),
            {item: marked(item, row["clauses"][name]) for item, name in ITEMS.items()},
        )
        for row in rows
    ]
    good = [
        contract
        for contract in contracts
        if contract.date("agreement date") and len(contract.marks["parties"]) > 1
    ]
    return good[:12]


def marked(item: str, clause: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
    answer, spans = str(clause["answer"]), clause["spans"]
    assert isinstance(spans, list)
    texts = [squeezed(span["text"]) for span in spans if span["start"] is not None]  # type: ignore[index, call-overload, arg-type]
    if item in {"parties", "document name"}:
        return [(text, text) for text in sorted({*texts})]
    if item.endswith("date"):
        day = _US_DATE.match(answer)
        answer = f"20{day[3]}-{int(day[1]):02}-{int(day[2]):02}" if day and day[3] < "27" else ""
    return [(answer, texts[0])] if answer and texts else []


def read_contract(contract: Contract, chunk: str) -> JsonObject:
    fields: list[JsonValue] = []
    for item, values in contract.marks.items():
        here = [(value, quote) for value, quote in values if quote in chunk]
        fields += [field(item, "found", *span) for span in here]
        fields += [] if here else [field(item, "not mentioned", None, None)]
    return {"fields": fields}


def field(item: str, status: str, value: str | None, quote: str | None) -> JsonObject:
    return {"item": item, "status": status, "value": value, "quote": quote, "confidence": 9}


def amount(text: str) -> Decimal:
    digits = re.sub(r"[^\d.,]", "", text)
    return Decimal(f"{re.sub('[.,]', '', digits[:-3])}.{digits[-2:]}")


def day(text: str) -> str:
    for manner in DATE_FORMATS:
        try:
            return datetime.strptime(text.strip(), manner).date().isoformat()  # noqa: DTZ007
        except ValueError:
            continue
    raise AssertionError(text)


def read_invoice(text: str) -> JsonObject:
    split = [(line, _CELLS.split(line.strip("| "))) for line in text.splitlines()]
    rows = [(line, cells) for line, cells in split if len(cells) == 4 and cells[1].isdigit()]
    issued, due = _DATED.finditer(text)
    total, number = _TOTAL.search(text), _NUMBERED.search(text)
    assert total
    assert number
    vendor = text.splitlines()[0].lstrip("# ")
    items: list[JsonValue] = [
        {
            "what": what,
            "quantity": int(quantity),
            "price": float(amount(price)),
            "amount": float(amount(owed)),
        }
        for _, (what, quantity, price, owed) in rows
    ]
    data: JsonObject = {
        "number": number[1],
        "vendor": vendor,
        "issued": day(issued[1]),
        "due": day(due[1]),
        "currency": "USD" if "US$" in total[0] else "EUR",
        "total": float(amount(total[0])),
        "line_items": items,
    }
    quotes = {"number": number[0], "vendor": vendor, "issued": issued[0], "due": due[0]}
    quotes |= {"currency": total[0], "total": total[0]}
    for place, (line, _) in enumerate(rows):
        quotes |= {f"line_items/{place}/{name}": line for name in ROW_TYPES}
    evidence: list[JsonValue] = [
        {"path": f"/{path}", "quote": quote, "confidence": 9} for path, quote in quotes.items()
    ]
    return {"data": data, "evidence": evidence}


class Handler(AnsweringHandler):
    """Answers from the documents in its requests."""

    contracts: Sequence[Contract] = ()

    def answer(self, user: str) -> bool:
        text = squeezed(material_of(user))
        start = text[:100]
        parts = [squeezed(json.loads(f'"{quote}"')) for quote in QUOTE.findall(text)]
        mark = max(parts, key=len, default=start)
        known = next((contract for contract in self.contracts if mark in contract.text), None)
        chunk = known.text if known and parts else text
        said = read_contract(known, chunk) if known else read_invoice(material_of(user))
        return self.reply(200, json.dumps(completion(json.dumps(said))).encode())


@dataclass(frozen=True, slots=True)
class Home:
    """A home in which everything was analyzed, and the address of its database."""

    home: Path
    contracts: Sequence[Contract]
    url: str

    def command(self, *arguments: str) -> str:
        return command(self.home, *arguments)


def command(home: Path, *arguments: str) -> str:
    done = called([*arguments, "--home", str(home)], {}, home.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("newcomer")
    contracts = twelve_contracts(corpora / "cuad_contracts")
    (folder / "contracts").mkdir()
    for contract in contracts:
        (folder / "contracts" / contract.name).write_text(
            (corpora / "cuad_contracts" / "docs" / contract.name).read_text("utf-8"), "utf-8"
        )
    (folder / "invoice.json").write_text(json.dumps(INVOICE), "utf-8")
    handler = type("Informed", (Handler,), {"contracts": contracts})
    home = folder / "home"
    with serving_in_a_thread(AnsweringServer(0, handler)) as provider:
        settings = SETTINGS.format(base_url=provider.base_url, items=", ".join(ITEMS))
        (folder / "chordwise.toml").write_text(settings, "utf-8")
        command(home, "analyze", "contracts", "--profile", "contracts")
        command(home, "analyze", str(INVOICES), "--profile", "invoices")
        with open_to_programs(home) as opened:
            yield Home(home, contracts, str(opened["url"]))
    stack.stop(home)


# Three programs


def by_psql(home: Home, query: str) -> list[tuple[object, ...]]:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    command = ["psql", home.url, "-qAtc", query]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(line.split("|")) for line in done.stdout.splitlines()]


def by_pandas(home: Home, query: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(home.url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        import pandas as pd  # noqa: PLC0415 - slow to load, and one process needs it

        return list(pd.read_sql(query, engine).itertuples(index=False, name=None))
    finally:
        engine.dispose()


def by_duckdb(home: Home, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{postgres_extension_of_duckdb()}'")
        connection.execute(f"ATTACH '{home.url}' AS chordwise (TYPE postgres, READ_ONLY)")
        connection.execute("USE chordwise")
        return connection.execute(query).fetchall()


def plain(value: object) -> object:
    """Return a value in a form common to all programs: text, or a number with two decimals."""
    if isinstance(value, datetime):
        value = value.date()
    try:
        return Decimal(str(value)).quantize(Decimal("0.01"))
    except InvalidOperation:
        return "" if value is None else str(value)


def shown(rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [tuple(map(plain, row)) for row in rows]


# Ten questions


def laws(contracts: Sequence[Contract]) -> list[tuple[object, ...]]:
    counted = Counter(contract.value("governing law") for contract in contracts)
    return sorted((law, number) for law, number in counted.items() if law)


def unnamed(contracts: Sequence[Contract]) -> list[tuple[object, ...]]:
    names = [contract.name for contract in contracts if not contract.value("governing law")]
    return [(name,) for name in sorted(names, key=str.lower)]


def oldest(contracts: Sequence[Contract]) -> list[tuple[object, ...]]:
    first = min(contracts, key=lambda contract: str(contract.date("agreement date")))
    return [(first.name, first.date("agreement date"))]


def ending(contracts: Sequence[Contract]) -> list[tuple[object, ...]]:
    spans = [
        (contract.date("agreement date"), contract.date("expiration date"))
        for contract in contracts
    ]
    days = [(last - first).days for first, last in spans if first and last]
    return [(max(days), len(days))]


@dataclass(frozen=True, slots=True)
class Question:
    """A question in SQL, and the rows that answer it."""

    query: str
    rows: Callable[[Sequence[Contract]], list[tuple[object, ...]]]


QUESTIONS = {
    "which laws govern how many contracts": Question(
        """SELECT governing_law, count(*) FROM answers.contracts
        WHERE governing_law IS NOT NULL GROUP BY 1 ORDER BY 1""",
        laws,
    ),
    "which contracts name no law": Question(
        """SELECT document FROM answers.contracts
        WHERE governing_law IS NULL ORDER BY lower(document)""",
        unnamed,
    ),
    "which contract is the oldest": Question(
        """SELECT document, agreement_date FROM answers.contracts
        ORDER BY agreement_date LIMIT 1""",
        oldest,
    ),
    "how many parties are there": Question(
        """SELECT count(DISTINCT document), count(*) FROM (
            SELECT DISTINCT document, unnest(parties) AS party FROM answers.contracts
        ) AS named""",
        lambda contracts: [(12, sum(len(contract.marks["parties"]) for contract in contracts))],
    ),
    "which contracts end, and after how many days": Question(
        """SELECT max(expiration_date - agreement_date), count(expiration_date)
        FROM answers.contracts""",
        ending,
    ),
    "where does a law stand": Question(
        """SELECT count(*) FROM answers.contracts_evidence
        WHERE governing_law_grounded AND governing_law_quote IS NOT NULL""",
        lambda contracts: [
            (sum(contract.value("governing law") is not None for contract in contracts),)
        ],
    ),
    "what was invoiced by whom": Question(
        """SELECT vendor, currency, sum(total), count(*) FROM answers.invoices
        GROUP BY 1, 2 ORDER BY 1""",
        lambda _: [
            ("Brightwater Office Supply, Inc.", "USD", "8849.30", 4),
            ("Hemmings & Ruo Refrigeration Services LLP", "EUR", "38921.55", 4),
            ("Tischlerei Odenwald GmbH", "EUR", "12864.80", 4),
        ],
    ),
    "what was due by the end of March": Question(
        """SELECT number, due, total FROM answers.invoices
        WHERE due <= DATE '2026-03-31' AND currency = 'EUR' ORDER BY due, number""",
        lambda _: [
            ("2026-014", "2026-02-05", 2200),
            ("HR-1041", "2026-02-07", 12496),
            ("2026-031", "2026-03-17", "4728.80"),
            ("HR-1052", "2026-03-21", "1422.80"),
        ],
    ),
    "what is bought most often": Question(
        """SELECT what, sum(quantity), sum(amount) FROM answers.invoices_line_items
        GROUP BY 1 ORDER BY 2 DESC LIMIT 2""",
        lambda _: [("Copy paper A4, box", 120, "3749.40"), ("Label printer tape", 25, "293.75")],
    ),
    "do the lines of each invoice come to its total": Question(
        """SELECT count(*), sum(difference) FROM (
            SELECT i.document_id, abs(min(i.total) - sum(l.amount)) AS difference
            FROM answers.invoices AS i JOIN answers.invoices_line_items AS l USING (document_id)
            GROUP BY 1
        ) AS compared""",
        lambda _: [(12, 0)],
    ),
}


@pytest.mark.corpus
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_query_returns_the_annotated_rows_in_every_program(home: Home, question: str) -> None:
    """A query returns the same rows in each program, and they match the annotations."""
    case = QUESTIONS[question]

    for ask in (by_psql, by_pandas, by_duckdb):
        rows = ask(home, case.query)

        assert rows
        assert shown(rows) == shown(case.rows(home.contracts)), ask


@pytest.mark.corpus
@pytest.mark.nightly
def test_a_correction_survives_a_second_analysis(home: Home) -> None:
    """A correction is visible in each program, before and after everything is analyzed again."""
    contract = next(known for known in home.contracts if known.value("governing law"))
    law = "SELECT document, agreement_date FROM answers.contracts WHERE governing_law = 'Texas'"
    total = "SELECT count(*), sum(total) FROM answers.invoices WHERE currency = 'USD'"
    asking = (by_psql, by_pandas, by_duckdb)
    before = [shown(ask(home, law)) for ask in asking]

    (run,) = by_duckdb(home, "SELECT DISTINCT run FROM answers.contracts")[0]
    told = ("--document", contract.name, "--correct", "governing law=Texas")
    home.command("feedback", str(run), *told)
    corrected = [shown(ask(home, law)) for ask in asking]
    home.command("analyze", "contracts", "--profile", "contracts", "--fresh")
    home.command("analyze", str(INVOICES), "--profile", "invoices", "--fresh")
    renewed = [shown(ask(home, law)) for ask in asking]

    right = shown([(contract.name, contract.date("agreement date"))])[0]
    assert all(right not in rows for rows in before)
    assert all(right in rows for rows in (*corrected, *renewed))
    assert corrected == renewed
    assert [shown(ask(home, total)) for ask in asking] == [shown([(4, "8849.30")])] * 3
