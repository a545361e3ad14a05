"""The untrusted XML parts in the ZIP of an office document, and the walk through their text."""

from __future__ import annotations

import io
import lzma
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from xml.etree.ElementTree import Element, TreeBuilder

from lxml import etree

from chordwise.errors import ReadError
from chordwise.readers import failures
from chordwise.readers.reader_output import Source, markdown

_MEMBERS = 10_000
_PART_BYTES = 256 * 1024 * 1024
# Typical XML shrinks to a tenth, repetitive tables to a hundredth; deflate's limit is a thousandth.
_RATIO = 150
_RATIO_FROM_BYTES = 16 * 1024 * 1024
ENCRYPTED_FLAG = 1
_SLICE = 65_536
# Pictures, charts, embedded objects, controls, ink and comments, but not the picture of the file.
_UNREAD_PARTS = re.compile(
    r"\b(?:media|embeddings|charts|chartsheets|diagrams|drawings|ctrlProps|activeX|ink|Pictures)/"
    r"|\b(?:comments|threadedComment|Object \d)|\.(?:png|jpe?g|gif|svg|emf|wmf|bmp|tiff?|webp)$",
    re.IGNORECASE,
)
_PREVIEWS = ("docProps/", "Thumbnails/")
_PROLOGUE_BYTES = 4_096
DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError, OSError, ValueError),
)
"""What the libraries raise for a damaged archive."""


