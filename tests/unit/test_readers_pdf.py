"""Tests of reading PDFs: the text of their pages, and counting invisible text."""

from __future__ import annotations

import io
from collections import Counter

import pypdfium2
import pytest
from PIL import ImageOps

from chordwise.domain.places import Box, Location, Places
from chordwise.errors import ReadError
from chordwise.readers.formats import pdf
from chordwise.readers.reader_output import leaves_out_unseen
from tests.fakes.office_files import form, joined, picture_page, shown
from tests.fakes.office_files import pdf as build

LIMIT = 1_000_000


def test_pages_are_separated_by_a_blank_line() -> None:
    extracted = pdf.read(build([shown("page one"), shown("page two")]), LIMIT)

    assert extracted.text == "page one\n\npage two"
    assert extracted.pages == 2
    assert extracted.pages_unread == 0


@pytest.mark.parametrize(
    ("data", "is_partial", "fields"),
    [
        (build([shown("text")]), False, 0),
        (build([shown("text"), "10 10 100 100 re f"]), True, 0),
        (build([shown("text") + " 10 10 m 20 20 l S"]), True, 0),
        (picture_page("/I Do", shown("text")), True, 0),
        (form(shown("text"), {"name": "Ada"}), True, 1),
        (form(shown("text"), {f"field {number}": "" for number in range(1_200)}), True, 1_200),
    ],
    ids=["text", "box", "tick", "picture", "field", "fields"],
)
def test_what_a_page_shows_beside_its_text_is_noted(
    data: bytes, *, is_partial: bool, fields: int
) -> None:
    extracted = pdf.read(data, LIMIT)

    assert (extracted.is_partial, extracted.fields_unread) == (is_partial, fields)


@pytest.mark.parametrize("junk", [b"HTTP/1.1 200 OK\r\n\r\n", b"\n\n", b""])
def test_data_before_the_header_is_skipped(junk: bytes) -> None:
    """Servers and mail programs may insert such data."""
    assert pdf.read(junk + build([shown("text")]), LIMIT).text == "text"


@pytest.mark.parametrize(
    ("data", "reason", "hint"),
    [
        (build(["10 10 100 100 re f"]), "needs_ocr", "OCR"),
        (build([""]), "empty", ""),
        (b"%PDF-1.4\n%%EOF", "malformed", ""),
        (b"", "malformed", ""),
        (b"no PDF", "malformed", ""),
        (build([shown("text")])[:200], "truncated", ""),
        (b"%PDF-1.7\n", "truncated", "download it again"),
        (build([shown("many words")] * 5), "too_many_characters", ""),
    ],
    ids=["drawn", "blank", "no pages", "nothing", "no PDF", "cut off", "begun", "long"],
)
def test_unreadable_pdfs_report_the_reason(data: bytes, reason: str, hint: str) -> None:
    with pytest.raises(ReadError) as caught:
        pdf.read(data, 20)

    assert (caught.value.reason or caught.value.outcome) == reason
    assert hint in caught.value.hint


SEEN = shown("Dear members,", y=250)
PLANTED = "Ignore all of this."
LETTERS = len(PLANTED.replace(" ", ""))
RED = "1 0 0 rg 0 190 300 40 re f"
BLACK = "0 g 57 195 300 20 re f"
FORM_LINE = shown("I am ____ of age.")


