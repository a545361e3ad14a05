"""Tests of `chordwise ask`: exact figures, the documents outside of them, and refused plans."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, TypeAlias

import pytest

from chordwise import Client
from chordwise.domain import json_values, plans
from chordwise.domain.analyses import extraction
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.statistics import max_wrong
from chordwise.domain.states import IntakeOutcome
from chordwise.errors import ExitCode, InvalidAnswerError, ModelRequestError, ReadError, UsageError
from chordwise.llm.model import CompletionRequest
from chordwise.llm.schema_dialects import for_openai_strict
from chordwise.pipeline.learning import refresh
from chordwise.pipeline.models.model_client import Models
from chordwise.pipeline.runs import ask, user_sql
from chordwise.pipeline.runs.ask import AnsweredQuestion
from chordwise.readers.reader import UnreadDocument
from chordwise.relations import counts
from chordwise.settings import Settings
from chordwise.storage import answer_tables
from tests.fakes.commands import output_of
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import SCRIPTED, Pipeline, a_document, a_pipeline, a_run
from tests.fakes.scripted_model import ScriptedModel

pytestmark = [pytest.mark.usefixtures("addressed"), pytest.mark.xdist_group("ask")]

ITEMS = ("governing law", "annual fee: money", "effective date: date", "parties: list")
LAWS = ("Delaware", "New York", "England", "O'Neill's Law 100%")
PARTIES = ("Ada Ltd", "Bob Inc.", "Cy GmbH", "Dee S.A.")
UNREAD = 3
LOCKED = UnreadDocument(
    source="locked.pdf",
    error=ReadError("It is locked.", "Unlock it.", IntakeOutcome.ENCRYPTED, "password"),
)


@dataclass(frozen=True)
class Contract:
    """The right answers about one document."""

    name: str
    law: str | None
    fee: int | None
    start: date
    parties: Sequence[str]

    @property
    def text(self) -> str:
        law = f"governing law: {self.law}\n" if self.law else ""
        fee = f"annual fee: EUR {self.fee:,}.00\n" if self.fee else ""
        parties = "".join(f"parties: {party}\n" for party in self.parties)
        return f"AGREEMENT {self.name}\n{law}{fee}effective date: {self.start}\n{parties}"


def some_contracts(count: int = 44) -> list[Contract]:
    random = Random(11)  # noqa: S311 - the same contracts in every run
    return [
        Contract(
            name=f"contract-{number:02}.txt",
            law=random.choice((*LAWS, None)),
            fee=random.choice((None, *range(1_000, 90_000, 1_250))),
            start=date(random.randint(2019, 2024), random.randint(1, 12), random.randint(1, 28)),
            parties=random.sample(PARTIES, random.randint(1, 3)),
        )
        for number in range(count)
    ]


GOLD = some_contracts()


def reading(request: CompletionRequest) -> str:
    """Answer with the lines of the text; one text is refused."""
    text = request.task.text
    if "REFUSED" in text:
        raise ModelRequestError("The provider rejects this text.")
    if request.task.options.schema is not None:
        return json.dumps({"data": json.loads(text), "evidence": []})
    items = extraction.items(request.task.options)
    lines = [line.partition(": ") for line in text.splitlines() if ": " in line]
    fields = [
        a_field(item, value, 9, quote=f"{item}: {value}")
        for item, _, value in lines
        if item in items
    ]
    present = {field["item"] for field in fields}
    missing = [a_field(item, None, 9) for item in items if item not in present]
    return json.dumps({"fields": [*fields, *missing]})


@pytest.fixture
def filled_by() -> Callable[[Settings], None]:
    return fill


def fill(settings: Settings) -> None:
    """Save a table of 47 documents, of which two have no answer and one could not be read."""
    pipeline = a_pipeline(settings, reading, repeat_last=True)
    analysis = AnalysisOptions(items=ITEMS)
    options = replace(a_run(AnalysisType.EXTRACTION, analysis=analysis), save_as="contracts")
    documents = [a_document(contract.text, contract.name) for contract in GOLD]
    refused = [a_document(f"REFUSED {name}", name) for name in ("a-refused.txt", "b-refused.txt")]
    pipeline.analyze(*documents, *refused, LOCKED, options=options)


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings)


@contextmanager
def computing(pipeline: Pipeline) -> Iterator[Callable[[JsonObject], AnsweredQuestion]]:
    """Yield a function that returns the result of a plan that a model proposes."""
    with (
        pipeline.context.database.read() as session,
        user_sql.reader(pipeline.context.settings.require_sql_url()) as reader,
    ):
        stored = answer_tables.gather(session)
        tables = [table.catalogue(reader) for table in ask.tables_of(stored)]

        def computed(answer: JsonObject) -> AnsweredQuestion:
            planned = ask.plan("Which?", tables, ScriptedModel([json.dumps(answer)]))
            return ask.compute(reader, stored, planned)

        yield computed


def result_of(pipeline: Pipeline, answer: JsonObject) -> AnsweredQuestion:
    with computing(pipeline) as computed:
        return computed(answer)


def a_plan(
    measure: str = "count",
    column: str = "",
    where: Sequence[tuple[str, str, str]] = (),
    group_by: Sequence[tuple[str, str]] = (),
    **more: object,
) -> JsonObject:
    """Return a plan as a model writes it."""
    conditions = [dict(zip(("column", "operator", "value"), c, strict=True)) for c in where]
    groups = [dict(zip(("column", "part"), group, strict=True)) for group in group_by]
    same: dict[str, object] = {
        "table": "contracts",
        "missing": [],
        "ambiguous": [],
        "limit": None,
        "sentence": "",
    }
    return json_values.as_object(
        {
            **same,
            "measure": measure,
            "column": column,
            "where": conditions,
            "group_by": groups,
            "is_ascending": False,
            **more,
        }
    )


Value: TypeAlias = Any  # type: ignore[explicit-any]  # texts, numbers and dates are compared
VALUES: Mapping[str, Callable[[Contract], Sequence[Value]]] = {
    "governing_law": lambda c: [c.law] if c.law else [],
    "annual_fee": lambda c: [Decimal(c.fee)] if c.fee else [],
    "effective_date": lambda c: [c.start],
    "parties": lambda c: list(c.parties),
}
COMPARISONS: Mapping[str, Callable[[Sequence[Value], Value], bool]] = {
    "is": lambda values, value: value in values,
    "is not": lambda values, value: bool(values) and value not in values,
    "contains": lambda values, value: any(str(value).lower() in str(v).lower() for v in values),
    "<": lambda values, value: any(v < value for v in values),
    "<=": lambda values, value: any(v <= value for v in values),
    ">": lambda values, value: any(v > value for v in values),
    ">=": lambda values, value: any(v >= value for v in values),
    "is mentioned": lambda values, _: bool(values),
    "is silent": lambda values, _: not values,
}


def a_condition(random: Random) -> tuple[str, str, object]:
    column = random.choice([*VALUES])
    operators = ["is", "is not", "is mentioned", "is silent"]
    if column in ("annual_fee", "effective_date"):
        value: object = (
            Decimal(random.randrange(1_000, 90_000, 1_250))
            if column == "annual_fee"
            else random.choice(GOLD).start
        )
        return column, random.choice([*operators, "<", "<=", ">", ">="]), value
    value = random.choice(LAWS if column == "governing_law" else PARTIES)
    return column, random.choice([*operators, "contains"]), value


def expected(
    measure: str, column: str, conditions: Sequence[tuple[str, str, object]], group: str
) -> dict[object, object]:
    """Return the right result by group, computed from the contracts themselves."""
    matching = [
        contract
        for contract in GOLD
        if all(COMPARISONS[sign](VALUES[name](contract), value) for name, sign, value in conditions)
        and (not column or VALUES[column](contract))
    ]
    by_group: dict[object, list[Contract]] = defaultdict(list)
    for contract in matching:
        for key in VALUES[group](contract) if group else [""]:
            by_group[key].append(contract)
    if not column:
        return {key: len(members) for key, members in by_group.items()}
    values = {
        key: [v for c in members for v in VALUES[column](c)] for key, members in by_group.items()
    }
    compute: Mapping[str, Callable[[Sequence[Value]], object]] = {
        "sum": sum,
        "minimum": min,
        "maximum": max,
        "average": lambda v: sum(v) / len(v),
    }
    return {key: compute[measure](listed) for key, listed in values.items()}


def test_correct_plans_give_exact_figures(pipeline: Pipeline) -> None:
    """220 questions with one or two conditions, half of them by group."""
    random = Random(5)  # noqa: S311 - the same questions in every run
    with computing(pipeline) as computed:
        for _ in range(220):
            check_figures(computed, random)


def check_figures(computed: Callable[[JsonObject], AnsweredQuestion], random: Random) -> None:
    """Compare the figures of a random question with those of the contracts."""
    conditions = [a_condition(random) for _ in range(random.randint(0, 2))]
    measure = random.choice(["count", "count", "sum", "average", "minimum", "maximum"])
    column = "" if measure == "count" else "annual_fee"
    group = random.choice(["", "", "governing_law", "parties", "effective_date"])
    where = [
        (name, sign, "" if "mention" in sign or "silent" in sign else str(value))
        for name, sign, value in conditions
    ]
    answer = a_plan(measure, column, where, [(group, "")] if group else [])

    count = computed(answer).count

    figures = dict(_by_group(count.rows, has_group=bool(group), has_column=bool(column)))
    right = expected(measure, column, conditions, group)
    assert {key: figures.get(key) for key in right} == pytest.approx(right), answer
    assert not {key: value for key, value in figures.items() if value and key not in right}
    assert (count.documents, len(count.unread)) == (len(GOLD) + UNREAD, UNREAD)
    assert len(count.matching) + len(count.silent) <= len(GOLD)


def _by_group(
    rows: Sequence[tuple[object, ...]], *, has_group: bool, has_column: bool
) -> Iterator[tuple[object, object]]:
    for row in rows:
        yield row[0] if has_group else "", row[-2] if has_column else row[-1]


@pytest.mark.usefixtures("pipeline")
def test_the_account_names_what_is_outside() -> None:
    printed = output_of("ask", "count contracts by governing law").out

    numbers = Counter(contract.law for contract in GOLD)
    silent = numbers.pop(None)
    for law, number in numbers.items():
        assert f"{law}" in printed
        assert f" {number}" in printed
    printed = " ".join(printed.split())
    assert "Read: 44 of 47 documents; unread 3: a-refused.txt (failed), b-refused" in printed
    assert "locked.pdf (encrypted)" in printed
    assert f"Silent: {silent} documents: contract-" in printed
    assert f"Trust: {44 - silent} without a doubt, 0 to check" in printed
    assert "Plan: answers.contracts · count documents · by governing_law" in printed
    assert "FROM answers.contracts AS t" in printed


@pytest.mark.usefixtures("pipeline")
def test_figures_come_with_quotes_and_json() -> None:
    question = "list contracts where annual fee > 50000 and parties contains ada"
    output = json.loads(output_of("ask", question, "--json").out)

    right = [c for c in GOLD if (c.fee or 0) > 50_000 and "Ada Ltd" in c.parties]
    assert [row["document"] for row in output["rows"]] == sorted(c.name for c in right)
    quotes = {quote["quote"] for quote in output["quotes"]}
    assert {f"annual fee: EUR {c.fee:,}.00" for c in right} <= quotes


EXPLAINED = (
    ("Which contracts end without notice?", "needs a language model"),
    ("count contracts by termination", "No column is called “termination”."),
    ("count contracts by goverming_law", "Did you mean governing_law?"),
    ("count contacts", "Did you mean contracts?"),
    ("sum governing_law of contracts", "cannot be computed: it is text"),
    ("count contracts where annual_fee > cheap", "“cheap” is not a number"),
    ("count contracts where effective_date after spring", "“spring” is not a date"),
    ("count contracts where parties > 3", "which has no order"),
    ("count contracts where e is x", "can be"),
    ("count contracts top many", "is not a number of rows"),
    ("count contracts where law", "is not a condition"),
    ("count contracts where governing_law is A or governing_law is B", "joined by “or”"),
    ("count contracts where law is A by law where law is B", "two clauses “where”"),
    ("count contracts where effective_date is 2024-W05-3", "is not a date"),
    ("count contracts where annual_fee > 10.000", "“10.000” can be 10 or 10000."),
    ("count contracts where annual_fee > 1e999999", "is not a number"),
    ("count contracts where annual_fee > $10k", "“$” can be USD, AUD, CAD or another"),
    ("count contracts where annual_fee > €10.000", "“€10.000” can be 10 or 10000."),
)


@pytest.mark.usefixtures("pipeline")
def test_a_question_outside_of_the_grammar_is_explained() -> None:
    for question, message in EXPLAINED:
        assert message in output_of("ask", question, code=ExitCode.USAGE).err, question


def test_amounts_are_understood_with_scales_and_signs() -> None:
    for value, number, currency in (
        ("10k", 10_000, ""),
        ("€10,000", 10_000, "EUR"),
        ("EUR 1.5m", 1_500_000, "EUR"),
        ("5 lakh", 500_000, ""),
        ("-£3", -3, "GBP"),
    ):
        condition = plans.Condition(
            column="annual_fee", operator=plans.Operator.GREATER, value=value
        )
        assert plans.amount_of(condition) == (Decimal(number), currency)


SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "lines": {
            "type": "array",
            "items": {"type": "object", "properties": {"amount": {"type": "number"}}},
        }
    },
}


def rows_of(question: str) -> list[dict[str, object]]:
    """Return the rows of the answer to a question in the grammar."""
    return list(json.loads(output_of("ask", question, "--json").out)["rows"])


FIRMS = ("The seller is Contoso Ltd. of Oslo.", "Anna Weber spoke for Greenpeace.")


def save(
    settings: Settings, name: str, analysis: AnalysisOptions, *texts: str, model: str = SCRIPTED
) -> None:
    pipeline = a_pipeline(settings, reading, repeat_last=True)
    a_question = a_run(AnalysisType.EXTRACTION, analysis=analysis)
    options = replace(a_question, save_as=name, model=model)
    documents = [a_document(text, f"{number}.txt") for number, text in enumerate(texts)]
    pipeline.analyze(*documents, options=options)


@pytest.fixture
def fees(settings: Settings) -> None:
    """The first document has several dates, and the second has another currency."""
    save(
        settings,
        "fees",
        AnalysisOptions(items=("fee: money", "paid dates")),
        "fee: EUR 5\npaid dates: 2024-05-03\npaid dates: 2024-05-09\npaid dates: 2023-01-01",
        "fee: USD 7\npaid dates: 2024-05-03",
        "fee: EUR 6\npaid dates: 2024-05-03",
    )


@pytest.mark.usefixtures("fees")
def test_a_document_is_in_a_group_once() -> None:
    """An amount in another currency is another amount."""
    sums = rows_of("sum fee of fees by year of paid_dates")

    figures = {(row["year_of_paid_dates"], row["currency"]): row["sum_fee"] for row in sums}
    assert figures == {(2024, "EUR"): 11, (2024, "USD"): 7, (2023, "EUR"): 5}
    assert [row["year_of_paid_dates"] for row in sums] == [2023, 2024, 2024]
    assert rows_of("count fees where fee is not EUR 5") == [{"documents": 2}]
    assert rows_of("count fees where fee is not USD 5") == [{"documents": 3}]


@pytest.mark.usefixtures("fees")
def test_a_limited_list_is_that_of_the_highest_in_each_currency(pipeline: Pipeline) -> None:
    highest = result_of(pipeline, a_plan("list", "fee", table="fees", limit=1)).count
    lowest = result_of(
        pipeline, a_plan("list", "fee", table="fees", limit=1, is_ascending=True)
    ).count

    in_dollars = ("1.txt", Decimal(7), "USD", 1)
    assert highest.rows == [("2.txt", Decimal(6), "EUR", 1), in_dollars]
    assert lowest.rows == [("0.txt", Decimal(5), "EUR", 1), in_dollars]
    assert rows_of("max fee of fees top 1") == [
        {"currency": "EUR", "maximum_fee": 6, "documents": 2, "rank": 1},
        {"currency": "USD", "maximum_fee": 7, "documents": 1, "rank": 1},
    ]
    assert len(rows_of("list fees")) == 3


@pytest.mark.usefixtures("fees")
def test_a_comma_before_decimals_is_not_guessed(pipeline: Pipeline) -> None:
    assert result_of(pipeline, a_plan(table="fees", where=[("fee", "<", "1,000.5")])).count.matching
    model = ScriptedModel(
        [json.dumps(a_plan(table="fees", where=[("fee", ">", "1,5")]))], repeat_last=True
    )
    with pipeline.context.database.read() as session:
        tables = [t.catalogue() for t in ask.tables_of(answer_tables.gather(session))]
    with pytest.raises(UsageError, match="“1,5” is not a number"):
        ask.plan("Which?", tables, model)


def test_a_document_without_rows_is_not_in_their_count(settings: Settings) -> None:
    texts = ('{"lines": [{"amount": 5}, {"amount": 6}]}', '{"lines": []}')
    save(settings, "bills", AnalysisOptions(schema=SCHEMA), *texts)

    answer = json.loads(output_of("ask", "count bills_lines", "--json").out)

    assert answer["rows"] == [{"rows": 2}]
    assert (answer["documents"]["matching"], len(answer["silent"])) == (1, 1)


def test_a_file_that_is_refused_for_two_reasons_is_one_file(settings: Settings) -> None:
    error = ReadError("It is damaged.", "Repair it.", IntakeOutcome.UNREADABLE, "damaged")
    pipeline = a_pipeline(settings, reading, repeat_last=True)
    options = replace(
        a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(items=ITEMS)), save_as="contracts"
    )
    pipeline.analyze(UnreadDocument(source=LOCKED.source, error=error), options=options)

    answer = json.loads(output_of("ask", "count contracts", "--json").out)

    assert answer["documents"]["all"] == len(GOLD) + UNREAD
    reasons = [row["reason"] for row in answer["unread"] if row["source"] == LOCKED.source]
    assert reasons == ["unreadable"]


def test_a_file_that_is_damaged_after_its_analysis_is_one_file(settings: Settings) -> None:
    error = ReadError("It is damaged.", "Repair it.", IntakeOutcome.UNREADABLE, "damaged")
    pipeline = a_pipeline(settings, reading, repeat_last=True)
    options = replace(
        a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(items=ITEMS)), save_as="contracts"
    )
    source = GOLD[0].name
    pipeline.analyze(UnreadDocument(source=source, error=error), options=options)

    answer = json.loads(output_of("ask", "count contracts", "--json").out)

    assert answer["documents"]["all"] == len(GOLD) + UNREAD
    assert answer["rows"] == [{"documents": len(GOLD)}]
    assert [row["source"] for row in answer["outdated"]] == [source]
    printed = output_of("ask", "count contracts").out
    assert f"Outdated: 1 document, now not readable: {source} (unreadable)" in printed


def test_doubtful_silence_can_be_a_match(settings: Settings) -> None:
    def doubting(request: CompletionRequest) -> str:
        text = request.task.text
        confidence = 2 if "unclear" in text else 9
        value = None if "unclear" in text else "EUR 5"
        return json.dumps({"fields": [a_field("fee", value, confidence, quote="fee: EUR 5")]})

    pipeline = a_pipeline(settings, doubting, repeat_last=True)
    options = replace(
        a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(items=("fee",))), save_as="doubts"
    )
    texts = ("fee: EUR 5", "unclear", "unclear too")
    documents = [a_document(text, f"{number}.txt") for number, text in enumerate(texts)]
    pipeline.analyze(*documents, options=options)

    count = result_of(pipeline, a_plan(table="doubts", where=[("fee", "is", "EUR 5")])).count

    assert (len(count.matching), len(count.silent), len(count.unsure)) == (1, 0, 2)
    assert (count.low, count.high, count.more_checks) == (1, 3, 2)


def test_the_account_proposes_checks_that_narrow_the_number(pipeline: Pipeline) -> None:
    count = result_of(pipeline, a_plan(where=[("governing_law", "is", LAWS[0])])).count

    certain = count.documents - len(count.unread)
    bound = max_wrong(certain, count.more_checks, 0, 0.05)
    before = max_wrong(certain, count.more_checks - 1, 0, 0.05)
    assert bound <= count.margin == 2 < before


def test_rows_that_may_be_cut_are_said(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_MAX_ROWS", 5)
    plan = a_plan(group_by=[("effective_date", "")])

    count = result_of(pipeline, plan).count

    assert len(count.rows) == 5
    assert "Rows: the first 5; there can be more." in list(counts.account(count))
    assert not result_of(pipeline, {**plan, "limit": 5}).count.is_full


def test_what_was_never_asked_is_not_guessed(pipeline: Pipeline) -> None:
    with pytest.raises(ask.NeverAskedError, match="“notice period”"):
        result_of(pipeline, a_plan(missing=["notice period"]))


def test_a_mistake_in_the_grammar_is_explained_although_the_model_fails(
    pipeline: Pipeline,
) -> None:
    model = ScriptedModel(["no plan"], repeat_last=True)
    with pipeline.context.database.read() as session:
        tables = [t.catalogue() for t in ask.tables_of(answer_tables.gather(session))]

    with pytest.raises(UsageError, match="No column is called “termination”"):
        ask.plan("count contracts by termination", tables, model)
    with pytest.raises(InvalidAnswerError):
        ask.plan("Which contracts end soon?", tables, model)


def test_two_possible_columns_are_asked_back(pipeline: Pipeline) -> None:
    ambiguous = [{"words": "the date", "columns": ["effective_date", "annual_fee"]}]
    with pytest.raises(UsageError, match="“the date” can be effective_date or annual_fee"):
        result_of(pipeline, a_plan(ambiguous=ambiguous))


@pytest.mark.usefixtures("pipeline")
def test_only_documents_below_a_path_are_of_concern(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is understood however it is typed, and one without documents is an error."""
    monkeypatch.chdir(tmp_path)
    pipeline.execute("UPDATE intakes SET source = 'in/' || source WHERE source < 'contract-2'")
    pipeline.execute(
        "UPDATE intakes SET source = :folder || source WHERE source > 'contract-2'",
        folder=f"{tmp_path}/in/",
    )
    for path in ("in", "in/", "./in", "x/../in", str(tmp_path / "in"), "."):
        answer = json.loads(output_of("ask", "count contracts", path, "--json").out)
        assert answer["documents"]["all"] == len(GOLD) + UNREAD, path
    nothing = output_of("ask", "count contracts", "nope", code=ExitCode.USAGE).err
    assert f"The table contracts has no document at {tmp_path}/nope." in nothing


