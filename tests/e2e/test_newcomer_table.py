"""A newcomer has 30 contracts read, checks the doubtful cells by keyboard, and opens the workbook.

The scripted model errs on one value in ten, in the ways in which models err.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pytest
from playwright.sync_api import Browser, expect

from chordwise import Client
from chordwise.settings import Settings, load
from tests.conftest import Servers
from tests.e2e.conftest import Stage, stage_at_work
from tests.fakes.configuration import configuration
from tests.fakes.databases import Databases
from tests.fakes.generated_answers import a_field
from tests.fakes.processes import Processes
from tests.peers.answering_server import (
    AnsweringHandler,
    AnsweringServer,
    completion,
    material_of,
)
from tests.peers.serving import serving_in_a_thread
from tests.web.conftest import serving, visiting

CONTRACTS = 30  # as in the statement that waits for them
ITEMS = {
    "buyer": "The buyer under this agreement is {} of Lindau.",
    "seller": "The seller of the goods is {} of Bregenz.",
    "agreement date": "This agreement is made as of {}.",
    "expiration date": "It expires on {}, unless it ends earlier.",
    "governing law": "This contract is governed by the laws of {}.",
    "annual fee": "The annual fee is {}, due in January.",
    "notice period": "A notice period of {} applies to every termination.",
    "renewal term": "The renewal term is {} after the first one.",
}
LAWS = ("Bavaria", "Tyrol", "Delaware", "Texas")
FILLER = (
    "Deliveries are inspected by both sides without delay, and defects are reported in writing"
    " within a reasonable time after they have appeared."
)
OTHERS = {"buyer": "seller", "agreement date": "expiration date"}
COLORED = "FFFFE699"
# The cell in the panel, which arrives some time after the key.
_SHOWN = (
    "[...document.querySelectorAll('#correction [name=job], #correction [name=path]')]"
    ".map(input => input.value).join()"
)
_IS_NEW = f"shown => {_SHOWN} !== shown && document.querySelector('#correction')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The value and the quote of a cell; `is_wrong` if the model errs."""

    value: str
    quote: str
    is_wrong: bool = False


def right_values(number: int) -> Mapping[str, str]:
    return {
        "buyer": f"Miller {number} GmbH",
        "seller": f"Smith {number} Limited",
        "agreement date": f"March {1 + number % 28}, {2000 + number % 20}",
        "expiration date": f"June {1 + number % 28}, {2005 + number % 20}",
        "governing law": LAWS[number % 4],
        "annual fee": f"US$ {1 + number},500.00",
        "notice period": f"{30 + number} days",
        "renewal term": f"{2 + number} years",
    }


def sentence(item: str, number: int) -> str:
    return ITEMS[item].format(right_values(number)[item])


def name_of(number: int) -> str:
    return f"contract-{number:02}.txt"


def text_of(number: int) -> str:
    fillers = dict.fromkeys(("buyer", "seller", "agreement date", "expiration date"), f" {FILLER}")
    return "\n\n".join(f"{sentence(item, number)}{fillers.get(item, '')}" for item in ITEMS)


def answer(number: int, item: str) -> Answer:
    """Return the scripted answer about a cell."""
    values, cell = right_values(number), number * len(ITEMS) + list(ITEMS).index(item)
    right = Answer(value=values[item], quote=sentence(item, number))
    if cell % 10 != 3:
        return right
    other = OTHERS.get(item)
    match cell // 10 % 4:
        case 0 if other:  # the value of another party, or another date
            return Answer(value=values[other], quote=sentence(other, number), is_wrong=True)
        case 1:  # a quote that does not carry the value
            return Answer(value=right.value, quote=FILLER, is_wrong=True)
        case 2:  # a merged row
            merged = f"{right.value} and {values['seller']}, {values['renewal term']}"
            return Answer(value=merged, quote=right.quote, is_wrong=True)
        case _:  # a wrong date, or a value of another document
            wrong = right_values(number + 1)[item]
            return Answer(value=wrong, quote=right.quote, is_wrong=True)


class Erring(AnsweringHandler):
    """Answers about the contract in its request."""

    def answer(self, user: str) -> bool:
        text = material_of(user)
        (number,) = [n for n in range(CONTRACTS) if sentence("buyer", n) in text]
        said = [(item, answer(number, item)) for item in ITEMS]
        fields = [a_field(item, one.value, 9, quote=one.quote) for item, one in said]
        return self.reply(200, json.dumps(completion(json.dumps({"fields": fields}))).encode())


