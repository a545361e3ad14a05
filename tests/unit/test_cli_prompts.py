"""Tests of `chordwise prompts`: custom templates beside the released ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chordwise.errors import ExitCode
from chordwise.prompts import library, packs
from tests.fakes.commands import output_of, run

SETTINGS = """
[prompts]
folder = "prompts"

[profiles.bills]
types = ["classification"]
labels = ["invoice", "reminder"]
"""
OWN = """system = '''
In short: $instructions
$schema
'''

user = '''
$mark
$text
$mark
'''
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder whose settings name a prompt folder with one template."""
    (tmp_path / "chordwise.toml").write_text(SETTINGS, "utf-8")
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "summary.analyze@brief.toml").write_text(OWN, "utf-8")
    monkeypatch.chdir(tmp_path)
    return prompts


def test_custom_templates_are_listed_with_the_released_ones() -> None:
    shown = json.loads(output_of("prompts", "list", "--json").out)

    templates = shown["templates"]
    (replacement,) = (template for template in templates if template["origin"] == "prompts")
    assert replacement["version"].startswith("summary.analyze@brief-")
    assert len(templates) == len(library.replaceable()) + 1
    assert [pack["name"] for pack in shown["packs"]] == list(packs.all_packs())
    assert output_of("prompts", "show", "legal").out == packs.named("legal").source


@pytest.mark.parametrize("text", ["", "Not ''' \\n \"\"\"\n"])
def test_the_output_of_show_is_a_valid_template_file(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved in the folder, it is the same template."""
    user = json.dumps(f"{text}$mark\n$text\n$mark")
    system, _, _ = OWN.partition("user")
    (folder / "summary.analyze@brief.toml").write_text(f"{system}user = {user}\n", "utf-8")
    printed = output_of("prompts", "show", "summary.analyze@brief").out

    (folder / "summary.analyze@copy.toml").write_text(printed, "utf-8")

    assert run(["prompts", "diff", "summary.analyze@copy", "summary.analyze@brief"]) == 0
    assert capsys.readouterr().out == ""


def test_a_prompt_is_rendered_for_a_document(tmp_path: Path) -> None:
    """It includes the options of a profile or the labels of a pack; no service is started."""
    (tmp_path / "bill.txt").write_text("Please pay $instructions.", "utf-8")

    shown = output_of(
        "prompts", "render", "classification.analyze", "bill.txt", "--profile", "bills"
    ).out

    assert "one of these labels: invoice, reminder" in shown
    assert "Please pay $instructions." in shown
    assert run(["prompts", "render", "summary.synthesize", "bill.txt"]) == ExitCode.USAGE
    packed = output_of("prompts", "render", "classification.analyze", "--pack", "legal").out
    assert all(label in packed for label in packs.named("legal").labels)
    assert run(["prompts", "render", "summary.analyze", "--pack", "no"]) == ExitCode.USAGE


def test_a_template_is_compared_with_the_newest_released_one() -> None:
    """Another one can be named; the output shows the lines that differ."""
    shown = output_of("prompts", "diff", "summary.analyze@brief").out

    assert shown.startswith(f"--- {library.latest('summary.analyze').version}\n")
    assert "\n+In short: $instructions\n" in shown
    assert output_of("prompts", "diff", "summary.analyze@brief", "summary.analyze@brief").out == ""


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("summary.analyze@brief.toml", OWN.replace("$schema", "$shema"), "line 3: there is no"),
        ("summary.analyze@brief.toml", OWN.replace("$schema", ""), r"missing: $schema"),
        ("summary.analyze@brief.toml", "system = 'x'", "has no user"),
        ("summary.analyze@brief.toml", "system = x", "not valid TOML"),
        ("summary.analyse@brief.toml", OWN, "can be replaced"),
        ("repair@brief.toml", OWN, "can be replaced"),
        ("summary.analyze@3.toml", OWN, "has a number"),
        ("summary.toml", OWN, "is not the name"),
    ],
)
def test_an_invalid_template_is_rejected(
    folder: Path, name: str, content: str, complaint: str
) -> None:
    (folder / name).write_text(content, "utf-8")

    said = output_of("prompts", "list", code=ExitCode.CONFIGURATION).err

    assert complaint in said
    assert name in said


def test_a_missing_template_is_named_in_the_error() -> None:
    printed = output_of("prompts", "show", "summary.analyze@none", code=ExitCode.USAGE).err
    assert "prompts list" in printed


def test_an_invalid_template_does_not_hide_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is listed with its error, and the exit code reports it."""
    (folder / "summary.analyze@long.toml").write_text("system = 1", "utf-8")
    (folder / "summary.analyze@wild.toml").write_bytes(b"\xff\xfe")

    as_json = run(["prompts", "list", "--json"])
    listed = json.loads(capsys.readouterr().out)
    code = run(["prompts", "list"])

    assert (as_json, code) == (ExitCode.CONFIGURATION, ExitCode.CONFIGURATION)
    assert [template["title"] for template in listed["templates"]][-1] == "summary.analyze@brief"
    assert len(listed["problems"]) == 2
    assert "summary.analyze@wild.toml" in capsys.readouterr().err
    assert run(["prompts", "diff", "summary.analyze@brief"]) == ExitCode.SUCCESS
    assert run(["prompts", "diff", "summary.analyze@long"]) == ExitCode.CONFIGURATION
