"""Builds OLE compound files, and Outlook messages in them, for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TypeAlias

Tree: TypeAlias = Mapping[str, "bytes | Tree"]

_SECTOR = 512
# Shorter streams would need a second allocation table, so all are padded to this size.
_SHORTEST_STREAM = 4096
_END, _FREE, _FAT, _NONE = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF
_ROOT, _STORAGE, _STREAM = 5, 1, 2
_PROPERTIES = "__properties_version1.0"


def message(properties: Mapping[str, str | bytes], *attachments: Tree) -> Tree:
    """Return a message with properties by number and type (`0037001F`), and with attachments."""
    tree: dict[str, bytes | Tree] = {_PROPERTIES: bytes(_SHORTEST_STREAM)}
    for name, value in properties.items():
        tree[f"__substg1.0_{name}"] = _filled(value)
    for number, attachment in enumerate(attachments):
        tree[f"__attach_version1.0_#{number:08X}"] = attachment
    return tree


def attached(name: str, content: bytes | Tree) -> Tree:
    kind = "000D" if isinstance(content, Mapping) else "0102"
    filled = content if isinstance(content, Mapping) else content.ljust(_SHORTEST_STREAM)
    return {"__substg1.0_3707001F": _filled(name), f"__substg1.0_3701{kind}": filled}


def compound_file(tree: Tree) -> bytes:
    """Return the bytes of a compound file ([MS-CFB], version 3)."""
    return _Writer().written(tree)


def _filled(value: str | bytes) -> bytes:
    data = value.encode("utf-16-le") if isinstance(value, str) else value
    return data.ljust(_SHORTEST_STREAM, b"\0")


class _Writer:
    """A compound file that is being written."""

    def __init__(self) -> None:
        self._entries: list[list[int | str]] = []
        self._chains: list[tuple[int, bytes]] = []

    def written(self, tree: Tree) -> bytes:
        self._entries.append(["Root Entry", _ROOT, _NONE, _NONE, _END, 0])
        self._entries[0][3] = self._add_all(tree)
        directory_sectors = -(-len(self._entries) * 128 // _SECTOR)
        sizes = [-(-len(data) // _SECTOR) for _, data in self._chains]
        fat_sectors = -(-(sum(sizes) + directory_sectors + 8) // 127)
        fat = [_FAT] * fat_sectors + _chain(fat_sectors, directory_sectors)
        for (entry, _), size in zip(self._chains, sizes, strict=True):
            self._entries[entry][4] = len(fat)
            fat += _chain(len(fat), size)
        fat += [_FREE] * (fat_sectors * 128 - len(fat))
        body = b"".join(_padded(data) for _, data in self._chains)
        directory = _padded(b"".join(_entry(entry) for entry in self._entries))
        table = struct.pack(f"<{len(fat)}I", *fat)
        return _header(fat_sectors) + table + directory + body

    def _add_all(self, tree: Tree) -> int:
        """Add the contents of a storage as a list of siblings; return the first sibling."""
        first = previous = _NONE
        for name, content in tree.items():
            entry = len(self._entries)
            if isinstance(content, Mapping):
                self._entries.append([name, _STORAGE, _NONE, _NONE, 0, 0])
                self._entries[entry][3] = self._add_all(content)
            else:
                self._entries.append([name, _STREAM, _NONE, _NONE, 0, len(content)])
                self._chains.append((entry, content))
            if previous == _NONE:
                first = entry
            else:
                self._entries[previous][2] = entry
            previous = entry
        return first


def _chain(start: int, length: int) -> list[int]:
    return [*range(start + 1, start + length), _END]


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // _SECTOR) * _SECTOR, b"\0")


def _entry(fields: list[int | str]) -> bytes:
    name, kind, right, child, start, size = fields
    encoded = str(name).encode("utf-16-le") + b"\0\0"
    links = struct.pack("<HBBIII", len(encoded), int(kind), 1, _NONE, int(right), int(child))
    place = struct.pack("<IQ", int(start), int(size))
    return encoded.ljust(64, b"\0") + links + bytes(36) + place


def _header(fat_sectors: int) -> bytes:
    start = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    kind = (0x3E, 3, 0xFFFE, 9, 6)
    places = (0, fat_sectors, fat_sectors, 0, _SHORTEST_STREAM, _END, 0, _END, 0)
    fixed = struct.pack("<5H6x9I", *kind, *places)
    table = [*range(fat_sectors), *[_FREE] * (109 - fat_sectors)]
    return start + fixed + struct.pack("<109I", *table)