@pytest.fixture
def stage(servers: Servers, databases: Databases, tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "contracts").mkdir()
    for number in range(CONTRACTS):
        (tmp_path / "contracts" / name_of(number)).write_text(text_of(number), "utf-8")
    with serving_in_a_thread(AnsweringServer(0, Erring)) as provider:
        settings = configuration(provider.base_url)
        with stage_at_work(tmp_path, settings, provider, servers, databases) as stage:
            yield stage


def settings_of(processes: Processes) -> Settings:
    environment = processes.environment
    return load(
        Path(environment["CHORDWISE_CONFIG"]),
        home=Path(environment["CHORDWISE_HOME"]),
        database_url=environment["CHORDWISE_DATABASE_URL"],
        broker_url=environment["CHORDWISE_BROKER_URL"],
    )


def counts(stage: Stage) -> list[int]:
    """Return the numbers of cells to check in SQL, the workbook, the client and the terminal."""
    workbook = stage.folder / "contracts.xlsx"
    exported = stage.processes.call(
        "export", "answers.contracts", "--output", str(workbook), "--force"
    )
    assert exported.returncode == 0, exported.stderr
    sheet = openpyxl.load_workbook(workbook).worksheets[0]
    colored = [
        cell
        for row in sheet.iter_rows(min_row=2)
        for cell in row[1:9]
        if cell.fill.start_color.rgb == COLORED
    ]
    environment = stage.processes.environment
    with Client(
        config=environment["CHORDWISE_CONFIG"],
        home=environment["CHORDWISE_HOME"],
        database_url=environment["CHORDWISE_DATABASE_URL"],
        broker_url=environment["CHORDWISE_BROKER_URL"],
    ) as client:
        cells = len(list(client.cells_to_check()))
    listed = json.loads(stage.processes.call("review", "latest", "--json").stdout)["to_check"]
    return [
        stage.count("SELECT sum(needs_check)::int FROM answers.contracts"),
        stage.count("SELECT count(*) FROM review_queue WHERE saved_as = 'contracts'"),
        len(colored),
        cells,
        len(listed),
    ]


def test_a_newcomer_checks_a_table_and_opens_the_workbook(stage: Stage, browser: Browser) -> None:
    items = ", ".join(ITEMS)
    options = ("--type", "extraction", "--items", items, "--save-as", "contracts")
    stage.submit(str(stage.folder / "contracts"), *options)
    stage.wait_for("SELECT count(*) = 30 FROM results")
    states = {
        (row.document, name): str(getattr(row, f"{name.replace(' ', '_')}_trust"))
        for row in stage.rows("SELECT * FROM answers.contracts")
        for name in ITEMS
    }
    wrong = {(name_of(n), item): answer(n, item) for n in range(CONTRACTS) for item in ITEMS}
    flagged = [states[cell] == "check" for cell, said in wrong.items() if said.is_wrong]
    alarms = [states[cell] == "check" for cell, said in wrong.items() if not said.is_wrong]
    assert sum(flagged) >= 0.7 * len(flagged)
    assert sum(alarms) <= 0.1 * len(alarms)

    left = sum(state == "check" for state in states.values())
    assert counts(stage) == [left] * 5
    with serving(settings_of(stage.processes)) as served, visiting(browser, served) as visit:
        page = visit.open("/tables/contracts")
        summary = page.locator("#summary")
        shown = ""
        while left:
            noun = "cell" if left == 1 else "cells"
            expect(summary).to_have_text(f"{CONTRACTS} documents · {left} {noun} to check")
            page.keyboard.press("n")
            page.wait_for_function(_IS_NEW, arg=shown)
            shown = page.evaluate(_SHOWN)
            name = page.locator("#panel #source").inner_text().rpartition("/")[2]
            item = page.locator("#asked").inner_text()
            number = int(name.removeprefix("contract-").removesuffix(".txt"))
            page.keyboard.press("c")
            page.locator("#correction input[name=value]").fill(right_values(number)[item])
            page.keyboard.press("Enter")
            left -= 1
        expect(summary).to_have_text(f"{CONTRACTS} documents · 0 cells to check")
        with page.expect_download() as downloading:
            page.get_by_role("link", name="Excel").click()
        downloading.value.save_as(stage.folder / "downloaded.xlsx")
        names = openpyxl.load_workbook(stage.folder / "downloaded.xlsx").worksheets[0]["A"]
        assert [cell.value for cell in names[1:]] == [name_of(n) for n in range(CONTRACTS)]

    assert counts(stage) == [0] * 5
    laws = stage.rows("SELECT document, governing_law FROM answers.contracts ORDER BY 1")
    assert [row.governing_law for row in laws] == [LAWS[n % 4] for n in range(CONTRACTS)]
