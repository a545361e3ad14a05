"""Builds small office files and PDFs for tests, regular and hostile ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import pypdfium2

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="xml" ContentType="application/xml"/></Types>'
)


def relationships(**targets: str) -> str:
    """Return a .rels part with a target for each kind of relationship; the kind is also the id."""
    entries = "".join(
        f'<Relationship Id="{kind}" Type="{_RELATIONS}/{kind}" Target="{target}"/>'
        for kind, target in targets.items()
    )
    namespace = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{namespace}">{entries}</Relationships>'


def document(body: str, prologue: str = "") -> str:
    """Return a main part with `body`; the namespaces w, r and mc are declared."""
    return (
        f'{prologue}<w:document xmlns:w="{W}" xmlns:r="{_RELATIONS}" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
        f"<w:body>{body}</w:body></w:document>"
    )


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def docx(main: str | bytes, parts: Mapping[str, str | bytes] | None = None) -> bytes:
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": _CONTENT_TYPES,
        "_rels/.rels": relationships(officeDocument="word/document.xml"),
        "word/document.xml": main,
        **(parts or {}),
    }
    return archive(members)


def presentation(*slides: str, parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """Return a PPTX whose slides have these shapes, stored in reverse order."""
    drawing = "http://schemas.openxmlformats.org/drawingml/2006/main"
    namespaces = f'xmlns:a="{drawing}" xmlns:p="urn:p" xmlns:r="{_RELATIONS}"'
    names = [f"slide{len(slides) - index}" for index in range(len(slides))]
    listed = "".join(f'<p:sldId id="{256 + n}" r:id="{name}"/>' for n, name in enumerate(names))
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": _CONTENT_TYPES,
        "_rels/.rels": relationships(officeDocument="ppt/presentation.xml"),
        "ppt/presentation.xml": f"<p:presentation {namespaces}>{listed}</p:presentation>",
        "ppt/_rels/presentation.xml.rels": relationships(
            **{name: f"slides/{name}.xml" for name in names}
        ),
    }
    for name, shapes in zip(names, slides, strict=True):
        members[f"ppt/slides/{name}.xml"] = f"<p:sld {namespaces}>{shapes}</p:sld>"
    return archive({**members, **(parts or {})})


def shape(text: str, placeholder: str = "body") -> str:
    return (
        f'<p:sp><p:nvPr><p:ph type="{placeholder}"/></p:nvPr>'
        f"<p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"
    )


def workbook(sheets: Mapping[str, Sequence[Sequence[str | float]]], last: str = "") -> bytes:
    """Return an XLSX with these rows, and with one more cell if `last` is given."""
    namespace = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    listed = "".join(
        f'<sheet name="{name}" sheetId="{number}" r:id="s{number}"/>'
        for number, name in enumerate(sheets, start=1)
    )
    relations = "".join(
        f'<Relationship Id="s{number}" Type="{_RELATIONS}/worksheet" Target="s{number}.xml"/>'
        for number in range(1, len(sheets) + 1)
    )
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": _CONTENT_TYPES,
        "_rels/.rels": relationships(officeDocument="xl/workbook.xml"),
        "xl/workbook.xml": f'<workbook xmlns="{namespace}" xmlns:r="{_RELATIONS}">'
        f"<sheets>{listed}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">{relations}'
        "</Relationships>",
    }
    far = f'<row r="{last.lstrip(_LETTERS)}"><c r="{last}"><v>1</v></c></row>' if last else ""
    for number, rows in enumerate(sheets.values(), start=1):
        body = "".join(_row(row, at) for at, row in enumerate(rows, start=1)) + far
        members[f"xl/s{number}.xml"] = (
            f'<worksheet xmlns="{namespace}"><sheetData>{body}</sheetData></worksheet>'
        )
    return archive(members)


def _row(cells: Sequence[str | float], number: int) -> str:
    written = "".join(
        f'<c r="{chr(65 + column)}{number}" t="inlineStr"><is><t>{cell}</t></is></c>'
        if isinstance(cell, str)
        else f'<c r="{chr(65 + column)}{number}"><v>{cell}</v></c>'
        for column, cell in enumerate(cells)
    )
    return f'<row r="{number}">{written}</row>'


def open_document(body: str, kind: str = "text", manifest: str = "<m/>") -> bytes:
    """Return an OpenDocument file with this body; text, table, draw and office are declared."""
    names = ("office", "text", "table", "draw", "presentation")
    declared = " ".join(f'xmlns:{name}="urn:{name}"' for name in names)
    return archive(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": f"<office:document {declared}>{body}</office:document>",
            "META-INF/manifest.xml": f'<!DOCTYPE m PUBLIC "-" "Manifest.dtd">{manifest}',
            "meta.xml": "<m><title xmlns='urn:dc'>Minutes</title></m>",
        }
    )


def book(chapters: Mapping[str, str], parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """Return an EPUB of these chapters, listed in reverse order."""
    items = "".join(f'<item id="{name}" href="{name}.xhtml"/>' for name in reversed(list(chapters)))
    order = "".join(f'<itemref idref="{name}"/>' for name in chapters)
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<c><rootfile full-path="OPS/book.opf"/></c>',
        "OPS/book.opf": f"<package><title>Tides</title>{items}<spine>{order}</spine></package>",
    }
    for name, body in chapters.items():
        members[f"OPS/{name}.xhtml"] = f"<!DOCTYPE html><html><body>{body}</body></html>"
    return archive({**members, **(parts or {})})


def archive(members: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in members.items():
            writer.writestr(name, content)
    return buffer.getvalue()


def pdf(pages: Sequence[str]) -> bytes:
    """Return a PDF with one content stream of PDF operators per page, and Helvetica as /F1."""
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for index, content in enumerate(pages):
        objects.append(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]"
            f"/Resources<</Font<</F1 3 0 R>>>>/Contents {5 + 2 * index} 0 R>>"
        )
        objects.append(f"<</Length {len(content)}>>\nstream\n{content}\nendstream")
    return _with_cross_references(objects)


def form(content: str, values: Mapping[str, str]) -> bytes:
    """Return a PDF with a page of operators, and a field of an AcroForm for each value."""
    fields = [
        f"<</Type/Annot/Subtype/Widget/FT/Tx/T({name})/V({value})/P 4 0 R/F 4"
        f"/Rect[50 {200 - 20 * number} 250 {215 - 20 * number}]>>"
        for number, (name, value) in enumerate(values.items())
    ]
    listed = " ".join(f"{6 + number} 0 R" for number in range(len(fields)))
    contents = "/Resources<</Font<</F1 3 0 R>>>>/Contents 5 0 R"
    return _with_cross_references(
        [
            f"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[{listed}]>>>>",
            "<</Type/Pages/Kids[4 0 R]/Count 1>>",
            "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]{contents}/Annots[{listed}]>>",
            f"<</Length {len(content)}>>\nstream\n{content}\nendstream",
            *fields,
        ]
    )


def joined(*files: bytes) -> bytes:
    """Return a PDF with the pages of all given PDFs."""
    whole, stream = pypdfium2.PdfDocument.new(), io.BytesIO()
    for file in files:
        whole.import_pages(pypdfium2.PdfDocument(file))
    whole.save(stream)
    return stream.getvalue()


def scan(text: str) -> bytes:
    """Return a PDF with one page, which is a picture of the text."""
    bitmap = pypdfium2.PdfDocument(pdf([shown(text)]))[0].render(scale=3, grayscale=True)
    size = f"/Width {bitmap.stride}/Height {bitmap.height}"
    pixels = bytes(bitmap.buffer).hex()
    picture = (
        f"<</Type/XObject/Subtype/Image{size}/ColorSpace/DeviceGray/BitsPerComponent 8"
        f"/Filter/ASCIIHexDecode/Length {len(pixels) + 1}>>\nstream\n{pixels}>\nendstream"
    )
    content = "300 0 0 300 0 0 cm /I Do"
    resources = "/Resources<</XObject<</I 5 0 R>>>>"
    return _with_cross_references(
        [
            "<</Type/Catalog/Pages 2 0 R>>",
            "<</Type/Pages/Kids[3 0 R]/Count 1>>",
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]{resources}/Contents 4 0 R>>",
            f"<</Length {len(content)}>>\nstream\n{content}\nendstream",
            picture,
        ]
    )


def picture_page(painted: str, content: str, form: str = "") -> bytes:
    """Return a PDF with one page; it may use a font /F1, a picture /I, a form /X, and /P."""
    content = f"q {painted} Q {content}"
    fonts = "/Font<</F1 4 0 R>>"
    resources = f"/Resources<<{fonts}/XObject<</I 6 0 R/X 7 0 R>>/Pattern<</P 8 0 R>>>>"
    pixel = "/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8/Filter/ASCIIHexDecode"
    box = "/BBox[0 0 300 300]"
    head = f"/Type/XObject/Subtype/Form{box}/Resources<<{fonts}>>/Length {len(form)}"
    colors = "/FunctionType 2/Domain[0 1]/C0[1 0 0]/C1[0 0 1]/N 1"
    axis = "/ShadingType 2/ColorSpace/DeviceRGB/Coords[0 0 300 0]"
    return _with_cross_references(
        [
            "<</Type/Catalog/Pages 2 0 R>>",
            "<</Type/Pages/Kids[3 0 R]/Count 1>>",
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]{resources}/Contents 5 0 R>>",
            "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            f"<</Length {len(content)}>>\nstream\n{content}\nendstream",
            f"<</Type/XObject/Subtype/Image{pixel}/Length 3>>\nstream\nff>\nendstream",
            f"<<{head}>>\nstream\n{form}\nendstream",
            f"<</Type/Pattern/PatternType 2/Shading<<{axis}/Function<<{colors}>>>>>>",
        ]
    )


def shown(text: str, x: int = 20, y: int = 200) -> str:
    """Return the PDF operators that show a line of text at a position of the page."""
    return f"BT /F1 12 Tf {x} {y} Td ({text}) Tj ET"


def _with_cross_references(objects: Sequence[str]) -> bytes:
    output = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(output))
        output += f"{number} 0 obj\n{content}\nendobj\n".encode()
    start = len(output)
    output += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    output += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
    trailer = f"trailer\n<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n"
    return bytes(output + trailer.encode())
