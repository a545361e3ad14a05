"""Tests of how the built-in model finds values: kinds, labels, definitions and a user's schema."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import pytest

from chordwise.domain import json_values, validation
from chordwise.domain.analyses.extraction import Extraction
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.extractive.extraction import (
    SearchableText,
    analyze,
    item_of,
    unfilled_lists,
)
from chordwise.domain.facts import facts
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.trust import Reason
from chordwise.llm.providers.extractive import ExtractiveModel, answer
from chordwise.pipeline.analyzer import AnalysisRequest, DocumentAnalyzer
from tests.fakes.completion_requests import a_task
from tests.fakes.generated_answers import answer_from_chunks

CONTRACT = """EXHIBIT 10.2

DISTRIBUTION AGREEMENT

This Distribution Agreement is made as of May 4, 2019 (the "Effective Date") by and between
Northwind Traders, Inc. ("Supplier") and Contoso Ltd. ("Distributor").

1. The Distributor shall pay a fee of $12,500 within thirty (30) days after each shipment.
2. This Agreement shall continue until December 31, 2024, unless terminated earlier.
3. Either party may terminate upon ninety (90) days prior written notice to the other party.
4. This Agreement shall be governed by the laws of the State of Delaware.

Invoice Number: NW-2019-0042
Contact: sales@northwind.example
"""


def test_the_passages_nearest_to_an_item_have_its_words_or_its_cue() -> None:
    passages = SearchableText(CONTRACT).passages(item_of("termination notice"), 2)

    assert passages[0].text.startswith("3. Either party may terminate")
    start = passages[0].start_char
    assert CONTRACT[start : start + len(passages[0].text)] == passages[0].text
    assert SearchableText(CONTRACT).passages(item_of("zebra"), 2) == []


def fields_of(text: str, instructions: str) -> list[JsonObject]:
    options = AnalysisOptions(instructions=instructions)
    return json_values.objects(answer(a_task(AnalysisType.EXTRACTION, text, options))["fields"])


def extract(text: str, instructions: str) -> dict[str, list[str]]:
    by_item: dict[str, list[str]] = {}
    for field in fields_of(text, instructions):
        entries = by_item.setdefault(json_values.text(field["item"]), [])
        entries += [json_values.text(field["value"])] if field["value"] else []
    return by_item


def fill(text: str, schema: JsonObject) -> JsonObject:
    return answer(a_task(AnalysisType.EXTRACTION, text, AnalysisOptions(schema=schema)))


def closed(**properties: JsonValue) -> JsonObject:
    return {"type": "object", "properties": properties, "required": list(properties)}


RECEIPT = """NORTH SEA TRADING
CO. LTD
(TAX NO 1234-5)
12 HARBOUR ROAD
DATE: 27/03/2018
CARD EXPIRY: 01/05/2020
TEA
12.00
SUBTOTAL
TOTAL (EXCL. TAX)
TOTAL
CASH
CHANGE
12.00
11.32
12.05
20.00
7.95
TAX TOTAL 0.68
"""
BILL = """THANK YOU FOR COMING
OLD PIER BOATS
ENTERPRISE (WEST
SIDE) LTD
VAT REG NO: 774-12
4 QUAY STREET,
(REAR) 2ND FLOOR,
8021 HARBOUR CITY
03-5512 8811
25/FEB/2017 10:12
BAIT
2 X 4.60
9.20
DUE
9.20
PAY 20.00
CHANGE 10.80
(TOTAL INCLUDED TAX : 0.52)
"""
CARD_SLIP = """CAFE LUNA 55120-K (EAST)
TOTAL INCL. TAX
CARD
4421 (DEBIT)
7.50
7.50
"""
FORM = """Order number: PO-77
Order date: 28 March 2021
Start date: 1 April 2021   End date: 31 March 2022
Due date
30 April 2021
Customer:
Hill & Sons Trading
Net 35.50
Fee 4.50
Total RM 31.00 SR
"""
CAPTIONS = """ANNUAL REPORT
LAKE.NET, INC.
(Registrant Name, as specified in its charter)