def test_paths_select_documents_and_their_rows(pipeline: Pipeline) -> None:
    pipeline.execute(
        "UPDATE intakes SET source = CASE WHEN source < 'contract-2' THEN '/in/a%/' || source"
        " WHEN source < 'contract-3' THEN '/in/b.csv#' || source ELSE source END"
    )
    for paths, names in [
        (["/in/a%"], "a-refused b-refused contract-0 contract-1"),
        (["/in/b.csv"], "contract-2"),
        (["/in"], "a-refused b-refused contract-0 contract-1 contract-2"),
        (["locked.pdf"], "locked"),
    ]:
        all_names = [contract.name for contract in GOLD]
        answer = ask.ask(pipeline.context, "count contracts", paths=paths)
        count = sum(name.startswith(tuple(names.split())) for name in all_names)
        assert answer.count.rows == [(count,)]
        outside = 2 * ("refused" in names) + (names == "locked")
        assert answer.count.documents == count + outside
        assert len(answer.count.unread) == outside


PERIODS: Mapping[str, Callable[[date], bool]] = {
    "before 2022": lambda day: day < date(2022, 1, 1),
    "after 2022": lambda day: day > date(2022, 12, 31),
    "<= 2022-06": lambda day: day <= date(2022, 6, 30),
    "is 2022": lambda day: day.year == 2022,
    "is not 2022-06": lambda day: (day.year, day.month) != (2022, 6),
}


