"""Access to the XML parts in the ZIP of an office document; both are treated as untrusted."""

from __future__ import annotations

import io
import lzma
import posixpath
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from chordwise.errors import ReadError
from chordwise.readers import failures
from chordwise.readers.reader_output import Source

_MEMBERS = 10_000
_PART_BYTES = 256 * 1024 * 1024
# Typical XML shrinks to a tenth, repetitive tables to a hundredth; deflate's limit is a thousandth.
_RATIO = 150
_RATIO_FROM_BYTES = 16 * 1024 * 1024
_ENCRYPTED_FLAG = 1
_SLICE = 65_536
_PROLOGUE_BYTES = 4_096
_DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, OSError)


class PartTarget:
    """Receives the elements of a part; attributes have their namespaces in braces.

    Subclasses have the methods of lxml's target parser interface that they need.
    """

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        """Reject the part with a `ReadError`."""
        raise _document_type()

    def close(self) -> None:
        """Do nothing; the parser requires this method."""


class TitleTarget(PartTarget):
    """Collects the title from the metadata of a document."""

    def __init__(self) -> None:
        self.text = ""
        self._is_open = False

    def start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        """Handle the start of an element."""
        self._is_open = local(tag) == "title"

    def end(self, _tag: str) -> None:
        """Handle the end of an element."""
        self._is_open = False

    def data(self, text: str) -> None:
        """Handle a piece of text."""
        if self._is_open:
            self.text += text


@dataclass(frozen=True, slots=True, kw_only=True)
class Relationship:
    """The target of a relationship of a part."""

    kind: str
    target: str


class OfficePackage:
    """The parts of an office document (ECMA-376, part 2; OpenDocument and EPUB are similar)."""

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
        try:
            file = io.BytesIO(data) if isinstance(data, bytes) else data
            self._archive = zipfile.ZipFile(file)
        except (*_DAMAGES, ValueError) as error:
            raise failures.malformed(f"is a damaged {kind} file.") from error
        self._parsed = parsed
        self._has_document_types = has_document_types
        members = self._archive.infolist()
        if len(members) > _MEMBERS:
            raise _bomb(f"is an archive of more than {_MEMBERS:,} parts.")
        for member in members:
            self._check(member)

    def __contains__(self, name: str) -> bool:
        return name in self._archive.NameToInfo

    def content(self, part: str) -> bytes:
        """Return the bytes of a part.

        Raises:
            ReadError: The part is missing or damaged.
        """
        return b"".join(self.pieces(part))

    def relationships(self, part: str) -> dict[str, Relationship]:
        """Return the relationships of `part` by their ids; the empty name is the package.

        Raises:
            ReadError: The part is damaged.
        """
        folder, name = posixpath.split(part)
        listing = posixpath.join(folder, "_rels", f"{name}.rels")
        found = _Relationships(folder)
        if listing in self:
            self.parse(listing, found)
        return found.by_id

    def related(self, relationships: Mapping[str, Relationship], kind: str) -> list[str]:
        """Return the names of the existing parts with this kind of relationship."""
        targets = (each.target for each in relationships.values() if each.kind == kind)
        return [target for target in targets if target in self]

    def main_part(self) -> str:
        """Return the name of the part with the content; empty if there is none."""
        return next(iter(self.related(self.relationships(""), "officeDocument")), "")

    def parse(self, part: str, target: PartTarget) -> None:
        """Feed a part to the target in pieces.

        Raises:
            ReadError: The part is missing or damaged, or has a document type declaration.
        """
        parser = etree.XMLParser(
            target=target,  # type: ignore[arg-type]  # the stubs expect bytes, too
            resolve_entities=False,
            load_dtd=False,
            no_network=True,
            huge_tree=False,
        )
        try:
            for piece in self.pieces(part):
                parser.feed(piece)
            parser.close()
        except etree.XMLSyntaxError as error:
            raise failures.malformed(f"is damaged: its part {part} is not valid XML.") from error

    def pieces(self, part: str) -> Iterator[bytes]:
        """Yield the bytes of a part; `zipfile` never returns more than the member declares.

        Raises:
            ReadError: The part is missing or damaged.
        """
        try:
            with self._archive.open(part) as stream:
                while piece := stream.read(_SLICE):
                    yield piece
        except KeyError as error:
            raise failures.malformed(f"is damaged: its part {part} is missing.") from error
        except _DAMAGES as error:
            raise failures.malformed(f"is damaged: its part {part} cannot be unpacked.") from error

    def _check(self, member: zipfile.ZipInfo) -> None:
        if member.flag_bits & _ENCRYPTED_FLAG:
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
        prologue = next(self.pieces(member.filename), b"")[:_PROLOGUE_BYTES]
        if "<!DOCTYPE" in prologue.replace(b"\0", b"").decode("latin-1").upper():
            raise _document_type()


class _Relationships(PartTarget):
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.by_id: dict[str, Relationship] = {}

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if not tag.endswith("}Relationship") or attributes.get("TargetMode") == "External":
            return
        target = posixpath.join("/", self._folder, attributes.get("Target", ""))
        self.by_id[attributes.get("Id", "")] = Relationship(
            kind=attributes.get("Type", "").rpartition("/")[2],
            target=posixpath.normpath(target).lstrip("/"),
        )


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