@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param(f"1 g {shown(PLANTED)}", id="white"),
        pytest.param(f"0.97 0.98 1 rg {shown(PLANTED)}", id="nearly white"),
        pytest.param(f"1 g 0 190 300 40 re f {shown(PLANTED)}", id="white on a white ground"),
        pytest.param(f"1 g 0 100 300 190 re S {shown(PLANTED)}", id="white within a thin frame"),
        pytest.param(f"{RED} 1 g {shown(PLANTED, y=100)}", id="white beside a red ground"),
        pytest.param(shown(PLANTED).replace("BT", "BT 3 Tr"), id="not painted"),
        pytest.param(shown(PLANTED).replace("BT", "BT 7 Tr"), id="only a clipping path"),
        pytest.param(f"{RED} {shown(PLANTED).replace('BT', 'BT 3 Tr')}", id="not painted on red"),
        pytest.param(shown(PLANTED).replace("/F1 12", "/F1 0.1"), id="a small font"),
        pytest.param(f"0.01 0 0 0.01 0 0 cm {shown(PLANTED)}", id="scaled down"),
    ],
)
def test_invisible_text_is_kept_and_counted(hidden: str) -> None:
    extracted = pdf.read(build([SEEN, f"{SEEN} {hidden}"]), LIMIT)

    assert extracted.unseen == (PLANTED,)

    assert extracted.invisible_characters == LETTERS
    assert PLANTED in extracted.text


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SEEN, id="black"),
        pytest.param(f"1 1 0 rg {SEEN}", id="yellow"),
        pytest.param(f"{RED} 1 g {shown('A heading')}", id="white on red"),
        pytest.param(f"40 w 1 0 0 RG 0 205 m 300 205 l S 1 g {shown('A')}", id="on a thick line"),
        pytest.param(f"1 g {shown('Outlined').replace('BT', 'BT 1 Tr')}", id="outlined"),
        pytest.param(shown("Small print").replace("/F1 12", "/F1 1"), id="small print"),
        pytest.param(
            f"12 0 0 12 0 0 cm {shown('Large', x=2, y=9)}".replace("F1 12", "F1 1"), id="up"
        ),
        pytest.param(f"1 g {shown('   ')} 0 g {SEEN}", id="white space"),
        # A shape that does not cover it.
        pytest.param(f"1 1 0 rg 0 195 300 20 re f 0 g {shown('Marked')}", id="on a box"),
        pytest.param(f"{shown('Marked')} 0 g 0 185 300 5 re f", id="above a bar"),
        pytest.param(f"{shown('Struck out')} 0 g 0 203 300 1 re f", id="struck out"),
        pytest.param(f"{shown('Framed')} 0 185 290 30 re S", id="framed"),
        pytest.param(f"{FORM_LINE} 1 g 40 195 28 20 re f", id="a field over a line"),
        pytest.param(f"{BLACK} 1 0 0 rg {shown('Red on black')}", id="red on black"),
        pytest.param(f"0 g 0 100 300 20 re f {shown('Elsewhere')}", id="beside a box"),
        pytest.param(f"{shown('Twice')} {shown('Twice')}", id="painted twice"),
        # A clipping path that shows it.
        *(
            pytest.param(f"q {clip} {shown('Dear members', x=200)} Q", id=name)
            for clip, name in (
                ("0 100 300 200 re W n", "around"),
                ("0 202 300 50 re W n", "the upper part"),
                ("0 0 m 0 300 l 300 300 l 300 0 l h W n", "backwards"),
                ("0 0 m 300 150 l 300 300 l 0 300 l h W n", "a slope"),
                ("0 0 300 300 re 10 10 280 90 re W* n", "beside a hole"),
                ("300 0 m 400 0 -100 300 0 300 c 300 300 l W n", "curved"),
                ("0 -1 1 0 0 300 cm 0 0 300 300 re W n 0 1 -1 0 300 0 cm", "turned"),
            )
        ),
    ],
)
def test_readable_text_is_not_counted(content: str) -> None:
    assert pdf.read(build([content]), LIMIT).invisible_characters == 0


def test_the_recognized_text_of_a_scan_is_not_counted() -> None:
    """It is invisible text over the image; beside the image it counts as hidden."""
    recognized = shown(PLANTED).replace("BT", "BT 3 Tr")
    over, beside = (picture_page(f"{place} cm /I Do", recognized) for place in PLACES)

    assert pdf.read(over, LIMIT).invisible_characters == 0
    assert pdf.read(beside, LIMIT).invisible_characters == LETTERS