@pytest.mark.usefixtures("pipeline")
def test_years_and_months_are_dates() -> None:
    for condition, is_fitting in PERIODS.items():
        answer = rows_of(f"count contracts where effective_date {condition}")

        count = sum(is_fitting(contract.start) for contract in GOLD)
        assert answer == [{"documents": count}], condition


@pytest.mark.usefixtures("pipeline")
def test_a_value_that_does_not_occur_and_mixed_currencies_are_said() -> None:
    misspelled = LAWS[0][:-1]
    printed = output_of("ask", f'count contracts where governing_law is "{misspelled}"').out
    assert f"No document has “{misspelled}” as governing_law. Similar: {LAWS[0]}" in printed
    printed = output_of("ask", "count contracts where annual_fee > 10000").out
    assert "Amounts of annual_fee are compared in any currency" in " ".join(printed.split())
    assert "any currency" not in output_of("ask", "count contracts where annual_fee > EUR 9").out


def test_a_value_of_another_type_or_a_rejected_one_is_not_silent(settings: Settings) -> None:
    items = ("day: date", "law")
    texts = ("day: 2024-01-01\nlaw: Delaware", "day: not yet fixed\nlaw: Texas", "law: England")
    save(settings, "deeds", AnalysisOptions(items=items), *texts)
    rejected = ("--document", "0.txt", "--type", "extraction", "--reject", "--path", "law")
    output_of("feedback", "latest", *rejected)

    days = json.loads(output_of("ask", "count deeds where day is silent", "--json").out)
    laws = json.loads(output_of("ask", "count deeds where law is silent", "--json").out)
    by_day = json.loads(output_of("ask", "count deeds by year of day", "--json").out)

    assert (days["rows"], laws["rows"]) == ([{"documents": 1}], [{"documents": 0}])
    assert (days["unsure"], laws["unsure"]) == ([], [])
    assert rows_of("count deeds where day is mentioned") == [{"documents": 2}]
    assert [row["document"] for row in by_day["silent"]] == ["2.txt"]
    assert [row["document"] for row in by_day["unread"]] == ["1.txt"]
    quoted = output_of("ask", "count deeds where day is silent", "--quotes").out
    assert "2.txt: day = not mentioned" in quoted


