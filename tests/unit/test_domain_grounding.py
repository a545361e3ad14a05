"""Tests of locating quotes in their source, and of the boundaries of quotes."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chordwise.domain import grounding, json_values
from chordwise.domain.grounding import Grounding, Source, Span
from chordwise.domain.json_values import JsonObject, JsonValue

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
ALPHABET = st.sampled_from(
    [*"aAbé .,\n\"'()[]*+?\\|^$-", "\u0130", "Σ", "ς", "ß", "“", "—", "字", "ﬁ"]
)
TEXTS = st.text(ALPHABET | CHARACTERS, min_size=1, max_size=80)


@st.composite
def texts_with_a_part(draw: st.DrawFn) -> tuple[str, str]:
    text = draw(TEXTS)
    start = draw(st.integers(0, len(text) - 1))
    part = text[start : draw(st.integers(start + 1, len(text)))]
    assume(part.strip())
    return text, part


def evidence(quote: str, source: Source) -> JsonObject:
    answer = grounding.ground({"finding": {"finding": "f", "quote": quote}}, source)
    return json_values.as_object(answer["finding"])


def canonical(text: str) -> str:
    """Return a form that ignores typography, markup, white space and case."""
    folded = unicodedata.normalize("NFKD", grounding._decompose(grounding._fold(text)))
    return "".join(char for char in folded if not char.isspace() and char not in "*_`\\#>-|")


@given(texts_with_a_part(), st.integers(0, 10_000))
def test_a_part_of_a_text_is_found_verbatim(pair: tuple[str, str], offset: int) -> None:
    """Exceptions are parts that would cut a number or an accent."""
    text, part = pair
    assume(not re.search(r"\d|[\u0300-\u036f]", text))

    span = Source(text, offset=offset).locate(part)

    assert span is not None
    assert text[span.start_char - offset : span.end_char - offset] == part


@given(TEXTS, TEXTS)
def test_a_located_span_equals_the_quote_up_to_typography(text: str, quote: str) -> None:
    span = Source(text).locate(quote)

    if span is not None:
        passage = text[span.start_char : span.end_char]
        assert canonical(passage) == canonical(quote) or canonical(passage) in canonical(quote)
        assert canonical(passage).strip(grounding._FRAME) == canonical(quote).strip(
            grounding._FRAME
        )


@given(TEXTS, TEXTS)
def test_a_quote_that_is_not_in_the_text_is_not_grounded(text: str, quote: str) -> None:
    assume(canonical(quote).strip(grounding._FRAME) not in canonical(text))

    grounded = evidence(quote, Source(text))

    assert grounded["grounded"] is False
    assert grounded["start_char"] is None
    assert grounded["quote"] == quote


@given(texts_with_a_part(), st.integers(0, 5_000))
def test_substr_of_a_grounded_span_is_the_stored_quote(pair: tuple[str, str], offset: int) -> None:
    """`substr(text, start_char + 1, end_char - start_char) = quote`, as SQL counts from 1."""
    text, part = pair
    document = "x" * offset + text

    grounded = evidence(part.upper(), Source(text, offset=offset))

    if grounded["grounded"]:
        start, end = grounded["start_char"], grounded["end_char"]
        assert isinstance(start, int)
        assert isinstance(end, int)
        first = start + 1
        assert document[first - 1 : first - 1 + end - start] == grounded["quote"]


@pytest.mark.parametrize(
    ("quote", "text", "wording"),
    [
        ("cost (all) $5.00 [net]*", "It cost (all) $5.00 [net]*.", "cost (all) $5.00 [net]*"),
        ("a.c", "abc a.c", "a.c"),
        ("it's “done” now", 'It\'s "done" now', 'It\'s "done" now'),
        ("five - six", "five — six", "five — six"),
        ("by -3.2 %", "by \u22123.2 % or 5", "by \u22123.2 %"),
        ("5 pieces", "-5 pieces\n10 -15", "5 pieces"),
        ("two words", "two\n   words", "two\n   words"),
        ("two words", "two\u00a0words", "two\u00a0words"),
        ('"Quoted sentence."', "A quoted sentence. More.", "quoted sentence"),
        ("… the end", "This is the end", "the end"),
        ("会議は五月に", "昨日、会議は五月に開かれた。", "会議は五月に"),
        ("caf\u00e9", "Le cafe\u0301 ouvre", "cafe\u0301"),
        ("cafe\u0301", "Le caf\u00e9 ouvre", "caf\u00e9"),
        ("office finance", "The o\ufb03ce \ufb01nance", "o\ufb03ce \ufb01nance"),
        ("information", "The infor\u00admation", "infor\u00admation"),
        ("wait...", "So wait… no", "wait"),
        ("istanbul", "In İSTANBUL", "İSTANBUL"),
        ("türkiye", "İ İ İ TÜRKİYE", "TÜRKİYE"),
        ("ΨΦΣ ΦΨ", "ψφς φψ", "ψφς φψ"),
        ("ψφς", "İ ΨΦΣΨ ΨΦΣ", "ΨΦΣ"),
        ("\uff21\uff22 12", "ab 12", "ab 12"),
        ("開かれ", "会議は五月に開かれた。", "開かれ"),
        ("Bonn,Graz and Rome", "In Bonn, Graz and Rome.", "Bonn, Graz and Rome"),
        ("Bonn, Graz and Rome", "In Bonn,Graz and Rome.", "Bonn,Graz and Rome"),
        ("Inc. (not Ltd) pays", "Acme Inc. (not Ltd) pays.", "Inc. (not Ltd) pays"),
        ("Acme) pays", "All (and Acme) pays", "Acme) pays"),
    ],
)
def test_quotes_with_usual_changes_of_models_are_found(quote: str, text: str, wording: str) -> None:
    grounded = evidence(quote, Source(text, offset=7))

    assert grounded == {
        "finding": "f",
        "quote": wording,
        "start_char": 7 + text.rindex(wording),
        "end_char": 7 + text.rindex(wording) + len(wording),
        "grounded": True,
        "grounding": "exact" if quote in text else "normalized",
    }


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("", "text"),
        (" \n", "a \n b"),
        ("...", "no dots"),
        ("first ... last", "first and last"),
        ("10 2", "10²"),
        ("102", "10²"),
        ("f", "o\ufb03ce"),
        ("anything", ""),
        ("5 million", "They paid 15 million."),
        ("$5", "They paid $5.2 billion."),
        ("$5,000", "It costs $5,000,000."),
        ("000", "It costs 5,000."),
        ("1.5", "Version 1.50 is out."),
        ("12", "Es kostet 12,5 Euro."),
        ("7.000", "Es sind 7.000.000,00 Euro."),
        ("٣", "العدد ٣٤"),
        ("profit of 5 million", "a profit of 5\u00b9 million"),
        ("grew by 5 %", "grew by\n> 5 %"),
        ("a loss of 5 million", "a loss of\n- 5 million"),
        ("53 pieces", "5*3 pieces"),
        ("5 m wide", "a room 5 m\u00b2 wide"),
        ("10 metres long", "10 metres\u00b2 long"),
        ("from 510", "from 5-\n10"),
        ("Smith[13] says", "as Smith[12] says"),
        ("see [this](http://a.b/2)", "see [this](http://a.b/1)"),
        ("the co-operation", "the cooperation"),
        ("Revenue Costs 300", "Revenue\n\n500\n\nCosts\n\n300"),
        ("the snakecase name", "the snake_case name"),
        ("under No. The buyer", "under No.3 The buyer"),
        ("the rate 3 was fixed", "the rate12 was fixed"),
        ("paid Tea", "paid,3\nTea"),
        ("this Paragraph by", "this&nbsp;Paragraph&nbsp;4 by"),
        ("The develop of it", "The develop-\n\n3\n\nment of it"),
        ("Total 1,300", "| Total | 1,200 |"),
        ("Total 1", "| Total | 1,200 |"),
        ("16", "It cost 16,619.98 euros."),
        ("619.98", "It cost 16,619.98, and more."),
        ("98", "Coffee,16,619.98"),
        ("3.2 percent", "a margin of -3.2 percent"),
        ("3.2 percent", "a margin of \u22123.2 percent"),
        ("$5", "| Loss | -$5 |"),
        ("cafe", "a cafe\u0301 here"),
        ("cafe", "a caf\u00e9 here"),
        ("Acme) pays all costs", "The buyer (except Acme) pays all costs."),
        ("be) liable", "The seller shall (not be) liable."),
        ("1,2", "1, 2"),
    ],
)
def test_quotes_that_are_not_in_the_text_are_not_found(quote: str, text: str) -> None:
    assert Source(text).locate(quote) is None


def test_equal_quotes_have_successive_places() -> None:
    """Equal rows of a list have their own places, also in a synthesis.

    A synthesis repeats the quote of a chunk: its span is that of the chunk, not the first equal
    passage. Each place counts once, and quotes that were not found have none.
    """
    text = "Coffee 3.\nTea 4.\nCoffee 3.\nCoffee 3.\n"
    said = ("Coffee 3.", "Tea 4.", "Coffee 3.", "Coffee 3.", "Coffee 3.", "Milk 5.")
    rows: list[JsonValue] = [{"quote": quote} for quote in said]

    answer = grounding.ground({"rows": rows}, Source(text))
    spans = grounding.spans_by_quote((answer, grounding.ground({"rows": rows[:2]}, Source(text))))
    again = grounding.ground({"rows": rows[2:5]}, Source(text, known=spans))
    later = Source(text, known={"Coffee 3.": [Span(start_char=27, end_char=36)]})

    assert [item["start_char"] for item in grounding.quotes(answer)] == [0, 10, 17, 27, 0, None]
    assert {quote: len(places) for quote, places in spans.items()} == {"Coffee 3.": 3, "Tea 4.": 1}
    assert [item["start_char"] for item in grounding.quotes(again)] == [0, 17, 27]
    assert later.locate("Coffee 3.") == Span(start_char=27, end_char=36)


def test_data_of_a_users_schema_is_not_grounded() -> None:
    data: JsonObject = {"quote": "To be", "author": "W. S.", "start_char": 3, "grounded": "yes"}
    answer: JsonObject = {"data": data, "evidence": [{"path": "/quote", "quote": "To be"}]}

    grounded = grounding.ground(answer, Source("To be or not"))

    assert grounded["data"] == data
    assert json_values.objects(grounded["evidence"])[0]["grounded"] is True
    assert grounding.without_spans(grounded) == answer
    assert [quote["path"] for quote in grounding.quotes(grounded)] == ["/quote"]


def test_the_share_of_grounded_quotes() -> None:
    quotes: list[JsonValue] = ["here", "nowhere", None, 5]
    answer: JsonObject = {"fields": [{"quote": quote, "confidence": 1} for quote in quotes]}

    grounded = grounding.ground(answer, Source("it is 5 here"))

    fields = json_values.objects(grounded["fields"])
    assert [field["grounded"] for field in fields] == [True, False, None, False]
    assert [field["grounding"] for field in fields] == ["exact", "none", None, "none"]
    assert grounding.grounded_share(grounding.ground({"f": [*fields[:3]]}, Source("here"))) == 0.5
    assert grounding.grounded_share({"label": "x"}) == 1.0


@pytest.mark.parametrize("unit", ["a", " x", "ab. ", "\u4e2d", "a\u0301", "\u200b "])
@pytest.mark.parametrize("end", ["", "?"])
def test_a_quote_is_located_in_linear_time(unit: str, end: str) -> None:
    quote = unit * 2_500 + end
    started = time.process_time()

    assert (Source(unit * 200_000).locate(quote) is None) == bool(end) or quote.isspace()
    assert time.process_time() - started < 5


def text_before(quote: str, text: str) -> str | None:
    """Return the text before the place of the quote, or `None` if it is not found."""
    span = Source(text).locate(quote)
    return None if span is None else text[: span.start_char]


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("2024", "Am 12.05.2024 begann es."),
        ("1857", "In 1856,1857,1858 it rained."),
        ("It cost 5", "It cost 5. 000 people came."),
        ("5,000,000", "It costs $5,000,000."),
        ("5月", "2024年5月のこと"),
        ("12", "Room 12b"),
        ("619.98", "Coffee,16,619.98"),
        ("16", "16,619.98,Coffee"),
    ],
)
def test_a_whole_number_is_found_next_to_signs_and_letters(quote: str, text: str) -> None:
    assert text_before(quote, text) == text[: text.index(quote)]


@pytest.mark.parametrize(
    ("quote", "text", "before"),
    [
        ("art", "A party about art.", "A party about "),
        ("Ann", "The Annual report by Ann", "The Annual report by "),
        ("5", "From 15 to 5 of them", "From 15 to "),
        ("ability", "Ability: capability", ""),
    ],
)
def test_whole_words_are_preferred(quote: str, text: str, before: str) -> None:
    assert text_before(quote, text) in (before, text[: text.rindex(quote)])
    assert list(grounding.whole_words(text, [(len(before), len(before) + len(quote))]))


def test_every_mention_is_found_in_scripts_without_spaces() -> None:
    text = "商品苹果3件、商品Maple数12件、商品苹果12件。"

    starts = {
        quote: [span.start_char for span in Source(text).mentions(quote)]
        for quote in ("苹果", "Maple", "12", "件")
    }

    assert starts == {"苹果": [2, 21], "Maple": [9], "12": [15, 23], "件": [5, 17, 25]}


SENTENCES = (
    "The harbour company shall deliver 1,250 tonnes of gravel to the northern quay before March.",
    "It shall not charge any storage fee unless the customer has agreed to that in writing.",
    "Every delivery is weighed twice, and the lower of both results counts for the invoice.",
    "Invoices above 40,000 euros are payable within thirty days after the ship has left again.",
    "The customer may terminate this agreement at any time without giving a particular reason.",
    "Neither party is liable for delays that storms, strikes or public authorities have caused.",
    "Disputes about 3.5 percent of the price or less go to an arbitrator whom both have named.",
    "The non-compete clause of the former agreement remains in force for two more years.",
)
WORDS = " ".join(SENTENCES).split()
FORMS = ("hyphens", "mail", "bold", "pages", "notes", "everything")


def written(form: str, random: Random) -> str:
    words = list(WORDS)
    if form in ("bold", "everything"):
        for place in random.sample(range(len(words)), 12):
            mark = random.choice(["**", "*", "_", "`", "***"])
            words[place] = f"{mark}{words[place]}{mark}"
    if form in ("notes", "everything"):
        for place in random.sample(
            [n for n, w in enumerate(words) if re.search("[a-z]{3}$", w)], 9
        ):
            words[place] += random.choice(["[3]", "[12]", "\u00b9", "\u00b9\u2074"])
    lines = list(wrapped(words, random, is_parted=form in ("hyphens", "everything")))
    if form == "pages":
        pages = [lines[place : place + 4] for place in range(0, len(lines), 4)]
        return "\n\n\n\n\n".join(
            "\n".join(["HARBOUR AND QUAY", *page, "", f"Page {number}"])
            for number, page in enumerate(pages, start=7)
        )
    if form in ("mail", "everything"):
        lines = ["On Monday they wrote:", *(f"> {line}" for line in lines)]
    return "\n".join(lines)


def wrapped(words: list[str], random: Random, *, is_parted: bool) -> Iterator[str]:
    line: list[str] = []
    for word in words:
        line.append(word)
        if len(line) > 6 and is_parted and re.fullmatch("[a-z]{8,}", word):
            cut = random.randint(3, len(word) - 3)
            yield " ".join([*line[:-1], f"{word[:cut]}-"])
            line = [word[cut:]]
        elif len(line) > 11:
            yield " ".join(line)
            line = []
    yield " ".join(line)


def falsified(words: list[str], random: Random) -> Iterator[list[str]]:
    place = random.randrange(1, len(words) - 2)
    yield [*words[:place], "banana", *words[place + 1 :]]
    yield [*words[:place], "not", *words[place:]]
    yield [*words[:place], words[place + 1], words[place], *words[place + 2 :]]
    for number, word in enumerate(words):
        if re.search(r"\d", word):
            changed = re.sub(r"\d", lambda digit: str((int(digit[0]) + 3) % 10), word, count=1)
            yield [*words[:number], changed, *words[number + 1 :]]
        if word in ("not", "without", "unless", "Neither") and 0 < number < len(words) - 1:
            yield [*words[:number], *words[number + 1 :]]
            yield [*words[:number], "...", *words[number + 1 :]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_quotes_are_found_in_every_form_of_a_document(form: str, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - not for secrets
    text = written(form, random)
    source = Source(text, offset=5)

    for _ in range(25):
        start = random.randrange(len(WORDS) - 16)
        words = WORDS[start : start + random.randint(6, 16)]
        span = source.locate(" ".join(words))
        assert span is not None, words
        assert span.grounding in (Grounding.EXACT, Grounding.NORMALIZED)
        assert letters(source.wording(span)).startswith(letters(words[0])[:3])
        for false in falsified(words, random):
            assert source.locate(" ".join(false)) is None, false


def letters(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


def test_a_letter_of_a_script_of_syllables_counts_as_two() -> None:
    """Three short words of Hindi, which would have ten letters in English, part a quote."""
    text = "किरायेदार हर महीने की पाँच तारीख तक मकान मालिक को किराया देगा।"

    span = Source(text).locate("हर महीने की … तक मकान मालिक")

    assert span is not None
    assert span.grounding is Grounding.JOINED


@pytest.mark.parametrize("ellipsis", ["...", "\u2026", "[...]", "[\u2026]", "(...)", ". . ."])
@pytest.mark.parametrize("form", FORMS)
def test_parts_around_an_ellipsis_must_be_near_each_other(ellipsis: str, form: str) -> None:
    """The span is from the first part to the last, also across a page break."""
    text = written(form, Random(1))  # noqa: S311 - not for secrets
    parts = "The harbour company shall deliver", "to the northern quay before March."

    span = Source(text).locate(f"{parts[0]} {ellipsis} {parts[1]}")

    assert span is not None
    assert span.grounding is Grounding.JOINED
    wording = letters(text[span.start_char : span.end_char])
    assert wording.startswith("Theharbour")
    assert wording.endswith("March")


@pytest.mark.parametrize(
    "quote",
    [
        "to the northern quay before March. ... The harbour company shall deliver",
        "The harbour company shall deliver ... in force for two more years.",
        "It shall ... charge any storage fee",
        "not charge any storage fee ... the customer has agreed",
        "The customer may terminate ... giving a particular reason",
        "The harbour ... before March",
        "The harbour company shall deliver ... to the southern quay before March.",
        "The harbour company shall deliver 1 ... to the northern quay",
    ],
)
def test_parts_that_are_not_a_quote_are_not_found(quote: str) -> None:
    text = " ".join([*SENTENCES[:4], *("It rained all day long." for _ in range(50)), *SENTENCES])

    assert Source(text[: text.rindex("Every delivery")] + SENTENCES[-1]).locate(quote) is None


@pytest.mark.parametrize(
    ("before", "left_out", "after"),
    [
        ("The supplier of parts", "in Hamburg failed to", "deliver the goods in time"),
        ("The board of directors", "refused to", "approve such large loans"),
        ("The tenant of it is", "prohibited from", "subletting the whole flat"),
        ("The witness of the day", "denied that he", "had signed the letter"),
        ("The heir of the house", "lacks the", "right to sell it"),
        ("All of the staff", "except temporary workers", "are covered in full"),
        ("Der Mieter darf es", "in der Stadt keinesfalls", "ganz oder in Teilen untervermieten"),
        ("Der Arzt hat es", "am Ende untersagt, das", "Haus zu verlassen"),
        ("Le locataire du logement", "refuse de", "payer le loyer entier"),
        ("El arrendatario del piso", "jam\u00e1s debe", "ceder este contrato entero"),
        ("O locat\u00e1rio do im\u00f3vel", "na\u0303o pode", "ceder este contrato inteiro"),
        ("Najemca tego mieszkania", "nie mo\u017ce", "podnaj\u0105\u0107 ca\u0142ego lokalu"),
        ("Hyresg\u00e4sten i huset", "f\u00e5r aldrig", "hyra ut hela huset"),
        ("It is the tenant", "of Smith &amp; Sons who does n&rsquo;t", "pay the whole rent"),
    ],
)
def test_an_ellipsis_must_not_omit_a_negation(before: str, left_out: str, after: str) -> None:
    quote = f"{before} ... {after}"

    assert Source(f"{before} {left_out} {after}.").locate(quote) is None
    assert Source(f"{before} 1 2 3 {after}.").locate(quote) is not None


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("an agreement on non-compete", "an agree-\nment on non-\ncompete, as non-compete"),
        ("a non-compete clause", "a non-\ncompete clause"),
        ("a noncompete clause", "a non-\ncompete clause of non-compete clauses"),
        ("an aide-de-camp came", "an aide-\nde-camp came, camp of aide-de and de-camp"),
        ("see the page now", "see [the page](https://x.y/a_(b)) now"),
        ("Terms of use apply", "## Terms\nof use apply"),
        ("first point second point", "- first point\n- second point"),
        ("\u592a\u5b57\u3067\u3059", "\u3053\u308c\u306f**\u592a\u5b57**\u3067\u3059"),
        ("the **Seller** pays", "the Seller pays"),
        ("years 2019-2020", "years 2019-\n2020"),
        ("The development of it", "The develop-\n\n\n3\n\n\nment of it"),
        ("The development of it", "Title X\n\nThe develop-\n\fTitle X\n\nment of it"),
        ("the rate was fixed in May. It rose", "the rate12 was fixed in May.3 It rose"),
        ("the rate, which rose", "the rate,3 which rose"),
        ("the rate rose", "the rate\u00b2 rose"),
        ("Total 1,200 EUR", "| **Total** | 1,200 | EUR |"),
        ("Total | 1,200", "|**Total**|1,200|"),
        ("Name Bolt Nut", "| Name |\n|:--|\n| Bolt |\n| Nut |"),
        ("Smith & Sons’ “shop”", "Smith &amp; Sons&rsquo; &quot;shop&#8221;"),
        ("R&amp;D of 5&nbsp;% here", "R&D of 5 % here"),
        ("the &quot;office&quot;", 'the "office"'),
        ("the \u2039office\u203a \u201chere\u201d", "the 'of\ufb01ce' \"here\""),
    ],
)
def test_markup_and_hyphenation_are_ignored(quote: str, text: str) -> None:
    span = Source(text).locate(quote)

    assert span is not None
    assert span.grounding is Grounding.NORMALIZED


@pytest.mark.parametrize("unit", [".", "-", "*", "> ", "a-\n", "[a](", "1\n", "Page 1\n\n\n\n\n"])
def test_hostile_documents_are_searched_in_linear_time(unit: str) -> None:
    started = time.process_time()

    span = Source(unit * (100_000 // len(unit))).locate("some three words ... and three others")

    assert span is None
    assert time.process_time() - started < 5


def test_the_kind_of_grounding_is_kept_in_a_synthesis() -> None:
    """A joined quote is stored with the full wording and does not become an exact one.

    A whole sentence may be omitted, even if it contains a negation.
    """
    text = " ".join(SENTENCES)
    findings: list[JsonValue] = [
        {"quote": "The harbour company shall ... to the northern quay before March."},
        {"quote": "to the northern quay before March. [...] Every delivery is weighed twice"},
    ]
    answer = grounding.ground({"found": findings}, Source(text))

    bare = json_values.as_object(grounding.without_spans(answer))
    again = grounding.ground(bare, Source(text, known=grounding.spans_by_quote((answer,))))

    assert again == answer
    first, second = grounding.quotes(again)
    assert (first["quote"], first["grounding"]) == (SENTENCES[0].rstrip("."), "joined")
    assert (str(second["quote"])[-5:], second["grounding"]) == ("twice", "joined")


def test_the_number_of_evaluated_ellipses_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def may_be_left_out(_text: str, start: int, _end: int) -> bool:
        looked_at.append(start)
        return True

    monkeypatch.setattr(grounding, "_MAX_GAPS", 1_000)
    monkeypatch.setattr(grounding, "_may_be_left_out", may_be_left_out)
    source = Source("the cat sat on the mat. " * 100)

    spans = [source.locate(" … ".join(["the cat sat on"] * parts)) for parts in range(2, 12)]

    assert spans[0] is not None
    assert spans[-1] is None
    assert len(looked_at) == 1_000


def test_a_quote_with_a_word_that_is_not_in_a_plain_text_is_rejected_early() -> None:
    """Most invented quotes have such a word, and the other comparisons are slower."""
    source = Source("The town paid **more** than it had planned.")

    assert source.locate("The village paid more") is None
    assert not {"_without_markup", "_without_insertions"} & vars(source).keys()
    assert source.locate("paid more than") is not None