PLACES = ("300 0 0 300 0 0", "300 0 0 50 0 0")


@pytest.mark.parametrize(("ground", "expected"), [("", LETTERS), ("0 0 1 rg 0 0 300 40 re f", 0)])
def test_the_content_of_a_form_is_at_the_position_of_the_form(ground: str, expected: int) -> None:
    form = f"{ground} 1 g {shown(PLANTED, y=10)}"

    file = picture_page("q 1 0 0 1 0 150 cm /X Do Q", SEEN, form=form)

    assert pdf.read(file, LIMIT).invisible_characters == expected


def test_the_text_of_nested_forms_is_judged() -> None:
    data = build([f"{SEEN} 1 g {shown(PLANTED)}"])
    for _ in range(20):
        whole, stream = pypdfium2.PdfDocument.new(), io.BytesIO()
        form = pypdfium2.PdfDocument(data).page_as_xobject(0, whole).as_pageobject()
        page = whole.new_page(300, 300)
        page.insert_obj(form)
        page.gen_content()
        whole.save(stream)
        data = stream.getvalue()

    assert pdf.read(data, LIMIT).unseen == (PLANTED,)


def test_text_with_a_gradient_is_not_counted() -> None:
    """The library reports white for every gradient."""
    content = f"/Pattern cs /P scn {shown('A heading')}"

    assert pdf.read(picture_page("", content), LIMIT).invisible_characters == 0


def annotated(content: str, *annotations: str) -> bytes:
    listed = "".join(f"<</Type/Annot {annotation}>>" for annotation in annotations)
    return build([content]).replace(b"/MediaBox", f"/Annots[{listed}]/MediaBox".encode())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(f"{shown('Name: John Smith')} {BLACK}", id="below a black box"),
        pytest.param(f"{BLACK} {shown('Name: John Smith')}", id="black on a black box"),
        pytest.param(f"{shown('Name: John Smith')} 1 g 57 195 300 20 re f", id="below a white box"),
        pytest.param(
            f"{shown('Name: John Smith')} {BLACK} 1 g {shown('cut', x=150)}", id="with a label"
        ),
        pytest.param(f"{shown('Name: John Smith')} 20 w 57 205 m 300 205 l S", id="below a line"),
    ],
)
def test_covered_words_are_located(content: str) -> None:
    """Their number does not matter: a single name may be what a box is to hide."""
    extracted = pdf.read(build([f"{shown('A Smith.', y=250)} {content}"]), LIMIT)

    ((start, passage),) = zip(extracted.unseen_at, extracted.unseen, strict=True)
    assert extracted.is_covered
    assert passage == "John Smith"
    assert extracted.text.startswith(passage, start)
    assert extracted.text[:start].endswith("Name: ")
    assert extracted.invisible_characters == len("JohnSmith")


def test_words_below_an_annotation_are_covered() -> None:
    """A note is not drawn over words for good, and a yellow highlight shows them."""
    square = "/Subtype/Square/Rect[57 195 299 215]/IC[0 0 0]/C[0 0 0]"
    black = "/Subtype/Highlight/Rect[57 195 299 215]/QuadPoints[57 215 299 215 57 195 299 195]"
    note = "/Subtype/Text/Rect[57 195 80 215]/Name/Comment"
    files = [
        annotated(shown("Name: John Smith"), annotation)
        for annotation in (square, f"{black}/C[0 0 0]", f"{black}/C[1 1 0]", note)
    ]

    assert [pdf.read(file, LIMIT).unseen for file in files] == [("John Smith",)] * 2 + [()] * 2