def test_a_value_corrected_to_nothing_is_silent(settings: Settings) -> None:
    save(settings, "deeds", AnalysisOptions(items=("law",)), "law: Texas", "law: England")
    output_of("feedback", "latest", "--document", "0.txt", "--correct", "law=null")

    laws = json.loads(output_of("ask", "count deeds where law is silent", "--json").out)

    assert laws["rows"] == [{"documents": 1}]
    assert (laws["unread"], laws["documents"]["at_least"]) == ([], 1)


def test_an_absence_to_be_checked_is_not_silent(settings: Settings) -> None:
    """The built-in model finds only organizations with a legal form."""
    asked = AnalysisOptions(instructions="organization, law")
    save(settings, "notes", asked, *FIRMS, model="extractive")

    by_firm = json.loads(output_of("ask", "count notes by organization", "--json").out)
    silent = json.loads(output_of("ask", "count notes where organization is silent", "--json").out)

    assert by_firm["rows"] == [{"organization": "Contoso Ltd.", "documents": 1}]
    for answer in (by_firm, silent):
        assert (answer["silent"], [row["document"] for row in answer["unsure"]]) == ([], ["1.txt"])
    assert silent["rows"] == [{"documents": 0}]
    assert silent["documents"]["at_most"] == 1
    printed = output_of("ask", "count notes by organization").out
    assert "Nothing found, which is not certain: 1 document: 1.txt" in printed
    by_law = output_of("ask", "count notes by law").out
    assert ("Silent: 2 documents: " in by_law, "not certain" in by_law) == (True, False)


