"""Files that attack their readers; all but one have at most a few megabytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import repeat

from tests.fakes.office_files import archive, document, docx, paragraph

_MEGABYTE = 1_048_576
_ENTITIES = "".join(
    f'<!ENTITY l{n} "&l{n - 1};&l{n - 1};&l{n - 1};&l{n - 1};">' for n in range(1, 20)
)
_LAUGHS = f'<!DOCTYPE d [<!ENTITY l0 "ha">{_ENTITIES}]>'
_EXTERNAL = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
_PAGES = "<</Type/Pages/Kids[3 0 R]/Count 1>>"
_PAGE = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R>>"


def zip_bomb() -> bytes:
    """Return a DOCX of half a megabyte whose text has two hundred million characters."""
    return docx(document(paragraph("A" * 200_000_000)))


def billion_laughs() -> bytes:
    """Return a DOCX whose entities expand to a trillion characters."""
    return docx(document(paragraph("&l19;"), _LAUGHS))


def external_entity() -> bytes:
    """Return a DOCX with an entity that refers to a file of the machine."""
    return docx(document(paragraph("A&x;B"), _EXTERNAL))


def nested_archives(levels: int) -> bytes:
    inner = archive({"inner.txt": "The innermost one."})
    for _ in range(levels):
        inner = archive({"inner.zip": inner})
    return inner


def multiplying_archives(megabytes: int) -> bytes:
    """Return a ZIP of ten ZIPs, each with ten files of this many megabytes of equal bytes."""
    inner = archive({f"{number}.txt": bytes(megabytes * _MEGABYTE) for number in range(10)})
    return archive({f"{number}.zip": inner for number in range(10)})


def traversing_archive(text: str) -> bytes:
    """Return a ZIP whose member names lead outside of its folder."""
    names = ("../../etc/x.txt", "/etc/y.txt", "a\\..\\z.txt", "=1+1.txt")
    begin = "A member of an archive is told apart from all others by its number, and this one is"
    return archive({name: f"{begin} {number}. {text}" for number, name in enumerate(names)})


def pdf_of_pages(count: int) -> bytes:
    """Return a PDF with this many empty pages, each a separate object."""
    kids = b" ".join(b"%d 0 R" % number for number in range(3, count + 3))
    pages = b"<</Type/Pages/Kids[" + kids + b"]/Count %d>>" % count
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"
    return _pdf([b"<</Type/Catalog/Pages 2 0 R>>", pages, *repeat(page, count)])


def flate_bomb(megabytes: int) -> bytes:
    """Return a PDF of one page whose content of this many megabytes is compressed twice."""
    packing = zlib.compressobj(1)
    once = b"".join(_packed(packing, megabytes))
    return _of_content(zlib.compress(once), "/Filter[/FlateDecode/FlateDecode]")


def encrypted() -> bytes:
    """Return a PDF that is encrypted with an unknown password."""
    key = "ab" * 32
    extra = f"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<{key}>/U<{key}>>>/ID[<01><01>]"
    return _of_content(b"BT ET", trailer=extra)


def cross_reference_loop() -> bytes:
    """Return a PDF whose cross-reference table names itself as its continuation."""
    whole = _of_content(b"BT ET")
    start = whole.rindex(b"xref\n0 ")
    looping = whole.replace(b"/Root 1 0 R", b"/Root 1 0 R/Prev %d" % start)
    # A parser can only follow the loop, because the position of the catalog is wrong.
    return looping.replace(b"0000000009 00000 n", b"0000000008 00000 n", 1)


def page_tree_loop() -> bytes:
    """Return a PDF whose page tree contains itself."""
    return _of_content(b"BT ET").replace(b"/Kids[3 0 R]", b"/Kids[2 0 R]")


def _packed(packing: zlib._Compress, megabytes: int) -> Iterator[bytes]:
    for _ in range(megabytes):
        yield packing.compress(b"q Q " * (_MEGABYTE // 4))
    yield packing.flush()


def _of_content(content: bytes, entries: str = "", trailer: str = "") -> bytes:
    stream = f"<</Length {len(content)}{entries}>>\nstream\n".encode() + content + b"\nendstream"
    catalog = b"<</Type/Catalog/Pages 2 0 R>>"
    return _pdf([catalog, _PAGES.encode(), _PAGE.encode(), stream], trailer)


def _pdf(objects: list[bytes], trailer: str = "") -> bytes:
    output, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(output))
        output += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    start = len(output)
    output += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    output += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    entries = f"/Size {len(objects) + 1}/Root 1 0 R{trailer}"
    output += f"trailer\n<<{entries}>>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(output)