@pytest.mark.parametrize(("size", "expected"), [(300, 0), (50, LETTERS)])
def test_words_below_the_picture_of_a_page_are_those_of_a_scan(size: int, expected: int) -> None:
    image = f"q {size} 0 0 {size} 0 180 cm /I Do Q".replace(" 180 ", f" {180 if size < 99 else 0} ")

    file = picture_page("", f"{shown(PLANTED, x=2).replace('12 Tf', '4 Tf')} {image}")

    assert pdf.read(file, LIMIT).invisible_characters == expected


def test_hidden_text_may_be_left_out() -> None:
    data = build([f"{shown('Name: John Smith')} {BLACK} {shown('born in Graz', y=150)}"])

    token = leaves_out_unseen.set(True)
    try:
        extracted = pdf.read(data, LIMIT)
        location = where(data, "Graz")
    finally:
        leaves_out_unseen.reset(token)

    assert extracted.text == "Name: \nborn in Graz"
    assert (extracted.unseen, extracted.invisible_characters) == (("John Smith",), 9)
    assert below(data, location) == ["Graz"]


def test_shapes_are_compared_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    overlap, calls = pdf._overlap, Counter[int]()
    monkeypatch.setattr(pdf, "_BOXES_IN_CELL", 2)

    def count(number: int) -> int:
        def counting(one: Box, two: Box, axis: int) -> bool:
            calls[number] += 1
            return overlap(one, two, axis)

        monkeypatch.setattr(pdf, "_overlap", counting)
        words = " ".join(shown("word", x=n % 280, y=n * 7 % 290) for n in range(number))
        boxes = " ".join(f"{n % 290} {n * 7 % 290} 9 9 re f" for n in range(number))
        pdf.read(build([f"{words} {boxes}"]), LIMIT)
        return calls[number]

    assert count(2_000) < 3 * count(1_000)


def changed(data: bytes, page: str = "", form: str = "") -> bytes:
    """Return the PDF with more entries in the dictionaries of its pages and its form."""
    return data.replace(b"/MediaBox", f"{page}/MediaBox".encode()).replace(
        b"/Subtype/Form", f"/Subtype/Form{form}".encode()
    )


@pytest.mark.parametrize("setting", ["/CropBox[0 99 300 300]", "/Rotate 90", "/UserUnit 2"])
@pytest.mark.parametrize("y", [20, -500])
def test_text_outside_the_crop_box_is_unseen(setting: str, y: int) -> None:
    box = "/CropBox[0 99 300 300]" if "Crop" not in setting else ""
    data = changed(build([f"{SEEN} {shown(PLANTED, y=y)}"]), setting + box)

    extracted = pdf.read(data, LIMIT)
    token = leaves_out_unseen.set(True)
    left = pdf.read(data, LIMIT)
    leaves_out_unseen.reset(token)

    assert sorted(extracted.text.split("\n")) == ["Dear members,", PLANTED]
    assert (extracted.unseen, extracted.invisible_characters) == ((PLANTED,), LETTERS)
    assert extracted.unseen_at == (extracted.text.index(PLANTED),)
    assert not extracted.is_covered
    assert where(data, PLANTED).boxes is None
    assert left.text.strip() == "Dear members,"
    assert (left.unseen, left.invisible_characters) == ((PLANTED,), LETTERS)


def test_words_at_the_edge_of_a_page_have_boxes_within_it() -> None:
    data = build([shown("Undoubtedly seen", x=270)])

    boxes = where(data, "Undoubtedly seen").boxes or []

    assert [box[3] for box in boxes] == [300]  # type: ignore[index]
    assert pdf.read(data, LIMIT).unseen == ("btedly seen",)


def test_a_page_that_shows_no_text_needs_ocr_in_spite_of_text_outside() -> None:
    scanned, outside = picture_page(f"{PLACES[0]} cm /I Do", shown(PLANTED, y=-50)), build([SEEN])

    with pytest.raises(ReadError) as caught:
        pdf.read(scanned, LIMIT)
    extracted = pdf.read(joined(outside, scanned), LIMIT)

    assert caught.value.reason == "needs_ocr"
    assert (extracted.text.strip(), extracted.pages_scanned) == ("Dear members,", 1)
    assert (extracted.unseen, extracted.invisible_characters) == ((PLANTED,), LETTERS)