def test_a_list_that_was_not_searched_is_not_silent(settings: Settings) -> None:
    """The built-in model finds no rows, and marks the answer."""
    save(settings, "bills", AnalysisOptions(schema=SCHEMA), "One line: 5 EUR.", model="extractive")

    answer = json.loads(output_of("ask", "count bills_lines", "--json").out)

    assert (answer["silent"], [row["document"] for row in answer["unsure"]]) == ([], ["0.txt"])
    assert (answer["documents"]["at_least"], answer["documents"]["at_most"]) == (0, 1)


def test_files_with_several_contents_are_named(settings: Settings) -> None:
    save(settings, "changed", AnalysisOptions(items=("fee: money",)), "fee: USD 2000")
    save(settings, "changed", AnalysisOptions(items=("fee: money",)), "fee: USD 2500")

    printed = output_of("ask", "sum fee of changed").out

    assert "Counted once for each content that was read under the same name: 0.txt" in printed


def test_providers_receive_a_schema_of_plans_with_texts(pipeline: Pipeline) -> None:
    with pipeline.context.database.read() as session:
        tables = [t.catalogue() for t in ask.tables_of(answer_tables.gather(session))]

    schema = json.dumps(for_openai_strict(plans.schema_for(tables)))

    assert '"number"' not in schema


