"""Tests of finding the beginnings of records in lists of every form."""

from __future__ import annotations

import csv
import itertools
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import chunking
from chordwise.domain.outline import cells, outline_of

ROWS = 300
EQUAL = 10
NAMES = [
    "bolt", "nut", "Screw", "washer", "Blue-cap", "Valve",
    "Pump", "O-ring", "3M-tape", "Ñandú", "gasket", "Lever",
]  # fmt: skip
LIST = "Order list.\n\n"
# The text before, the forms of the rows in turn, and the text after.
FORMS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "csv": ("name,qty\n", ('"$name, blue",$n\n',), ""),
    "csv, lines in field": ("name,qty\n", ('"$name\nin blue",$n\n',), ""),
    "csv, blank line in field": (
        "name,note,qty\n",
        ('$name,"one\ntwo, with comma\n\nfour ""five""",$n\n',),
        "",
    ),
    "csv, note at the end": ("id;note\n", ('$i;"$name.\n\n$n left.\nDone."\n',), ""),
    "tsv": ("name\tqty\n", ('"$name\nmore\tof it"\t$n\n',), ""),
    "xml, indented": (
        "<o>\n  <buyer>\n    <name>Ann</name>\n  </buyer>\n",
        ("  <item>\n    <name>$name</name>\n    <qty>$n</qty>\n  </item>\n",),
        "</o>\n",
    ),
    "xml, flush": (
        "<o>\n",
        ("<item>\n<name>$name</name>\n<qty>$n</qty>\n</item>\n",),
        "</o>\n",
    ),
    "xml, one line": (
        "<o><buyer><name>Ann</name></buyer>",
        ('<item id="$i"><name>$name<br/></name><qty>$n</qty></item>',),
        "</o>",
    ),
    "json, indented": (
        '{\n  "buyer": "Ann",\n  "items": [\n',
        ('    {\n      "name": "$name",\n      "of": {\n        "qty": $n\n      }\n    },\n',),
        "  ]\n}\n",
    ),
    "json, one line": (
        '{"buyer": {"name": "Ann"}, "items": [',
        ('{"name": "$name", "of": {"qty": $n}}, ',),
        "]}",
    ),
    "json, lines": ("", ('{"name": "$name", "qty": $n}\n',), ""),
    "json, by name": ("{\n", ('  "$name $i": {\n    "qty": $n\n  },\n',), "}\n"),
    "yaml": ("items:\n", ("- name: $name\n  tags:\n    - x\n  qty: $n\n",), ""),
    "toml": ("", ('[[item]]\nname = "$name"\nqty = $n\n\n',), ""),
    "names": (LIST, ("Name: $name\nQuantity: $n\nIn stock: yes\n",), ""),
    "names, blank between": (LIST, ("Name: $name\nQuantity: $n\n\n",), ""),
    "names, blank inside": (
        "Date: 5 May\nCustomer: Ann\n\n",
        ("Name: $name\n\nQuantity: $n\n\nIn stock: yes\n\n",),
        "End of the list.\n",
    ),
    "names, rule between": (LIST, ("Name: $name\n\nQuantity: $n\n---\n",), ""),
    "names, some missing": (
        LIST,
        (
            "Name: $name\nNote: goes on over\ntwo lines of text\nQuantity: $n\n",
            "Name: $name\nColour: red\nQuantity: $n\n",
        ),
        "",
    ),
    "title, names": (LIST, ("$name $i\nQuantity: $n\nPrice: 3\n",), "\nThe end.\n"),
    "title, names, blank": (LIST, ("$name $i\nQuantity: $n\nPrice: 3\n\n",), "The end.\n"),
    "title apart": (LIST, ("$name\n\nQuantity: $n\n\nPrice: 3\n\n",), ""),
    "numbers, second paragraph": (LIST, ("$i. $name\n\n   quantity $n, at 3 EUR\n\n",), ""),
    "numbers, letters": (LIST, ("$i. $name\na) quantity $n\nb) in stock\n",), ""),
    "numbers, wrapped": (
        LIST,
        (
            (
                "1.$i. The supplier shall deliver $name to the warehouse\n"
                "of the customer. It comes $n times a year and it\ncosts 3 EUR.\n"
            ),
        ),
        "",
    ),
    "decimals": (LIST, ("1.$i The $name is here. It comes $n times. It is blue.\n",), ""),
    "letters": (LIST, ("(a) $name\n    $n pieces\n", "(b) $name\n    $n pieces\n"), ""),
    "dashes": (LIST, ("- $name\n  - quantity $n\n  - in stock\n",), ""),
    "bullets": (LIST, ("▪ The $name is here. It comes $n times.\n",), ""),
    "bullets, wrapped": (LIST, ("• We deliver $name to the\nwarehouse $n times. It is.\n",), ""),
    "bullets of names": (LIST, ("• Name: $name\n• Quantity: $n\n",), ""),
    "title, dashes": (LIST, ("$name $i\n– quantity $n\n– in stock\n",), ""),
    "three lines": (LIST, ("$name $i\n$n pieces\n3.50 EUR\n",), "\nThank you.\n"),
    "indented lines": ("Order\n\n", ("$name\n    $n pieces\n    3.50 EUR\n",), ""),
    "addresses": (
        LIST,
        ("$name Inc\n$n Main Street\nYard 2\nOhio\n\n", "$name Inc\n$n Low Street\nOhio\n\n"),
        "",
    ),
    "schedules": (
        "# Contract\n\nBetween the parties.\n\n",
        ("Schedule $i\n\nThe goods are $name.\n\nQuantity $n, as it is.\n\n",),
        "",
    ),
    "headings": ("# Order\n\nAll.\n\n", ("### $name\n\nIt is here.\n\n- $n\n\n",), ""),
    "rules": (LIST, ("$name\n\nThere are $n of them.\n\n* * *\n\n",), ""),
    "markdown": (
        "| name | qty |\n|---|---|\n",
        ("| $name | $n |\n|  | more of it |\n",),
        "\nThe end.\n",
    ),
    "grid": (
        "+------+------+\n| name | qty  |\n+======+======+\n",
        ("| $name | $n |\n| more | 5 |\n+------+------+\n",),
        "",
    ),
    "aligned": (
        "Order\n\nname                 qty    price\n",
        ("$name, good         $n     3.50\n    from the factory\n",),
        "",
    ),
    "latex": (
        "\\begin{itemize}\n",
        ("\\item $name, \\textbf{$n}\n  in blue.\n",),
        "\\end{itemize}\n",
    ),
    "log": (
        "",
        (
            "2026-01-02 12:15:01 ERROR shop: order $i of $name failed\n",
            (
                "2026-01-02 12:15:01 ERROR shop: order $i of $name failed\n"
                "Traceback (last call):\n  File\nValueError: $n\n"
            ),
        ),
        "",
    ),
    "mails": (
        "Mail archive\n\n",
        ("From: a$i@x.org\nSubject: $name\n\nPlease send $n.\n\nIt is late.\n\n",),
        "",
    ),
    "german": (
        "Bestellung\n\n",
        ("$i) $name\nStückzahl $n\nEinzelpreis 3,50 €\n",),
        "Mit freundlichen Grüßen\n",
    ),
    "chinese": ("订单\n\n", ("$i、$name\n数量：$n\n价格：3 元\n",), ""),  # noqa: RUF001
    "chinese, names": ("订单\n\n", ("名称：$name\n\n数量：$n\n",), ""),  # noqa: RUF001
    "bibtex": ("", ("@article{k$i,\n  title = {$name},\n  year = $n\n}\n\n",), ""),
    "vcard": ("", ("BEGIN:VCARD\nFN:$name\nTEL:$n\nEND:VCARD\n",), ""),
}