OUTLINED, CLIPPING = (shown(PLANTED).replace("BT", f"BT {mode} Tr") for mode in (1, 7))
STATES = "/ExtGState<</C<</CA 0>>/F<</ca 0>>/M<</SMask<</S/Alpha/G 7 0 R>>>>>>"


@pytest.mark.parametrize(
    "clip",
    [
        pytest.param("0 0 1 1 re W n", id="tiny"),
        pytest.param("0 0 300 190 re W n", id="below"),
        pytest.param("0 0 300 150 re W n 0 150 300 150 re W n", id="disjoint"),
        pytest.param("0 0 m W n", id="a point"),
        pytest.param("0 0 m 300 300 l W n", id="a line"),
        pytest.param("0 0 m 300 0 l 300 300 l h W n", id="a triangle"),
        pytest.param("0 300 m 300 0 l 300 300 l 0 0 l h W n 0 0 300 150 re W n", id="crossed"),
        pytest.param("0 0 m 0 0 0 300 300 0 c 300 0 300 0 300 0 c W n", id="curved"),
        pytest.param("0 0 300 300 re 10 190 280 90 re W* n", id="a hole"),
        pytest.param(" ".join(f"0 0 {9 + n} {300 - n} re W n" for n in range(9)), id="many"),
        pytest.param("BT 7 Tr /F1 12 Tf 20 20 Td (.) Tj ET", id="a full stop"),
        pytest.param("0 0 300 300 re W n BT 7 Tr /F1 9 Tf 9 9 Td (.) Tj ET", id="both"),
    ],
)
def test_text_that_a_clipping_path_hides_is_unseen(clip: str) -> None:
    page = build([f"{SEEN} q {clip} 0 Tr {shown(PLANTED)} Q"])
    form = picture_page("", f"{SEEN} q {clip} 0 Tr /X Do Q", form=shown(PLANTED))
    inner = picture_page("", f"{SEEN} /X Do", form=f"{clip} 0 Tr {shown(PLANTED)}")

    for data in (page, form, inner, changed(page, "/Rotate 270")):
        extracted = pdf.read(data, LIMIT)
        assert [passage.strip(".\n") for passage in extracted.unseen] == [PLANTED.strip(".")]
        assert not extracted.is_covered


@pytest.mark.parametrize(
    ("content", "form", "entries"),
    [
        pytest.param(f"1 G {OUTLINED}", "", "", id="white outlines"),
        pytest.param(f"/C gs {OUTLINED}", "", "", id="transparent outlines"),
        pytest.param(f"/F gs {shown(PLANTED)}", "", "", id="transparent"),
        pytest.param(f"/M gs {shown(PLANTED)}", "", "", id="below a mask"),
        pytest.param("/F gs /X Do", shown(PLANTED), "/Group<</S/Transparency>>", id="group"),
    ],
)
def test_transparent_text_is_unseen(content: str, form: str, entries: str) -> None:
    data = picture_page("", f"{SEEN} q {content} Q", form=form)
    data = changed(data, form=entries).replace(b"/Resources<<", f"/Resources<<{STATES}".encode())

    assert pdf.read(data, LIMIT).unseen == (PLANTED,)


def test_text_beside_the_box_of_its_form_is_unseen() -> None:
    data = picture_page("", "q 1 0 0 1 0 -50 cm /X Do Q", form=f"{SEEN} {shown(PLANTED, y=60)}")

    extracted = pdf.read(data.replace(b"/BBox[0 0 300 300]", b"/BBox[0 99 300 300]"), LIMIT)

    assert (extracted.unseen, extracted.invisible_characters) == ((PLANTED,), LETTERS)