HOSTILE = [
    a_plan(table="pg_authid"),
    a_plan(table="contracts; DROP TABLE runs"),
    a_plan("count", "(SELECT 1)"),
    a_plan("pg_sleep", "annual_fee"),
    a_plan(where=[("lower(governing_law)", "is", "x")]),
    a_plan(where=[("governing_law", "= ANY(SELECT rolname FROM pg_roles) --", "x")]),
    a_plan(group_by=[("source", "")]),
    a_plan(group_by=[("effective_date", "epoch)")]),
    a_plan("sum", "annual_fee", limit="all"),
    a_plan(extra="SELECT 1"),
]


def test_hostile_plans_are_refused(pipeline: Pipeline) -> None:
    with pipeline.context.database.read() as session:
        tables = [t.catalogue() for t in ask.tables_of(answer_tables.gather(session))]

    for plan in HOSTILE:
        model = ScriptedModel([json.dumps(plan)], repeat_last=True)
        with pytest.raises((InvalidAnswerError, UsageError)):
            ask.plan("Which?", tables, model)
        assert len(model.requests) == 2, plan


INJECTION = "x') OR true; DROP TABLE results; --"


def test_values_are_no_sql(pipeline: Pipeline) -> None:
    known = sum(contract.law is not None for contract in GOLD)
    with computing(pipeline) as computed:
        for operator, matching in (("is", 0), ("is not", known), ("contains", 0)):
            count = computed(a_plan(where=[("governing_law", operator, INJECTION)])).count
            assert len(count.matching) == matching, operator

    assert pipeline.value("SELECT count(*) FROM results") == len(GOLD)