def opened_zip(source: Source, kind: str) -> zipfile.ZipFile:
    """Open an archive, which is a `kind` in messages.

    Raises:
        ReadError: It is damaged.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except DAMAGES as error:
        raise failures.malformed(f"is a damaged {kind}.") from error


class PartTarget:
    """Receives the elements of a part; attributes have their namespaces in braces.

    Subclasses have the methods of lxml's target parser interface that they need.
    """

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        """Reject the part with a `ReadError`."""
        raise _document_type()

    def close(self) -> None:
        """Do nothing; the parser requires this method."""


class _Tree(TreeBuilder):
    doctype = PartTarget.doctype

    def start(self, tag: str, attributes: Mapping[str, str], /) -> Element:
        return super().start(tag, dict(attributes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Relationship:
    """The target of a relationship of a part."""

    kind: str
    target: str


class OfficePackage:
    """The parts of an office document (ECMA-376, part 2; OpenDocument and EPUB are similar).

    All methods raise a `ReadError` if a part is missing or damaged, or has a document type.
    """

    def __init__(
        self,
        data: Source,
        kind: str = "DOCX",
        *,
        parsed: tuple[str, ...] = (".xml", ".rels"),
        has_document_types: bool = False,
    ) -> None:
        """Check the members before any of them is unpacked.

        Only parts with the file extensions `parsed` may be read. With `has_document_types`, only
        document types of parts that are parsed as XML are rejected.

        Raises:
            ReadError: It is damaged, encrypted, a ZIP bomb, or has a document type declaration.
        """
        self._archive = opened_zip(data, f"{kind} file")
        self._parsed = parsed
        self._has_document_types = has_document_types
        members = self._archive.infolist()
        if len(members) > _MEMBERS:
            raise _bomb(f"is an archive of more than {_MEMBERS:,} parts.")
        for member in members:
            self._check(member)

    def __contains__(self, name: str) -> bool:
        return name in self._archive.NameToInfo

    @property
    def is_partial(self) -> bool:
        """Whether it shows more than text, such as a picture, a chart, a control or a comment."""
        names = self._archive.namelist()
        return any(_UNREAD_PARTS.search(name) and not name.startswith(_PREVIEWS) for name in names)

    def content(self, part: str) -> bytes:
        """Return the bytes of a part."""
        return b"".join(self._pieces(part))

    def relationships(self, part: str) -> dict[str, Relationship]:
        """Return the relationships of `part` by their ids; the empty name is the package."""
        folder, name = posixpath.split(part)
        listing = posixpath.join(folder, "_rels", f"{name}.rels")
        listed = self.elements(listing, "Relationship") if listing in self else []
        return {
            element.get("Id", ""): Relationship(
                kind=element.get("Type", "").rpartition("/")[2],
                target=posixpath.normpath(
                    posixpath.join("/", folder, element.get("Target", ""))
                ).lstrip("/"),
            )
            for element in listed
            if element.get("TargetMode") != "External"
        }

    def related(self, relationships: Mapping[str, Relationship], kind: str) -> list[str]:
        """Return the names of the existing parts with this kind of relationship."""
        targets = (other.target for other in relationships.values() if other.kind == kind)
        return [target for target in targets if target in self]

    def main_part(self) -> str:
        """Return the name of the part with the content; empty if there is none."""
        return next(iter(self.related(self.relationships(""), "officeDocument")), "")

    def elements(self, part: str, *names: str) -> list[Element]:
        """Return the elements of a part with these local names, in their order."""
        tree = _Tree()
        self.parse(part, tree)
        return [element for element in tree.close().iter() if local(element.tag) in names]

    def title(self, part: str) -> str:
        """Return the title in a part with metadata; empty if there is none."""
        return next((title.text for title in self.elements(part, "title") if title.text), "")

    def parse(self, part: str, target: PartTarget | TreeBuilder) -> None:
        """Feed a part to the target in pieces."""
        parser = etree.XMLParser(
            target=target,  # type: ignore[arg-type]  # the stubs expect bytes, too
            resolve_entities=False,
            load_dtd=False,
            no_network=True,
            huge_tree=False,
        )
        try:
            for piece in self._pieces(part):
                parser.feed(piece)
            parser.close()
        except etree.XMLSyntaxError as error:
            raise failures.malformed(f"is damaged: its part {part} is not valid XML.") from error

    def _pieces(self, part: str) -> Iterator[bytes]:
        """Yield the bytes of a part; `zipfile` never returns more than the member declares."""
        try:
            with self._archive.open(part) as stream:
                while piece := stream.read(_SLICE):
                    yield piece
        except KeyError as error:
            raise failures.malformed(f"is damaged: its part {part} is missing.") from error
        except DAMAGES as error:
            raise failures.malformed(f"is damaged: its part {part} cannot be unpacked.") from error

    def _check(self, member: zipfile.ZipInfo) -> None:
        if member.flag_bits & ENCRYPTED_FLAG:
            raise failures.encrypted()
        if not member.filename.lower().endswith(self._parsed):
            return
        ratio = member.file_size / max(1, member.compress_size)
        if member.file_size > _PART_BYTES or (
            member.file_size > _RATIO_FROM_BYTES and ratio > _RATIO
        ):
            raise _bomb(f"unpacks to {member.file_size:,} bytes in one part: a ZIP bomb.")
        if self._has_document_types:
            return
        # Text after an entity of a DTD would be lost silently, so no part may have a DTD.
        prologue = next(self._pieces(member.filename), b"")[:_PROLOGUE_BYTES]
        if "<!DOCTYPE" in prologue.replace(b"\0", b"").decode("latin-1").upper():
            raise _document_type()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """The local names of the elements of a format, by their role in the text.

    Everything within `skipped` elements is left out, and `signs` stand for characters. `blocks`
    contain paragraphs, like a table, a cell and a note. With `texts`, only characters within these
    elements count, otherwise all within paragraphs.
    """

    skipped: frozenset[str]
    signs: Mapping[str, str]
    paragraphs: tuple[str, ...] = ("p",)
    texts: tuple[str, ...] = ()
    table: str
    row: str
    cell: str
    blocks: tuple[str, ...] = ()


@dataclass(slots=True)
class Block:
    """An open element with its finished paragraphs; a table has rows.

    A cell may be `repeated`, and may span several `columns`.
    """

    name: str = ""
    texts: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    repeated: int = 1
    columns: int = 1


class Story(PartTarget):
    """Collects the displayed text of a part by the roles of its tags, in one pass.

    Subclasses have the tags of a format, and override what is special about it.
    """

    tags: ClassVar[Tags]

    def __init__(self, spend: Callable[[int], None]) -> None:
        """Call `spend` with the length of each text, which raises a `ReadError` at the limit."""
        self.spend = spend
        # The story itself, then its open blocks; and the text outside of paragraphs, then in them.
        self.blocks = [Block()]
        self.paragraphs: list[list[str]] = [[]]
        self.texts = self.blocks[0].texts
        self._skipped = 0
        self._in_text = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Handle the start of an element."""
        name, tags = local(tag), self.tags
        if self._skipped or name in tags.skipped:
            self._skipped += 1
            self.skip(name, attributes)
            return
        if name in tags.signs:
            self.write(tags.signs[name])
        elif name in tags.paragraphs:
            self.paragraphs.append([])
        elif name in tags.texts:
            self._in_text = True
        elif name in (tags.table, tags.cell, *tags.blocks):
            self.blocks.append(Block(name))
        elif name == tags.row and self.blocks[-1].name == tags.table:
            self.blocks[-1].rows.append([])
        self.open(name, attributes)

    def end(self, tag: str) -> None:
        """Handle the end of an element."""
        name, tags = local(tag), self.tags
        if self._skipped:
            self._skipped -= 1
            return
        if name in tags.paragraphs:
            self.end_paragraph("".join(self.paragraphs.pop()))
        elif name in tags.texts:
            self._in_text = False
        elif name in (tags.table, tags.cell, *tags.blocks):
            self.end_block(self.blocks.pop())
        self.closed(name)

    def data(self, text: str) -> None:
        """Handle a piece of text; the parser may split text anywhere."""
        is_text = self._in_text if self.tags.texts else len(self.paragraphs) > 1
        if is_text and not self._skipped:
            self.write(text)

    def write(self, text: str) -> None:
        """Append text to the innermost paragraph."""
        self.spend(len(text))
        self.paragraphs[-1].append(text)

    def skip(self, name: str, attributes: Mapping[str, str]) -> None:
        """Handle the start of an element within a skipped one."""

    def open(self, name: str, attributes: Mapping[str, str]) -> None:
        """Handle what is special about an element that has begun."""

    def closed(self, name: str) -> None:
        """Handle what is special about an element that has ended."""

    def end_paragraph(self, text: str) -> None:
        """Add a finished paragraph to the innermost block, unless it is blank."""
        if text.strip():
            self.blocks[-1].texts.append(text)

    def end_block(self, block: Block) -> None:
        """Add the text of a finished block to its row, or to the block around it."""
        texts = [text for text in block.texts if text.strip()]
        if block.name == self.tags.cell and self.blocks[-1].rows:
            cells = ["\n".join(texts)] * block.repeated
            self.blocks[-1].rows[-1] += cells + [""] * (block.columns - 1)
            return
        texts += filter(None, [self.table(block.rows)])
        self.blocks[-1].texts += ["\n".join(texts)] if texts else []

    def table(self, rows: Sequence[Sequence[str]]) -> str:
        """Return the text of a table."""
        return markdown(rows, self.spend)


def local(tag: str) -> str:
    """Return the name of an element or attribute without its namespace."""
    return tag.rpartition("}")[2]


def value_of(attributes: Mapping[str, str], name: str) -> str:
    """Return an attribute by its local name, since the strict form has other namespaces."""
    return next((value for key, value in attributes.items() if local(key) == name), "")


def _bomb(what: str) -> ReadError:
    return failures.too_large(what, "Save it again in its own program.", "zip_bomb")


def _document_type() -> ReadError:
    return failures.malformed(
        "contains a document type declaration, which no office program writes."
    )