Rue Louis Blanc 6
1701 Fribourg
(Address of the office)
Texas
(State of incorporation)
(512) 516-8177
(Telephone number of the registrant)
"""


@pytest.mark.parametrize(
    ("text", "item", "values"),
    [
        # The words of the item select the sentence, its kind selects the value in it.
        (CONTRACT, "document name", ["DISTRIBUTION AGREEMENT"]),
        (CONTRACT, "effective date", ["May 4, 2019"]),
        (CONTRACT, "expiration date", ["December 31, 2024"]),
        (CONTRACT, "governing law", ["laws of the State of Delaware"]),
        (CONTRACT, "notice period", ["ninety (90) days"]),
        (CONTRACT, "distributor fee", ["$12,500"]),
        (CONTRACT, "invoice number", ["NW-2019-0042"]),
        (CONTRACT, "e-mail address", ["sales@northwind.example"]),
        (CONTRACT, "When does the agreement end?", ["December 31, 2024"]),
        # An item without a sufficiently similar sentence is not mentioned.
        (CONTRACT, "insurance coverage", []),
        (CONTRACT, "weather forecast", []),
        (CONTRACT, "phone", []),
        (CONTRACT, "percentage", []),
        ("This is a letter. The law of the land is old, and laws of Nature.", "governing law", []),
        ("Acme is organized under the laws of the State of Nevada.", "governing law", []),
        # Labels and amounts may be in separate columns; the issuer is at the top.
        (RECEIPT, "company", ["NORTH SEA TRADING CO. LTD"]),
        (f"# {RECEIPT}", "company", ["NORTH SEA TRADING CO. LTD"]),
        (RECEIPT, "company address", ["12 HARBOUR ROAD"]),
        (RECEIPT, "date", ["27/03/2018"]),
        (RECEIPT, "total", ["12.05"]),
        (RECEIPT, "total amount", ["12.05"]),
        (RECEIPT, "purchase date", ["27/03/2018"]),
        # A name and an address may have several lines; a line of a total may be only a tax.
        (BILL, "store name", ["OLD PIER BOATS ENTERPRISE (WEST SIDE) LTD"]),
        (BILL, "address", ["4 QUAY STREET, (REAR) 2ND FLOOR, 8021 HARBOUR CITY"]),
        (BILL, "date", ["25/FEB/2017"]),
        (BILL, "total", ["9.20"]),
        (CARD_SLIP, "merchant", ["CAFE LUNA"]),
        (CARD_SLIP, "address", []),
        (CARD_SLIP, "total", ["7.50"]),
        # A value follows its label or is below it; the value of another label is not used.
        (FORM, "start date", ["1 April 2021"]),
        (FORM, "end date", ["31 March 2022"]),
        (FORM, "due date", ["30 April 2021"]),
        (FORM, "order date", ["28 March 2021"]),
        (FORM, "invoice date", ["28 March 2021"]),
        (FORM, "date", ["28 March 2021"]),
        (FORM, "order number", ["PO-77"]),
        (FORM, "customer", ["Hill & Sons Trading"]),
        (FORM, "fee", ["4.50"]),
        (FORM, "total", ["RM 31.00"]),
        (FORM, "delivery date", []),
        (FORM, "company", ["Hill & Sons Trading"]),
        ("Total due\n$99.50\nThank you.", "total due", ["$99.50"]),
        # In some forms the name of a value is in brackets below it.
        (CAPTIONS, "registrant name", ["LAKE.NET, INC."]),
        (CAPTIONS, "registrant", ["LAKE.NET, INC."]),
        (CAPTIONS, "telephone number of the registrant", ["(512) 516-8177"]),
        (CAPTIONS, "state of incorporation", ["Texas"]),
    ],
)
def test_the_value_of_an_item_is_found(text: str, item: str, values: list[str]) -> None:
    assert extract(text, item) == {item: values}


def test_an_empty_cell_of_a_form_is_no_value() -> None:
    text = "| Date: May 1, 2024 | Acme Inc. | |\n| | By: | | /s/ Ann Berg |\n| | | | Ann Berg |\n"

    task = a_task(AnalysisType.EXTRACTION, text, AnalysisOptions(instructions="address"))
    assert Extraction().problems(answer(task), task) == []


def test_a_sum_keeps_its_scale() -> None:
    text = "The amount raised by the fund is $100m."
    task = a_task(AnalysisType.EXTRACTION, text, AnalysisOptions(instructions="amount raised"))

    (fact,) = facts(answer(task), Extraction())

    assert (fact.value, fact.number, fact.currency) == ("$100m", Decimal(100_000_000), "USD")
    assert fill(text, closed(amount_raised={"type": "number"}))["data"] == {
        "amount_raised": 100_000_000
    }


def test_parties_are_a_list() -> None:
    parties = extract(CONTRACT, "parties")["parties"]

    assert {"Northwind Traders, Inc.", "Contoso Ltd."} <= set(parties)


NAMES = (
    "Abbott Baker Carter Dawson Elliot Foster Graham Hughes Ingram Jensen Keller Larson Morgan "
    "Norton Osborne Parker Roberts Turner"
)
FIRST_NAMES = "Ada Ben Carl Dora Emil Fay Gus Hana Ivan Jane Kurt Lena Max Nora Otto Paula Rosa Tom"
PERSONS = [
    f"{first} {last}" for first, last in zip(FIRST_NAMES.split(), NAMES.split(), strict=True)
]


@pytest.mark.parametrize("layout", ["- {}\n", "{}\n", "Last week {} came late. ", "Guest: {}\n"])
def test_a_list_has_every_value(layout: str) -> None:
    text = f"In May.\n\n{''.join(map(layout.format, PERSONS))}"
    listed: JsonObject = {"type": "array", "items": {"type": "string"}}

    assert extract(text, "people")["people"] == PERSONS
    assert fill(text, closed(people=listed))["data"] == {"people": PERSONS}
    assert fill(text, closed(people={**listed, "maxItems": 3}))["data"] == {"people": PERSONS[:3]}


@pytest.mark.parametrize(
    ("text", "people"),
    [
        (
            "Dr. Maria Lopez-Garcia met President John F. Kennedy, Jr. in May.",
            "Maria Lopez-Garcia; John F. Kennedy, Jr.",
        ),
        ("Signed: R. Bruce Carlson, Attorney, for Judge Ulloa", "R. Bruce Carlson; Ulloa"),
        ("Der Richter Thomas Müller hörte Frau Lindner an.", "Thomas Müller; Lindner"),
        (
            "O ministro ordenou, disse Otelo Saraiva de Carvalho em Lisboa.",
            "Otelo Saraiva de Carvalho",
        ),
        ("RELATOR : MIN. LUIZ FUX", "LUIZ FUX"),
        ("Holland & Hart met Michael Beatty & Associates at 12 Madison Avenue.", ""),
        ("The Sales Agreement with James Ltd. names San Diego and Santa Barbara.", ""),
        ("Vice President of the Product Team, Windows Server and Art Gallery", ""),
    ],
)
def test_people_are_known_by_their_names_and_titles(text: str, people: str) -> None:
    assert "; ".join(extract(text, "people")["people"]) == people


@pytest.mark.parametrize(
    ("text", "organizations"),
    [
        ("It is between General Motors Corporation and Ash, Inc.", "General Motors Corporation"),
        ("Home Depot, Inc. is a home for all.", "Home Depot, Inc."),
        ("In general, no Home of a General of the Umbra Bank Group is one.", "Umbra Bank Group"),
        ("In general, ask the General Authority.", ""),
        ("On Monday Acme Corp. met us, and on monday it left.", "Acme Corp."),
        ("Buyer Acme Ltd. is a buyer.", "Acme Ltd."),
    ],
)
def test_the_name_of_an_organization_may_begin_with_an_ordinary_word(
    text: str, organizations: str
) -> None:
    found = extract(f"{text}\nIn general, the home is ours.", "organizations")["organizations"]

    assert "; ".join(found[:1]) == organizations


@pytest.mark.parametrize(
    ("clause", "law"),
    [
        ("THE LAWS OF THE STATE OF NEW YORK, WITHOUT REGARD", "LAWS OF THE STATE OF NEW YORK"),
        ("THE LAWS OF NEW YORK EXCLUDING CONFLICTS OF LAW", "LAWS OF NEW YORK"),
        ("THE LAWS OF ENGLAND AND WALES FOR ALL CLAIMS", "LAWS OF ENGLAND AND WALES"),
        ("THE LAWS OF ENGLAND AND WALES AND THE COURTS", "LAWS OF ENGLAND AND WALES"),
        ("THE LAWS OF SUCH STATE", "LAWS OF SUCH STATE"),
        ("the laws of the State of New York", "laws of the State of New York"),
        ("the laws of Bosnia and Herzegovina", "laws of Bosnia and Herzegovina"),
        (
            "the laws of the Province of Macao of the People's Republic of China, as they stand",
            "laws of the Province of Macao of the People's Republic of China",
        ),
    ],
)
def test_a_law_has_the_whole_name_of_its_place(clause: str, law: str) -> None:
    assert extract(f"This Agreement is governed by {clause}.", "governing law") == {
        "governing law": [law]
    }


@pytest.mark.parametrize(
    ("text", "item", "is_doubted"),
    [
        ("Anna Weber spoke for Greenpeace.", "organizations: list", True),
        ("Contoso Ltd.", "organizations: list", False),
        ("It ends when the buyer pays, as agreed on May 1, 2013.", "expiration date", True),
        ("It ends when the buyer pays.", "expiration date", False),
        ("It shall expire on May 1, 2013.", "expiration date", False),
        ("A non-exclusive license is granted.", "exclusive: yes/no", True),
        ("Exclusive: no", "exclusive: yes/no", False),
        ("The license is exclusive and has no end.", "exclusive: yes/no", True),
        ("item,amount,exclusive\nbolts,3,Yes\n", "exclusive: yes/no", False),
    ],
)
def test_what_the_model_cannot_find_or_guesses_is_not_supported(
    text: str, item: str, *, is_doubted: bool
) -> None:
    request = AnalysisRequest(
        text=text, analysis_type=AnalysisType.EXTRACTION, specific_instructions=item
    )

    analysis = DocumentAnalyzer(ExtractiveModel()).analyze_document(request)

    assert [fact.doubts for fact in analysis.facts] == [[Reason.NOT_SUPPORTED] * is_doubted or None]
    assert analysis.needs_review is (is_doubted and item.endswith("yes/no"))
    assert ("Without a language model" in analysis.review_reason) is analysis.needs_review


@pytest.mark.parametrize(
    ("text", "item", "values"),
    [
        ("The term is 2 years, May 1, 2013 - May 3, 2015.", "expiration date", ["May 3, 2015"]),
        ("It expires on 1 May 2013, to the day.", "expiration date", ["1 May 2013"]),
        ("It shall be effective until May 8, 2004.", "expiration date", ["May 8, 2004"]),
        ("RESELLER AGREEMENT DATED JULY 15, 2005", "agreement date", ["JULY 15, 2005"]),
        ("They amend an Agreement dated July 15, 2005.", "agreement date", []),
        ("Between Alder Ltd  Anna Weber", "parties", ["Alder Ltd"]),
        ("Between Acme Ltd. and those of the Enterprise Lease.", "parties", ["Acme Ltd."]),
        ("1. Headcount\n2. Staff\n", "headcount: number", []),
        ("11.7 The headcount of Article 3 is secret.", "headcount: number", []),
        ("11.7 The headcount of Article 3 is 250.", "headcount: number", ["250"]),
        ("Headcount:\n250.\n", "headcount: number", ["250"]),
        ("Headcount:\n12 in all\n", "headcount: number", ["12"]),
        ("It commences on May 1, 2015 and expires in 1 year.", "expiration date", ["1 year"]),
        ("It shall begin now, and continue through May 1, 2015.", "effective date", []),
        ("The interest rate is 4.25%.", "interest rate: number", ["4.25%"]),
        ("The headcount is 1,250, as of May.", "headcount: number", ["1,250"]),
        ("The annual fee is 1,250.00 a year.", "annual fee: money", ["1,250.00"]),
        ("The annual fee is due within 30 days.", "annual fee: money", []),
        ("The annual fee under clause 10.12 is waived.", "annual fee: money", []),
        ("The annual fee is due on 12.05 for 1,000 points.", "annual fee: money", []),
        ("We schedule 12 deliveries a week.", "deliveries: number", ["12"]),
        ("| Parties | A Ltd |\n| Fee | EUR 5 |\n| Dues | EUR 6 |\n", "parties: list", ["A Ltd"]),
        ("Governing law: Germany", "governing law", ["Germany"]),
        ("| Governing law | Germany |\n| Fee | 5 EUR |\n", "governing law", ["Germany"]),
        ("Fees:\n* EUR 1\n* EUR 2\n\nDues:\n* EUR 3\n", "fees: list", ["EUR 1", "EUR 2"]),
        ("1. Firm: A\nStatus: paid\n\n2. Firm: B\nStatus: open\n", "statuses", ["paid", "open"]),
        ("Firms:\n* Alder GmbH\n* Birch GmbH\n", "firms: list", ["Alder GmbH", "Birch GmbH"]),
    ],
)
def test_a_value_is_not_what_stands_beside_it(text: str, item: str, values: list[str]) -> None:
    assert extract(text, item) == {item.partition(":")[0]: values}


def test_the_phrases_that_announce_an_item_are_surer_than_its_words() -> None:
    text = (
        "This Agreement is made between Northwind Traders, Inc., a Delaware Corporation, and Birch"
        " Street Ltd. in May.\nNeither Party nor other parties may sell to Contoso Ltd. at all."
    )

    sure = {field["value"]: field["confidence"] for field in fields_of(text, "parties")}

    assert sure == {"Northwind Traders, Inc.": 3, "Birch Street Ltd.": 3, "Contoso Ltd.": 1}


def test_a_party_that_no_phrase_announces_is_doubted_beside_those_of_one() -> None:
    unsure = "Neither party nor other parties may sell to Contoso Ltd. at all."
    text = f"This Agreement is made between Northwind Traders, Inc. and Birch Street Ltd.\n{unsure}"
    schema = closed(parties={"type": "array", "items": {"type": "string"}})

    def doubted(text: str, schema: JsonObject | None) -> dict[JsonValue, Sequence[str] | None]:
        request = AnalysisRequest(
            text=text,
            analysis_type=AnalysisType.EXTRACTION,
            specific_instructions="" if schema else "parties",
            schema=schema,
        )
        analysis = DocumentAnalyzer(ExtractiveModel()).analyze_document(request)
        return {fact.value: fact.doubts for fact in analysis.facts if fact.value}

    for one in (None, schema):
        assert doubted(text, one) == {
            "Northwind Traders, Inc.": None,
            "Birch Street Ltd.": None,
            "Contoso Ltd.": [Reason.NOT_SUPPORTED],
        }
        assert doubted(unsure, one) == {"Contoso Ltd.": None}


def test_an_expiration_date_is_not_what_follows_the_expiration() -> None:
    text = (
        "Records are kept for a period of five (5) years after the expiration of this Agreement.\n"
        "This Agreement shall commence on May 1, 2019 and continue for a period of three (3) years."
    )

    (field,) = fields_of(text, "Expiration Date")

    assert "five" not in json_values.text(field["value"])


@pytest.mark.parametrize(
    ("question", "sentence", "value"),
    [
        (
            "In which year did the gallery devoted to Chinese art open?",
            "The T. T. Tsui Gallery of Chinese art opened in 1991 with many objects from China.",
            "1991",
        ),
        (
            "What was the first recorded settlement in what became Newcastle?",
            "The first recorded settlement in what is now Newcastle was Pons Aelius, a Roman fort.",
            "Pons Aelius",
        ),
        (
            "Which problem consists of both inflationary and deflationary impacts?",
            "Macroeconomic problems consisted of both inflationary and deflationary impacts.",
            "Macroeconomic",
        ),
        (
            "Welches Problem ist es mit beiden Wirkungen?",
            "Ein Problem mit beiden Wirkungen ist die Inflation.",
            "Ein Problem mit beiden Wirkungen ist die Inflation.",
        ),
    ],
)
def test_the_value_of_a_question_is_a_phrase_of_its_quote(
    question: str, sentence: str, value: str
) -> None:
    (field,) = fields_of(sentence, question)

    assert (field["value"], field["quote"]) == (value, sentence)


def test_every_party_of_a_sentence_is_a_value() -> None:
    """Each of the sentences that match as well as the best one counts, too."""
    companies = [f"{name} Ltd." for name in NAMES.split()[:8]]

    assert set(companies) <= {
        *extract(f"This is made by and among {', '.join(companies)} in May.", "parties")["parties"]
    }
    text = " ".join(f"The parties include {name} from May on." for name in companies)
    assert set(companies) <= {*extract(text, "parties to it")["parties to it"]}


def test_sentences_with_fewer_words_of_the_item_are_values_of_a_list_too() -> None:
    strong = [f"The fees paid were ${number}." for number in range(1, 8)]
    weak = [f"Then ${number} were paid." for number in range(10, 18)]
    text = " ".join([*strong, *weak, *["Fees are high."] * 40])
    item = "the fees that were paid"

    assert len(extract(text, item)[item]) == 15


def test_the_default_items_are_lists_of_names_dates_and_amounts() -> None:
    text = "On 3 May 2021 Mary Jones of Contoso Ltd. paid €500 in Vienna. Mary Jones left."

    assert extract(text, "") == {
        "people": ["Mary Jones"],
        "organizations": ["Contoso Ltd."],
        "dates": ["3 May 2021"],
        "amounts of money": ["€500"],
        "places": ["Vienna"],
    }


def test_a_users_schema_is_filled_with_typed_values_and_evidence() -> None:
    schema = closed(
        fee={"type": "number"},
        effectiveDate={"type": "string", "format": "date"},
        contact={"type": "string", "format": "email"},
        terms={"type": "object", "properties": {"notice_period": {"type": "string"}}},
    )

    output = fill(CONTRACT, schema)

    assert output["data"] == {
        "fee": 12500,
        "effectiveDate": "2019-05-04",
        "contact": "sales@northwind.example",
        "terms": {"notice_period": "ninety (90) days"},
    }
    evidence = json_values.objects(output["evidence"])
    assert [entry["path"] for entry in evidence] == [
        "/fee",
        "/effectiveDate",
        "/contact",
        "/terms/notice_period",
    ]
    assert all(json_values.text(entry["quote"]) in CONTRACT for entry in evidence)
    assert validation.problems(output, Extraction().schema(AnalysisOptions(schema=schema))) == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["number", "null"]}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"type": "string"}, ""),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "array", "items": {"type": "object"}}, []),
        ({"type": "object", "properties": {"x": {"type": "string"}}}, {}),
        ({"const": "v1"}, "v1"),
        ({"$ref": "#/$defs/nothing"}, None),
    ],
)
def test_a_missing_value_is_what_the_schema_allows(schema: JsonObject, value: JsonValue) -> None:
    whole = closed(horoscope=schema)
    whole["$defs"] = {"nothing": {"type": ["string", "null"], "minLength": 1}}

    assert fill("Nothing of the sort.", whole) == {"data": {"horoscope": value}, "evidence": []}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number"},
        {"type": "boolean"},
        {"enum": ["a", "b"]},
        {"type": "string", "minLength": 1},
    ],
)
def test_a_missing_required_value_is_omitted(schema: JsonObject) -> None:
    """Validation then reports the answer; an invented value would go unnoticed."""
    whole = closed(horoscope=schema)

    output = fill("Nothing of the sort.", whole)

    assert output["data"] == {}
    assert validation.problems(output, Extraction().schema(AnalysisOptions(schema=whole))) != []


@pytest.mark.parametrize(
    ("properties", "text", "data"),
    [
        ({"warranty": {"type": "boolean"}}, "The warranty was not extended.", {"warranty": False}),
        ({"warranty": {"type": "boolean"}}, "The warranty was extended.", {"warranty": True}),
        (
            {"warranty": {"enum": ["full", "limited"]}},
            "The warranty is limited to parts.",
            {"warranty": "limited"},
        ),
        ({"warranty": {"type": "integer"}}, "The warranty costs 1,200 coins.", {"warranty": 1200}),
        ({"warranty": {"type": "string", "maxLength": 3}}, "Warranty: yes", {"warranty": "yes"}),
        (
            {
                "dob": {"type": "string", "format": "date", "description": "Date of birth"},
                "weight": {"type": "number", "description": "Body mass in kg"},
            },
            "Admitted: 2024-02-01\nDate of birth: 1990-05-17\nMass: 81",
            {"dob": "1990-05-17", "weight": 81},
        ),
        (
            {
                "fee": {"type": "number", "minimum": 10},
                "late_fee": {"$ref": "#/properties/fee"},
            },
            "The late fee is $7. The fee is $12.",
            {"fee": 12},
        ),
    ],
)
def test_values_are_parsed_according_to_their_schema(
    properties: JsonObject, text: str, data: JsonObject
) -> None:
    assert fill(text, closed(**properties))["data"] == data


def test_lists_of_objects_are_named_since_no_rows_are_searched() -> None:
    person: JsonObject = {"type": "object", "properties": {"name": {"type": "string"}}}
    people: JsonObject = {"type": "array", "items": person}
    team: JsonObject = {"type": "object", "properties": {"people": people}}
    tags: JsonObject = {"type": "array", "items": {"type": "string"}}

    assert unfilled_lists(AnalysisOptions(schema=closed(tags=tags, person=person))) == []
    assert unfilled_lists(AnalysisOptions(schema=closed(rows=people, team=team))) == [
        "rows",
        "people",
    ]
    assert unfilled_lists(AnalysisOptions(items=("people: list",))) == []


def test_a_recursive_schema_is_followed_to_a_limited_depth() -> None:
    schema = closed(node={"$ref": "#/$defs/node"})
    schema["$defs"] = {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}

    output = fill("A node and the next node.", schema)

    assert validation.problems(json_values.as_object(output["data"]), schema) == []


def test_a_synthesis_keeps_one_value_of_a_single_item() -> None:
    texts = [CONTRACT, "This Agreement is dated May 9, 2001.", "No date."]
    options = AnalysisOptions(instructions="agreement date; dates")

    output = answer_from_chunks(AnalysisType.EXTRACTION, texts, options)

    values_of = [(field["item"], field["value"]) for field in json_values.objects(output["fields"])]
    assert values_of == [
        ("agreement date", "May 4, 2019"),
        ("dates", "May 4, 2019"),
        ("dates", "December 31, 2024"),
        ("dates", "May 9, 2001"),
    ]


@pytest.mark.parametrize("start", ["A" * 60, "Aa " * 20 + "A" * 60, "OF THE " * 15])
def test_a_title_is_searched_in_linear_time(start: str) -> None:
    started = time.process_time()

    by_item = extract(f"{start} x fails\n\nThe rest of the text.", "document name")

    assert list(by_item) == ["document name"]
    assert time.process_time() - started < 2


def test_the_items_of_a_table_of_records_are_its_columns() -> None:
    """No value comes from the header, and all values of one record from one row."""
    text = "Company,Country,Revenue\nAcme Ltd,France,1000000\nBeta GmbH,Germany,2000000\n"
    searchable = SearchableText(text)

    first = [searchable.find(item_of(item)) for item in ("company", "country", "revenue")]
    companies = searchable.find(item_of("companies"))

    assert [match.value for (match,) in first] == ["Acme Ltd", "France", "1000000"]
    assert {match.quote for (match,) in first} == {"Acme Ltd,France,1000000"}
    assert [match.value for match in companies] == ["Acme Ltd", "Beta GmbH"]


@pytest.mark.parametrize(("cell", "value"), [("FALSE", "false"), ("Yes", "yes"), ("No", "no")])
def test_a_cell_of_yes_or_no_is_the_value(cell: str, value: str) -> None:
    options = AnalysisOptions(items=("active: yes/no",))
    text = f"Company,Country,Active\nAcme Ltd,France,{cell}\n"

    answered = analyze(a_task(AnalysisType.EXTRACTION, text, options))
    (field,) = json_values.objects(answered["fields"])

    assert (field["value"], field["quote"]) == (value, f"Acme Ltd,France,{cell}")


@pytest.mark.parametrize("rows", [2, 1_500])
@pytest.mark.parametrize("header", ["company,fee", "company,note,fee"])
def test_all_rows_of_a_table_are_read_also_in_later_chunks(header: str, rows: int) -> None:
    note = "in short," if "note" in header else ""
    text = "".join(f"Firm {n} GmbH,{note}EUR {n}.50\n" for n in range(rows))
    request = AnalysisRequest(
        text=f"{header}\n{text}",
        analysis_type=AnalysisType.EXTRACTION,
        specific_instructions="companies: list, fees: list",
    )

    analysis = DocumentAnalyzer(ExtractiveModel()).analyze_document(request)

    assert Counter(fact.item for fact in analysis.facts) == {"companies": rows, "fees": rows}


def test_a_row_cut_between_chunks_hides_no_later_row() -> None:
    cut = 'dolor",EUR 1\nBirch GmbH,short,EUR 2\n'

    searchable = SearchableText(cut, "company,note,fee")

    assert [match.value for match in searchable.find(item_of("fees"))] == ["EUR 2"]