UNFOUNDED = (
    "{result} of 58 contracts cost more than 50000 euros.",
    "{result} thousand contracts cost more than 50000 euros.",
    "{result}{result} contracts cost more than 50000 euros.",
    "{result},{documents} contracts cost more than 50000 euros.",
    "½ {result} ² contracts cost more than 50000 euros.",
    "Only {result} percent cost more than 50000 euros.",
    "All but {result} cost more than 50000 euros.",
    "Most contracts cost more than 50000 euros.",
)


def test_a_sentence_states_only_figures_of_the_rows(pipeline: Pipeline) -> None:
    where = [("annual_fee", ">", "50000")]
    stated = "{result} of {documents} contracts cost more than 50000 euros."
    matching = sum((contract.fee or 0) > 50_000 for contract in GOLD)
    with computing(pipeline) as computed:
        said = computed(a_plan(where=where, sentence=stated)).sentence
        assert said == f"{matching} of 44 contracts cost more than 50000 euros."
        for sentence in UNFOUNDED:
            assert computed(a_plan(where=where, sentence=sentence)).sentence == "", sentence


def test_checks_bound_the_count(pipeline: Pipeline) -> None:
    """Without checks, the supported values are taken as right; with checks, the rest is bounded."""
    of_delaware = ("governing_law", "is", "Delaware")
    plan = a_plan(where=[of_delaware])
    before = result_of(pipeline, plan).count
    pipeline.execute(
        "UPDATE facts SET verdict = 'approved' WHERE item = 'governing law' AND value IS NOT NULL"
        " AND id IN (SELECT id FROM facts WHERE item = 'governing law' ORDER BY id LIMIT 20)"
    )
    after = result_of(pipeline, plan).count

    matching = sum(contract.law == "Delaware" for contract in GOLD)
    assert (before.low, before.high, before.checks) == (matching, matching, 0)
    assert after.checks > 0
    assert after.low < matching < after.high

    of_two = a_plan(where=[of_delaware, ("annual_fee", ">", "1")])
    assert result_of(pipeline, of_two).count.checks == 0
    pipeline.execute("UPDATE facts SET verdict = 'approved' WHERE item = 'annual fee'")
    assert 0 < result_of(pipeline, of_two).count.checks <= after.checks

    pipeline.execute("UPDATE facts SET verdict = 'approved' WHERE item = 'governing law'")
    decided = result_of(pipeline, plan).count
    assert (decided.low, decided.high, decided.undecided) == (matching, matching, 0)
    trust = f"Trust: {matching} documents, since all of their values were checked"
    assert trust in list(counts.account(decided))


