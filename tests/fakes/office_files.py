"""Builds small DOCX and PDF files for tests, honest and hostile ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="xml" ContentType="application/xml"/></Types>'
)


def relationships(**targets: str) -> str:
    """Return a .rels part: kind of relationship → target; the kind is the id as well."""
    entries = "".join(
        f'<Relationship Id="{kind}" Type="{_RELATIONS}/{kind}" Target="{target}"/>'
        for kind, target in targets.items()
    )
    namespace = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{namespace}">{entries}</Relationships>'


def document(body: str, prologue: str = "") -> str:
    """Return a main part with `body` inside, namespaces w, r and mc declared."""
    return (
        f'{prologue}<w:document xmlns:w="{W}" xmlns:r="{_RELATIONS}" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
        f"<w:body>{body}</w:body></w:document>"
    )


def paragraph(text: str) -> str:
    """Return a paragraph of one run."""
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def docx(main: str | bytes, parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """Return a DOCX with the main part given and any further parts."""
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": _CONTENT_TYPES,
        "_rels/.rels": relationships(officeDocument="word/document.xml"),
        "word/document.xml": main,
        **(parts or {}),
    }
    return archive(members)


def archive(members: Mapping[str, str | bytes]) -> bytes:
    """Return a ZIP archive of the members."""
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


def shown(text: str, x: int = 20, y: int = 200) -> str:
    """Return the PDF operators that show a line of text at a place on the page."""
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