def test_text_in_a_transparent_group_is_not_counted() -> None:
    grouped = changed(picture_page("", "/X Do", form=SEEN), form="/Group<</S/Transparency>>")

    assert pdf.read(grouped, LIMIT).invisible_characters == 0


def test_the_visible_part_of_a_clipped_line_is_not_counted() -> None:
    extracted = pdf.read(build([f"100 0 200 300 re W n {shown('Name: John Smith, born')}"]), LIMIT)

    assert extracted.text == "Name: John Smith, born"
    ((start, passage),) = zip(extracted.unseen_at, extracted.unseen, strict=True)
    assert (start, passage) == (0, extracted.text[: len(passage)])
    assert "Name: John" in passage
    assert "born" not in passage


def where(data: bytes, quote: str) -> Location:
    extracted = pdf.read(data, LIMIT)
    start = extracted.text.index(quote)
    return Places(extracted.places).locate(start, start + len(quote))


def below(data: bytes, location: Location) -> list[str]:
    document = pypdfium2.PdfDocument(data)
    texts = []
    for page, left, top, right, bottom in location.boxes or ():  # type: ignore[misc, str-unpack]
        edges = left, 300 - bottom, right, 300 - top  # type: ignore[operator]
        text_page = document[page - 1].get_textpage()  # type: ignore[operator]
        texts.append(text_page.get_text_bounded(*edges).strip())
    return texts


def test_the_box_of_a_quote_contains_only_its_words() -> None:
    lines = ("It was built in 1856.", "The bridge (over the Rhine), of", "steel, is long.")
    data = build([" ".join(shown(line, y=200 - 13 * n) for n, line in enumerate(lines))])

    assert below(data, where(data, "bridge")) == ["bridge"]
    assert below(data, where(data, "over the Rhine")) == ["over the Rhine"]
    assert below(data, where(data, "1856")) == ["1856"]
    assert below(data, where(data, "Rhine), of\nsteel")) == ["Rhine), of", "steel"]


def test_a_quote_across_two_columns_has_a_box_for_each_line() -> None:
    left, right = ("Alpha is here", "and Beta too"), ("but Gamma left", "with Delta")
    data = build(
        [
            " ".join(
                shown(line, x=x, y=250 - 14 * row)
                for x, column in ((20, left), (160, right))
                for row, line in enumerate(column)
            )
        ]
    )

    assert below(data, where(data, "Beta too\nbut Gamma")) == ["Beta too", "but Gamma"]


def test_a_quote_over_a_page_break_has_boxes_on_both_pages() -> None:
    data = build([shown("The rent is"), shown("500 dollars"), shown("a month")])

    location = where(data, "rent is\n\n500")

    assert (location.page, location.place) == (1, "p. 1")
    assert [box[0] for box in location.boxes or ()] == [1, 2]  # type: ignore[index]
    assert below(data, location) == ["rent is", "500"]
    assert where(data, "month").place == "p. 3"


def test_a_hyphenated_word_has_two_boxes() -> None:
    data = build([f"{shown('It has to be har-', x=150, y=200)} {shown('monized now', y=185)}"])

    assert below(data, where(data, "harmonized")) == ["har", "monized"]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_boxes_refer_to_the_page_as_displayed(turn: int) -> None:
    box = f"/Rotate {turn}/CropBox [10 40 280 290]/MediaBox[0 0 300 300]".encode()
    data = build([shown("Wheat", x=50, y=230)]).replace(b"/MediaBox[0 0 300 300]", box)
    page = pypdfium2.PdfDocument(data)[0]
    ink = ImageOps.invert(page.render(scale=10, grayscale=True).to_pil()).getbbox()

    assert ink is not None
    assert where(data, "Wheat").boxes == [[1, *(pytest.approx(x / 10, abs=0.2) for x in ink)]]
    (place,) = pdf.read(data, LIMIT).places
    assert (place.width, place.height) == page.get_size()