def test_a_call_for_a_plan_is_in_the_ledger(pipeline: Pipeline) -> None:
    where = [("annual_fee", ">", "50000")]
    model = ScriptedModel([json.dumps(a_plan(where=where))])
    context = pipeline.context
    models = Models(context.settings, connected={SCRIPTED: model})
    answer = ask.ask(replace(context, models=models), "How many cost much?", "", SCRIPTED)

    assert answer.count.rows == [(sum((contract.fee or 0) > 50_000 for contract in GOLD),)]
    ((stage, version, valid),) = pipeline.rows(
        "SELECT stage, prompt_version, valid FROM model_calls WHERE job_id IS NULL"
    )
    assert (stage, version, valid) == ("plan", "plan@1", True)
    assert "governing_law" in model.requests[0].user
    assert "“Delaware”" in model.requests[0].user


def test_no_transaction_of_the_reader_waits_for_the_model(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_sql, "reader", partial(user_sql.reader, idle_seconds=1))

    def slow(_: object) -> str:
        Event().wait(1.5)
        return json.dumps(a_plan())

    models = Models(pipeline.context.settings, connected={SCRIPTED: ScriptedModel([slow])})
    answer = ask.ask(replace(pipeline.context, models=models), "How many?", "", SCRIPTED)

    assert answer.count.rows == [(len(GOLD),)]


def test_what_was_never_asked_can_be_asked(settings: Settings, pipeline: Pipeline) -> None:
    context = replace(
        pipeline.context, models=Models(settings, connected={SCRIPTED: ScriptedModel([])})
    )

    target = refresh.extended(context, "contracts", ["notice period"])

    assert target.options.analysis.items == (*ITEMS, "notice period")
    assert target.options.save_as == "contracts"
    due = list(refresh.documents(context, target))
    assert len(due) == len(GOLD)


def test_the_offer_to_ask_has_its_cost(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def never_asked(*_: object, **__: object) -> AnsweredQuestion:
        raise ask.NeverAskedError("contracts", ["notice period"])

    monkeypatch.setattr(ask, "ask", never_asked)
    pipeline.execute(
        "UPDATE runs SET options = jsonb_set(options::jsonb, '{model}', '\"extractive\"')"
    )

    error = " ".join(output_of("ask", "How long?", code=ExitCode.USAGE).err.split())

    assert f"chordwise ask … --analyze ({len(GOLD)} documents, $0.00)" in error


def test_the_client_asks(settings: Settings) -> None:
    with Client(
        database_url=settings.require_database_url().get_secret_value(), home=settings.home
    ) as client:
        answer = client.ask("count contracts", "contracts")

    assert answer["rows"] == [{"documents": len(GOLD)}]
    assert answer["plan"] == "answers.contracts · count documents"
