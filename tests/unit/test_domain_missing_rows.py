"""Tests of detecting records of a text that have no row in the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from chordwise.domain import missing_rows
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.grounding import Source, ground
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.missing_rows import MissingRows
from tests.fakes.completion_requests import a_task

COUNT = 60
NAMES = [
    "Tea" if number % 10 == 0 else f"Bolt no. {number}" if number % 3 else f"Nut {number}"
    for number in range(COUNT)
]
Record = Callable[[str, int], str]

LAYOUTS: dict[str, Record] = {
    "csv": lambda name, price: f'"{name}, new",{price},{price}.50\n',
    "markdown": lambda name, price: f"| {name} | {price} | EUR |\n",
    "items": lambda name, price: f"- {name}\n  costs {price} EUR\n",
    "names and values": lambda name, price: f"Name: {name}\nPrice: {price}\nUnit: piece\n\n",
    "columns": lambda name, price: f"{name:<30}{price:>8}{price:>10}.50\n",
    "amounts": lambda name, price: f"{name} {price} {price}.50 €{price}.50\n",
    "keys in bold": lambda name, price: f"**Name:** {name}  \n**Price:** {price} EUR\n\n",
    "dates before text": lambda name, price: f"{price % 28 + 1} May {price}: {name} came\n",
    "leaders": lambda name, price: f"{name} {'.' * (30 - len(name))} {price} EUR\n",
}


def records_of(layout: str) -> list[str]:
    return [LAYOUTS[layout](name, number + 1) for number, name in enumerate(NAMES)]


def unread(
    text: str, data: JsonObject, evidence: list[JsonValue], **of_lists: JsonValue
) -> tuple[MissingRows, ...]:
    """Return the missing rows of an answer whose data consists of lists."""
    lists: JsonObject = {name: {"type": "array", "items": {}, **of_lists} for name in data}
    source = Source(text)
    output = ground({"data": data, "evidence": evidence}, source)
    options = AnalysisOptions(schema={"properties": lists})
    return missing_rows.unread(source, output, a_task(AnalysisType.EXTRACTION, options=options))


def missing_in(
    text: str, quotes: Sequence[str], rows: int | None = None, **of_list: JsonValue
) -> tuple[MissingRows, ...]:
    """Return the missing rows of an answer with a row for each quote, or with more rows."""
    items: JsonObject = {"type": "object", "properties": {"name": {"type": "string"}}}
    data: list[JsonValue] = [{"name": str(number)} for number in range(rows or len(quotes))]
    evidence: list[JsonValue] = [
        {"path": f"/rows/{number}", "quote": quote.strip(), "confidence": 9}
        for number, quote in enumerate(quotes)
    ]
    return unread(text, {"rows": data}, evidence, items=items, **of_list)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_records_without_a_row_are_missing(layout: str) -> None:
    records = records_of(layout)
    text = f"The order of May.\n\n{''.join(records)}\nWith kind regards."

    (stopped,) = missing_in(text, records[: COUNT // 2])
    (without_middle,) = missing_in(text, records[:25] + records[35:])

    assert (stopped.kept, without_middle.kept) == (COUNT // 2, COUNT - 10)
    assert all(0.8 * COUNT <= gap.found <= COUNT for gap in (stopped, without_middle))
    assert missing_in(text, records) == ()


@pytest.mark.parametrize("dropped", [(1,), (30,), (COUNT - 1,), (3, 17, 18, 40)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_single_record_without_a_row_is_missing(layout: str, dropped: Sequence[int]) -> None:
    """It is detected because no other text resembles the records of a long list."""
    records = records_of(layout)
    kept = [record for number, record in enumerate(records) if number not in dropped]

    (gap,) = missing_in(f"The order of May.\n\n{''.join(records)}", kept)

    assert (gap.kept, gap.records) == (len(kept), len(dropped))


@pytest.mark.parametrize(
    "layout",
    [
        '{{"name": "{name}", "price": {price}, "unit": "piece"}}, ',
        "<row><name>{name}</name><price>{price}</price><weight>{price}.5</weight></row>",
        "{name}\n{price}\n{price}.50\n",
    ],
)
def test_records_without_their_own_lines_are_missing(layout: str) -> None:
    records = [layout.format(name=name, price=n) for n, name in enumerate(NAMES)]
    text = f'{{"title": 5, "rows": [{"".join(records)}]}}'

    (gap,) = missing_in(text, records[:20] + records[30:])

    assert (gap.kept, gap.found) == (COUNT - 10, COUNT)
    assert missing_in(text, records) == ()


def test_records_of_similar_lists_are_matched_with_either_list() -> None:
    records = records_of("markdown")
    text = f"## North\n\n{''.join(records[:30])}\n## South\n\n{''.join(records[30:])}"

    def missing(north: Sequence[str], south: Sequence[str]) -> list[tuple[str, int]]:
        entries: list[JsonValue] = [
            {"path": f"/{name}/{place}", "quote": record.strip()}
            for name, part in (("north", north), ("south", south))
            for place, record in enumerate(part)
        ]
        data: JsonObject = {"north": [*north], "south": [*south]}
        return [(gap.path, gap.records) for gap in unread(text, data, entries)]

    assert missing(records[:30], records[30:]) == []
    assert missing(records[:30], records[30:50] + records[51:]) == [("/data/south", 1)]


@pytest.mark.parametrize("layout", ["csv", "markdown", "items", "names and values", "columns"])
def test_one_record_of_four_without_a_row_is_missing(layout: str) -> None:
    records = records_of(layout)
    text = f"The order of May.\n\n{''.join(records[:4])}\nWith kind regards."

    (gap,) = missing_in(text, [*records[:2], records[3]])

    assert gap.records == 1
    assert missing_in(text, records[:4]) == ()
    (stopped,) = missing_in("".join(records[:12]), records[:6])
    assert stopped.records == 6


@pytest.mark.parametrize(
    "layout",
    ["{0},{1},{1}.50", "| {0} | {1} |", "- {0}", "1. {0}", "Name: {0}\nQty: {1}\n", '"{0}",'],
)
@pytest.mark.parametrize("kept", [(0, 1), (2, 3), (0, 2)])
def test_two_records_of_four_without_a_row_are_missing(layout: str, kept: Sequence[int]) -> None:
    names = ("Hex bolt", "Washer", "Spring clip", "Pipe clamp")
    records = [layout.format(name, number) for number, name in enumerate(names)]
    text = "\n".join(("Our order of May:\n", *records, "\nWith kind regards.\n"))

    (gap,) = missing_in(text, [records[number] for number in kept])

    assert (gap.kept, gap.records) == (2, 2)
    assert missing_in(text, records) == ()


PEOPLE = [
    f"{one} {two}" for one in ("Ada", "Ben", "Cleo") for two in ("Ash", "Cole", "Dove", "Elm")
]


@pytest.mark.parametrize(
    "layout",
    ["## {0}\n\n{1}\n\n", "{0}\n{2} High Street\nLeeds\n\n", "{0}\n\n"],
    ids=["headings", "addresses", "paragraphs"],
)
@pytest.mark.parametrize("is_named", [True, False])
def test_records_separated_by_blank_lines_are_missing(layout: str, *, is_named: bool) -> None:
    said = ("Costs a lot.", "We like it, and so do others.", "Sold since March.")
    records = [layout.format(name, said[n % 3], n) for n, name in enumerate(PEOPLE)]
    text = f"# The guests\n\n{''.join(records)}## Contact\n\nWrite to us.\n\nRegards\n\nTom\n"

    def number_missing(kept: Sequence[int]) -> int:
        quotes = [PEOPLE[number] if is_named else records[number] for number in kept]
        return sum(gap.records for gap in missing_in(text, quotes))

    numbers = range(len(PEOPLE))
    assert number_missing([number for number in numbers if number != 4]) == 1
    assert number_missing(numbers[:6]) >= 5
    assert number_missing(numbers) == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Present:\nZoe Hill\n{}\n\nThe end", 1),
        ("Present:\n\nZoe Hill\n{}\n\nThe end", 1),
        ("Present\n{}\n\nThe end", 0),
        ("Minutes\n\n{}\nZoe Hill\n\nThe end", 1),
        ("{}\nZoe Hill", 1),
        ("{}\nApologies\n\nThe end", 0),
        ("{}\nThe Secretary of state", 0),
        ("{}\n\nZoe Hill", 0),
        ("Guests\n\nZoe Hill\n\n\fGuests\n\n{}", 0),
    ],
)
def test_the_first_and_last_names_are_missing_in_a_delimited_list(text: str, number: int) -> None:
    missing = missing_in(text.format("\n".join(PEOPLE)), PEOPLE)

    assert sum(gap.records for gap in missing) == number


def test_names_before_values_of_one_kind_are_records() -> None:
    prices = [f"{name}: {number}.50\n" for number, name in enumerate(PEOPLE)]
    form = "Sent on: 3 May 2020\nFrom: Ada Ash\nPieces: 3\nAmount: 12.00 EUR\nDue: 30 days\n"

    assert [gap.records for gap in missing_in("".join(prices), prices[:6])] == [6]
    assert missing_in(form, ["Pieces: 3", "Amount: 12.00 EUR"]) == ()


def test_a_following_line_of_another_form_is_not_a_record() -> None:
    names = [name.lower() for name in PEOPLE]
    text = "\n".join(("These were bought:", *names, "Please deliver by Friday."))

    assert missing_in(text, names) == ()
    assert [gap.records for gap in missing_in(text, [*names[:5], *names[6:]])] == [1]


def test_a_single_row_is_compared_with_those_of_its_table() -> None:
    records = records_of("markdown")
    text = f"{''.join(records)}\n| fee | for | in |\n|---|---|---|\n| Card 1 | 5 | EUR |\n"

    (gap,) = missing_in(text, records[:1])

    assert gap.records == COUNT - 1
    assert missing_in(text, ["| Card 1 | 5 | EUR |"]) == ()


@pytest.mark.parametrize("row", ["| {name} | {price} | {unit} |\n", "{name};{price};{unit};EUR\n"])
def test_rows_with_an_empty_cell_are_missing(row: str) -> None:
    """Sums and headings within the table have fewer filled cells, or are named so."""
    units = ["" if number % 6 == 2 else "piece" for number in range(COUNT)]
    records = [
        row.format(name=name, price=number + 1, unit=unit)
        for number, (name, unit) in enumerate(zip(NAMES, units, strict=True))
    ]
    filled = [record for record, unit in zip(records, units, strict=True) if unit]
    total, group = row.format(name="Subtotal", price=465, unit=""), "| Nuts | | |\n"
    head, middle = row.format(name="Name", price="Price", unit="Unit"), [total, group]

    (missing,) = missing_in("".join([head, *records[:30], *middle, *records[30:]]), filled)

    assert missing.records == COUNT - len(filled)
    assert missing_in("".join([head, *filled[:25], *middle, *filled[25:]]), filled) == ()


def test_names_on_separate_lines_are_records() -> None:
    first, last = ("Ada", "Ben", "Cleo", "Dan"), ("Ash", "Birk", "Cole von", "Dove", "Elm")
    names = [f"{one} {other}" for one in first for other in last]
    text = "Participants\n\n" + "\n".join(names) + "\n\nThe Secretary\n"

    def number_missing(kept: Sequence[str]) -> int:
        return sum(gap.records for gap in missing_in(text, kept))

    assert number_missing(names[:10]) == len(names) - 10
    assert number_missing(names[:7] + names[8:]) == 1
    assert number_missing(names) == 0
    assert missing_in(text.replace(names[10], f"\nGuests\n{names[10]}"), names) == ()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("quote", ["", "Not in the text."])
def test_rows_without_a_quote_are_located_by_their_values(layout: str, quote: str) -> None:
    records = records_of(layout)
    rows: list[JsonValue] = [{"name": name, "n": n + 1} for n, name in enumerate(NAMES)]
    entries: list[JsonValue] = [{"path": "/rows/0", "quote": quote}] if quote else []
    text = f"The order of May.\n\n{''.join(records)}\nWith kind regards."

    (gap,) = unread(text, {"rows": rows[:25] + rows[35:]}, entries)

    assert unread(text, {"rows": rows}, entries) == ()
    assert gap.kept == COUNT - 10


@pytest.mark.parametrize(
    "further",
    [
        ["Subtotal,180,99.50", "VAT 19 %,5,19.00", "Shipping,1,4.90", "Total due,186,123.40"],
        ["Zwischensumme,180,99.50", "MwSt.,5,19.00", "Gesamtbetrag,185,118.50"],
        ["小计,180,99.50", "合计,185,118.50"],
    ],
)
def test_totals_with_as_many_cells_are_not_records(further: Sequence[str]) -> None:
    rows = [f"{name},{number},{number}.50\n" for number, name in enumerate(NAMES[:12])]
    added = [f"{line}\n" for line in further]
    text = f"Item,2023,2024\n{''.join(rows[:6])}{added[0]}{''.join(rows[6:])}{''.join(added)}"

    assert missing_in(text, rows) == ()
    assert missing_in(text, rows[:5] + rows[6:])


@pytest.mark.parametrize(
    "name", ["Tax consulting", "Cash register", "Shipping container", "Total Wine Ltd"]
)
def test_a_record_named_like_a_total_is_missing_among_others(name: str) -> None:
    rows = [f"{item},{number},{number}.50\n" for number, item in enumerate(NAMES[:12])]
    record, added = f"{name},3,4.50\n", name.replace("Total Wine Ltd", "Tax")

    (gap,) = missing_in("".join([*rows[:6], record, *rows[6:]]), rows)

    assert gap.records == 1
    assert missing_in("".join([*rows, f"{added},3,4.50\n"]), rows) == ()


def test_a_small_subtotal_after_large_amounts_is_not_a_record() -> None:
    rows = [f"{item},{number},{900 - 80 * number}.50\n" for number, item in enumerate(NAMES[:10])]
    sums = ["Subtotal,10,3702.50\n", "Subtotal,35,1102.50\n", "Total,45,4805.00\n"]

    assert missing_in("".join([*rows[:5], sums[0], *rows[5:], *sums[1:]]), rows) == ()


def of_free_text(number: int) -> str:
    """Return a record with a name and enough free text that no two have the same form."""
    words = ("cardboard", "dry", "supplier", "flaws", "delivery", "cost", "seal", "label")
    text = " ".join(
        f"{word}," if (number + place) % 3 else f"{word} {place}."
        for place, word in enumerate(words * (1 + number % 3))
    )
    return f"{NAMES[number]} keeps {text}"


@pytest.mark.parametrize("end", ["\n", "\n\n"])
@pytest.mark.parametrize("is_named", [True, False])
def test_items_of_free_text_are_missing(end: str, *, is_named: bool) -> None:
    numbers = [number for number in range(40) if number % 10]
    records = {number: f"- {of_free_text(number)}" for number in numbers}
    quotes = {number: NAMES[number] if is_named else records[number] for number in numbers}
    text = f"The order of May.\n\n{end.join(records.values())}\n\nWith kind regards."

    def number_missing(kept: Sequence[int]) -> int:
        return sum(gap.records for gap in missing_in(text, [quotes[number] for number in kept]))

    assert number_missing([number for number in numbers if number != 17]) == 1
    assert number_missing([number for number in numbers if number % 4]) == 8
    assert number_missing(numbers) == 0


def test_abbreviations_in_a_paragraph_begin_no_records() -> None:
    payments = [f"{number} Acme Inc. paid {100 + 7 * number} euros" for number in range(5, 17)]
    text = "".join(f"On Jan. {payment} to Bolt Ltd. " for payment in payments)

    assert missing_in(text, payments) == ()


def test_values_within_free_text_are_not_records() -> None:
    text = "\n".join(f"Last month {of_free_text(number)}" for number in range(40) if number % 10)

    quotes = [NAMES[number] for number in range(40) if number % 10 and number % 3]
    assert missing_in(text, quotes) == ()


def test_the_rest_of_a_list_of_free_text_is_missing() -> None:
    """A model that stops early leaves items that follow without a blank line."""
    numbers = [number for number in range(40) if number % 10]
    text = "\n".join(f"- {of_free_text(number)}" for number in numbers)

    (gap,) = missing_in(text, [NAMES[number] for number in numbers[:20]])

    assert gap.records >= len(numbers) // 3


@pytest.mark.parametrize("layout", ['"{name}, new",{price},"{text}"\n', "| {name} | {text} |\n"])
def test_long_rows_of_a_table_are_one_record_each(layout: str) -> None:
    text = "It is good. " * 30
    rows = [layout.format(name=name, price=n, text=text) for n, name in enumerate(NAMES[:20])]

    (gap,) = missing_in("".join(rows), [*NAMES[:12], *NAMES[13:20]])

    assert gap.records == 1
    assert missing_in("".join(rows), NAMES[:20]) == ()


def test_the_rest_of_a_table_after_a_break_is_missing() -> None:
    """The break is the end of a page or a heading; the rest may be the whole of what follows."""
    records = records_of("markdown")
    head = "| name | price | unit |\n|---|---|---|\n"
    parts = [f"## Store {number}\n\n{head}{''.join(records[number::3])}\n" for number in range(3)]

    (gap,) = missing_in("".join(parts), records[0::3])

    assert (gap.path, gap.kept, gap.found) == ("/data/rows", COUNT // 3, COUNT)


def test_headers_and_totals_are_not_records() -> None:
    """They have no amounts, have fewer cells than any row, or are few."""
    rows = [f"{name},{number},{number}.50\n" for number, name in enumerate(NAMES[:12])]
    totals = [f"{name},,{12}.50\n" for name in ("Subtotal", "Tax", "Shipping", "Total")]
    text = f"name,amount,price\n{''.join(rows)}{''.join(totals)}"

    assert missing_in(text, rows) == ()


@pytest.mark.parametrize(
    ("record", "other"),
    [
        ("Coffee, black, 2.50\n", "Tea {}, green, 2.{}0\n"),
        ("Coffee at 2 EUR each\n", "{} bottles of milk were sold, {} of them on Monday.\n"),
    ],
)
def test_equal_lines_need_a_row_each(record: str, other: str) -> None:
    """A model returned one row for them, although they differ in form from the other rows."""
    others = [other.format(number, number) for number in range(1, 9)]
    text = f"Sold in May:\n\n{''.join(line + record for line in others)}"

    (gap,) = missing_in(text, [*others, record])

    assert (gap.kept, gap.found) == (9, 16)
    assert missing_in(text, [*others, *[record] * 8]) == ()
    assert missing_in(f"Coffee\n\n{others[0]}\nCoffee\n", ["Coffee"]) == ()


def test_a_line_of_the_title_page_needs_no_second_row() -> None:
    """The quote of the last row occurs in the title, and in the text further on."""
    title, addresses = "Party A: Birch Security Ltd.", "Address: Room 2101\n\nTel:\n\n"
    text = (
        f"Cooperation Agreement\n\n{title}\n\nParty B: Elm Network Ltd.\n\nApril 2013\n\n"
        f"This agreement is made between the parties below:\n\nParty A: Birch Ltd.\n\n{addresses}"
        f"Party B: Elm Network Ltd.\n\n{addresses}1. Party A has a site.\n\n2. Party B is a firm.\n"
    )

    assert missing_in(text, [title, "Birch Ltd.", "Elm Network Ltd.", "2. Party B"]) == ()


def test_a_csv_record_with_a_line_break_in_a_field_is_one_record() -> None:
    records = [f'"{name}\nin grey, new",{number},2.50\n' for number, name in enumerate(NAMES)]
    text = f"name,amount,price\n{''.join(records)}"

    (gap,) = missing_in(text, records[::30])

    assert (gap.kept, gap.found) == (2, COUNT)
    assert missing_in(text, records) == ()


@pytest.mark.parametrize(
    ("header", "row", "number"),
    [
        ("| Name | Unit price | Note |\n|---|---|---|\n", "| {} | {}.50 | new |\n", 12),
        ("name;unit price\n", "{};{},50\n", 12),
        ("Pos  Name  Unit price\n", "1  {}  {}.50\n", 12),
        ("| Person | Age | Note |\n|---|---|---|\n", "| {} | {}.50 | new |\n", 0),
    ],
)
def test_an_empty_list_lacks_the_rows_of_its_table(header: str, row: str, number: int) -> None:
    rows = [row.format(name, place + 1) for place, name in enumerate(NAMES[:12])]
    text = f"Order 7\n\n{header}{''.join(rows)}\nTotal: 90.00\n"
    members: JsonObject = {"name": {"type": "string"}, "unit_price": {"type": "number"}}
    items: JsonObject = {"type": "object", "properties": members}

    gaps = unread(text, {"rows": []}, [], items=items)

    assert [(gap.kept, gap.found) for gap in gaps] == [(0, number)] * bool(number)
    assert unread(text, {"rows": None}, [], items=items) == gaps
    assert unread(text, {"rows": []}, [], items=items, **{"x-selection": True}) == ()
    both: JsonObject = {"rows": [{"name": "Tea"}] * 12, "sold_out": []}
    read: list[JsonValue] = [
        {"path": f"/rows/{place}", "quote": quote} for place, quote in enumerate(rows)
    ]
    assert unread(text, both, read, items=items) == ()


@pytest.mark.parametrize("lines", [2, 3, COUNT])
@pytest.mark.parametrize("layout", ["csv", "markdown", "columns", "names and values"])
def test_rows_are_located_by_their_values_if_their_quotes_overlap(layout: str, lines: int) -> None:
    names = [f"Part {chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(COUNT)]
    records = [LAYOUTS[layout](name, n + 1) for n, name in enumerate(names)]
    text = "".join(records)

    def missing(numbers: Sequence[int]) -> list[int]:
        data: list[JsonValue] = [{"name": names[number], "price": number + 1} for number in numbers]
        quotes = ["".join(records[max(0, number - 1) : number + lines - 1]) for number in numbers]
        evidence: list[JsonValue] = [
            {"path": f"/rows/{place}", "quote": quote.strip() if lines < COUNT else text.strip()}
            for place, quote in enumerate(quotes)
        ]
        return [gap.records for gap in unread(text, {"rows": data}, evidence)]

    assert missing(range(COUNT // 2)) == [COUNT // 2]
    assert missing([n for n in range(COUNT) if n != 30]) == [1]
    assert missing(range(COUNT)) == []


ROLES = ("chair", "head of sales", "member of the board", "auditor")
ENTRIES = [
    "- {name}, {role}",
    "3) {name}, {role}",
    "- **{name}**: {role}",
    "- {name}",
    "{name} – {role}",
    "{name} ({role})",
    "{name}: {role}",
    "Name: {name}",
    "2024-05-{day} 09:30 {name}",
    "{name}, {day} High Street, 51234 Leeds",
    "- {name}\n  {role} since May",
]


@pytest.mark.parametrize("kept", [(0,), (5,), (11,), (0, 3, 6, 9)])
@pytest.mark.parametrize("layout", ENTRIES)
def test_a_single_entry_is_compared_with_those_around_it(layout: str, kept: Sequence[int]) -> None:
    """Entries are short, have the same mark and separator, and are equally far apart."""
    records = [
        layout.format(name=name, role=ROLES[n % 3], day=10 + n) for n, name in enumerate(PEOPLE)
    ]
    text = "\n".join(("We met in May.\n", "Those present:", *records, "\nWith kind regards."))

    def number_missing(numbers: Sequence[int]) -> int:
        data: JsonObject = {"rows": [{"name": PEOPLE[number]} for number in numbers]}
        quotes: list[JsonValue] = [
            {"path": f"/rows/{row}", "quote": records[number]} for row, number in enumerate(numbers)
        ]
        return sum(gap.records for gap in unread(text, data, quotes))

    assert number_missing(kept) == len(PEOPLE) - len(kept)
    assert number_missing(range(len(PEOPLE))) == 0


@pytest.mark.parametrize("between", ["Absent:\n", "## Absent\n", "\n"])
def test_a_single_entry_is_compared_with_the_entries_of_its_list(between: str) -> None:
    """A heading, a line with a colon and a blank line end a list."""
    lists = [
        "".join(f"- {name}, chair\n" for name in people) for people in (PEOPLE[:5], PEOPLE[5:])
    ]

    (gap,) = missing_in(between.join(lists), [PEOPLE[7]])

    assert gap.records == len(PEOPLE) - 6


TURNS = [
    f"{('Ada', 'Ben')[number % 2]}: {name} is here, said the others. So we went on."
    for number, name in enumerate(PEOPLE[:10])
]


@pytest.mark.parametrize(
    ("kept", "number"),
    [(range(5), 2), (range(5, 10), 2), (range(10), 0), (range(0, 10, 2), 0), ((1, 2, 6), 0)],
    ids=["first half", "second half", "all", "one speaker", "some"],
)
def test_turns_are_compared_with_those_of_the_same_speaker(
    kept: Sequence[int], number: int
) -> None:
    """Few rows are a selection."""
    data: JsonObject = {"rows": [{"speaker": TURNS[turn][:3]} for turn in kept]}
    quotes: list[JsonValue] = [
        {"path": f"/rows/{row}", "quote": TURNS[turn]} for row, turn in enumerate(kept)
    ]
    lines = "\n".join(TURNS)

    gaps = unread(f"The minutes of May.\n\n{lines}\n\nThe end.", data, quotes)

    assert sum(gap.records for gap in gaps) == number


@pytest.mark.parametrize(
    ("lines", "quote"),
    [
        (["- We met on {n} May, and it rained."] * 6, "We met on 3 May, and it rained"),
        (["- {name} came late", "- Both paid", "- It took {n} h", "- Rain"] * 2, "Ada Ash"),
        (["{name} GmbH", "High Street", "Leeds", "United Kingdom"], "Ada Ash GmbH"),
        (["{name}: I said it is fine.", "Tom: We said it is not."] * 4, "Tom"),
        (["Sent: May {n}", "From: {name}", "To: Tom", "About: us"], "Ada Cole"),
        (["- {name} – chair", "- Some more of them came", "- They left"] * 2, "Ada Ash"),
    ],
    ids=["sentences", "part of an item", "address", "speaker", "form", "other items"],
)
def test_a_single_value_is_not_compared_with_other_lines(lines: Sequence[str], quote: str) -> None:
    text = "\n".join(line.format(name=PEOPLE[n], n=n) for n, line in enumerate(lines))

    assert quote in text
    assert missing_in(f"In May.\n\n{text}\n", [quote]) == ()


def test_lines_of_an_address_and_a_signature_are_not_one_list() -> None:
    text = (
        "Saltmarsh Cooperative\n7 Dyke Street, Winmarleigh\n12 March 2026\nDear members,\n"
        "The year 2025 was the best in our history, and also the one in which we\n"
        "learned most. Our turbines produced 11,840 megawatt hours, 9 percent more than\n"
        "in 2024. They covered the need of about 3,900 households.\n"
        "With warm regards,\nHester Vandeleur, chair of the board\nIgnatius Bloom, treasurer\n"
    )
    quotes = ["Hester Vandeleur, chair of the board", "Ignatius Bloom, treasurer"]

    assert missing_in(text, [*quotes, "7 Dyke Street, Winmarleigh"]) == ()


def of_items(text: str, *values: tuple[str, str, str]) -> list[str]:
    fields: list[JsonValue] = [
        {"item": item, "status": "found", "value": value, "quote": quote, "confidence": 9}
        for item, value, quote in values
    ]
    source = Source(text)
    task = a_task(AnalysisType.EXTRACTION)
    return [
        str(gap) for gap in missing_rows.unread(source, ground({"fields": fields}, source), task)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "- Buyer: Acme Corp\n- Seller: Bolt Ltd\n- Law: Texas\n- Term: 2 years\n- Fee: USD 500\n",
        "1. Buyer: Acme Corp\n2. Seller: Bolt Ltd\n3. Law: Texas\n4. Term: 2 years\n5. Fee: 500\n",
        (
            "(a) “Buyer” means Acme Corp;\n(b) “Seller” means Bolt Ltd;\n(c) “Fee” means USD 500;\n"
            "(d) “Term” means two years;\n(e) “Notice” means a letter;\n"
        ),
        "1. Acme Corp is the buyer.\n\n2. Bolt Ltd is the seller.\n\n"
        + "".join(f"{n}. Clause {n} is about a fee.\n\n" for n in range(3, 11)),
    ],
)
def test_entries_that_say_something_else_are_no_missing_values(text: str) -> None:
    """Two parties among the clauses of a contract are all of its parties."""
    assert of_items(text, *(("parties", name, name) for name in ("Acme Corp", "Bolt Ltd"))) == []


def test_entries_with_another_label_are_no_missing_values() -> None:
    names = ("Acme Corp", "Bolt Ltd", "Cato Inc", "Dell Ltd")
    roles = ("Buyer", "Seller", "Guarantor", "Date")
    text = "".join(f"- {role}: {name}\n" for role, name in zip(roles, names, strict=True))

    assert of_items(text, *(("parties", name, name) for name in names[:3])) == []


def test_entries_with_the_same_label_are_missing_values() -> None:
    names = ("Acme Corp", "Bolt Ltd", "Cato Inc", "Dell Ltd")
    text = "".join(f"- Party {number}: {name}\n" for number, name in enumerate(names))

    missing = of_items(text, *(("parties", name, name) for name in names[:3]))

    assert missing == ["3 of 4 values of `parties`"]


def test_values_of_a_list_of_names_are_counted() -> None:
    """A list of names has nothing but names, even if few of them have a value."""
    text = "".join(f"- {name}\n" for name in PEOPLE)

    missing = of_items(text, *(("people", name, name) for name in (PEOPLE[0], PEOPLE[4])))

    assert missing == [f"2 of {len(PEOPLE)} values of `people`"]


@pytest.mark.parametrize(
    ("kept", "item", "missing"),
    [
        (range(12), "firms", [f"12 of {COUNT} values of `firms`"]),
        (range(20, 35), "firms", [f"15 of {COUNT} values of `firms`"]),
        (range(12), "unpaid firms", []),
        (range(0, COUNT, 4), "firms", []),
        (range(4), "firms", []),
    ],
)
def test_a_part_of_a_table_is_no_selection_of_its_rows(
    kept: Sequence[int], item: str, missing: list[str]
) -> None:
    """A model that answers one part of a table only has not read the others."""
    records = [f"Firm {number},small,{number}.50\n" for number in range(COUNT)]
    values = [(item, f"Firm {number}", records[number].strip()) for number in kept]

    assert of_items("".join(["name,size,fee\n", *records]), *values) == missing


def test_only_items_that_ask_for_several_values_are_compared_with_records() -> None:
    """A document may have many lines of the form of its only governing law."""
    text = "".join(f"Governing law: the law of {name}.\n" for name in PEOPLE)
    quotes = text.splitlines()[:3]

    assert of_items(text, *(("governing law", quote[15:], quote) for quote in quotes)) == []
    assert of_items(text, *(("all governing laws", quote[15:], quote) for quote in quotes)) == [
        f"3 of {len(PEOPLE)} values of `all governing laws`"
    ]


def test_a_single_value_of_a_schema_is_not_compared_with_records() -> None:
    text = "".join(f"Governing law: the law of {name}.\n" for name in PEOPLE)
    quote: JsonObject = {"path": "/rows", "quote": text.splitlines()[3]}
    data: JsonObject = {"rows": f"the law of {PEOPLE[3]}"}

    assert unread(text, data, [quote], type="string") == ()


def test_lines_that_repeat_a_value_of_an_item_are_not_records() -> None:
    pages = "".join(f"Page {n}\n\nSource: ACME CORP\n\nWe met {n} times.\n" for n in range(9))
    text = f"Acme, Corp.\nBolt Ltd\n{pages}"
    first = [("parties", "Acme, Corp.", "Acme, Corp."), ("parties", "Bolt Ltd", "Bolt Ltd")]
    again = [("parties", "ACME CORP", "Source: ACME CORP")]

    assert of_items(text, *first, *again) == []


def test_a_sentence_with_two_blanks_is_no_row_of_a_table() -> None:
    """Pages of a PDF may have them between words of prose."""
    text = (
        "The client agrees to register and to maintain the names of its domains in  each market.\n"
        "No delay of the other side in any of its obligations shall be taken to be a  breach.\n"
        "Whoever is in charge of the services may at any time of the year ask for  a receipt.\n"
        "Within the territory the licensor does not warrant that its content will be  free.\n"
    )

    assert missing_in(text, ["The client"]) == missing_in(text, [text.splitlines()[3]]) == ()


def test_values_in_prose_are_not_records() -> None:
    """Wrapped lines and sentences rarely have the same form."""
    text = (
        "The company was founded in 1901 by two brothers, who had come\n"
        "from Bremen in 1898. It moved to Hull in 1912, where it stayed\n"
        "for 40 years; its 200 workers built ships, and later engines.\n"
        "In 1952 the family sold it to a bank for 3 million pounds. Ten\n"
        "years later, in 1962, it was closed. The site was cleared only\n"
        "in 1975, and 12 houses stand there now, of which 7 are empty.\n"
    ) * 3

    assert missing_in(text, ["founded in 1901", "Bremen in 1898", "Hull in 1912"]) == ()


@pytest.mark.parametrize("keyword", ["x-selection", "uniqueItems"])
def test_a_selection_or_a_distinct_list_may_have_fewer_rows_than_records(keyword: str) -> None:
    records = records_of("csv")

    assert missing_in("".join(records), records[::3], **{keyword: True}) == ()


def test_rows_without_a_place_count_as_rows_of_records() -> None:
    """Nothing shows that their records are missing."""
    records = records_of("csv")

    assert missing_in("".join(records), records[::2], rows=COUNT) == ()


def of_lines(text: str, lines: Sequence[str]) -> tuple[MissingRows, ...]:
    """Return the missing rows of an answer with a row for each line and no quotes."""
    names = ("id", "customer", "amount")
    rows: list[JsonValue] = [dict(zip(names, line.split(","), strict=True)) for line in lines]
    items: JsonObject = {"type": "object", "properties": {name: {} for name in names}}
    return unread(text, {"rows": rows}, [], items=items)


def test_rows_that_two_chunks_answer_count_once_without_quotes_too() -> None:
    lines = [f"INV-{n:05},Birch {n} Inc,{100 + n}.25" for n in range(120)]
    chunks = [lines[start : start + 40] for start in range(0, 120, 40)]
    rows = [row for chunk in chunks for row in chunk[:28]]
    of_next_chunks = [row for chunk in chunks[1:] for row in chunk[:12]]

    (missing,) = of_lines("id,customer,amount\n" + "\n".join(lines), [*rows, *of_next_chunks])

    assert missing.kept == len(rows)
    assert missing.records == len(lines) - len(rows)


def test_equal_lines_without_quotes_have_a_row_each() -> None:
    lines = [f"INV-{n // 2:05},Birch Inc,{100 + n // 2}.25" for n in range(60)]

    assert of_lines("id,customer,amount\n" + "\n".join(lines), lines) == ()


def test_a_chunk_without_rows_between_others_is_reported() -> None:
    counted: JsonObject = {"path": "/data/rows", "by_chunk": [9, 0, 0, 7, 0], "unread": 0}

    assert missing_rows.gaps([counted]) == [
        "2 chunks have no rows of /data/rows, between chunks with many rows."
    ]
    assert missing_rows.gaps([{**counted, "unread": 12}]) == []