def records_of(form: str, count: int = ROWS, equal: int = EQUAL) -> list[str]:
    _, templates, _ = FORMS[form]
    records = []
    for number in range(count):
        picked = (NAMES[number * step % len(NAMES)] for step in (5, 7))
        is_equal = number % (count // equal) == 0
        name, n = ("Coffee beans", 3) if is_equal else (" ".join(picked), number * 37 % 90)
        row = Template(templates[number % len(templates)])
        records.append(row.substitute(i=number + 1, name=name, n=n))
    return records


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("max_tokens", [120, 400])
def test_every_row_of_a_list_is_whole_in_a_chunk(form: str, max_tokens: int) -> None:
    before, _, after = FORMS[form]
    records = records_of(form)
    starts = list(itertools.accumulate(map(len, records), initial=len(before)))

    chunks = chunking.split(f"{before}{''.join(records)}{after}", max_tokens)

    cuts = {chunk.start_char for chunk in chunks}
    whole = [
        number
        for number, (start, record) in enumerate(zip(starts, records, strict=False))
        if cuts.isdisjoint(range(start + 1, start + len(record.rstrip("\n+-* ,"))))
    ]
    assert len(chunks) > 3
    assert len(whole) == ROWS
    assert sum(number % (ROWS // EQUAL) == 0 for number in whole) == EQUAL


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_the_parts_of_a_text_are_in_order_up_to_its_end(text: str) -> None:
    ends = outline_of(text).divide(0, len(text)).ends

    assert sorted(set(ends)) == list(ends)
    assert ends[-1] == len(text)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ('Acme Ltd,"Lyon, France",1000\n', ["Acme Ltd", "Lyon, France", "1000"]),
        ("| Acme \\| Co | | 1000 |", ["Acme \\| Co", "", "1000"]),
        ("Acme\tFrance\t1000", ["Acme", "France", "1000"]),
        ("Acme  France  1000", []),  # blanks may belong to a cell
        ("No table.", []),
        (f"a,b,{'x' * 200_000}", ["a", "b", "x" * 200_000]),
        ("a,b\rc,d", []),
        ("a,b\nc,d", []),
    ],
)
def test_the_cells_of_a_row_are_those_between_its_marks(row: str, parts: list[str]) -> None:
    assert cells(row) == parts


def test_a_limit_that_another_reader_left_does_not_cut_the_cells() -> None:
    csv.field_size_limit(10)

    assert cells("a long first cell,b,c") == ["a long first cell", "b", "c"]
