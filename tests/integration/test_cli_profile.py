"""Tests of `chordwise profile init`, which writes a profile that the next command uses."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path

import pytest

from chordwise.domain.identifiers import split_commas
from chordwise.errors import ExitCode
from chordwise.pipeline import profile_drafts
from chordwise.prompts import packs
from tests.fakes.commands import output_of, run
from tests.fakes.scripted_model import ScriptedModel

pytestmark = pytest.mark.usefixtures("addressed")
CONTRACT = "Supply agreement\n\nThe annual fee is EUR 500. It is governed by the law of Norway.\n"


@pytest.fixture(autouse=True)
def _contract(tmp_path: Path) -> None:
    """Write an example."""
    (tmp_path / "contract.txt").write_text(CONTRACT, "utf-8")


def written(tmp_path: Path, *arguments: str) -> str:
    """Write a profile, run the command that is proposed, and return the file."""
    proposed = output_of("profile", "init", "my contracts", *arguments).err.splitlines()[-1]
    line = shlex.split(proposed.replace("DOCUMENTS", "contract.txt"))[1:]
    assert run([*line, "--model", "extractive", "--no-wait"]) == ExitCode.SUCCESS
    return (tmp_path / "chordwise.toml").read_text("utf-8")


def test_a_question_becomes_a_profile(tmp_path: Path) -> None:
    text = written(tmp_path, "--items", "annual fee: money, parties (all, with roles): list")

    (profile,) = tomllib.loads(text)["profiles"].values()
    assert profile["items"] == ["annual fee: money", "parties (all, with roles): list"]
    answer = output_of("sql", "--json", "SELECT annual_fee FROM answers.my_contracts")
    assert json.loads(answer.out)["rows"] == [{"annual_fee": None}]


def test_a_pack_becomes_a_profile_with_its_fields_as_comments(tmp_path: Path) -> None:
    for pack in packs.all_packs():
        text = written(tmp_path, "contract.txt", "--force", "--pack", pack)

        assert f'pack = "{pack}"' in text
        uncommented = text.replace("# items", "items").replace("# ]", "]").replace("#     ", "    ")
        (profile,) = tomllib.loads(uncommented)["profiles"].values()
        assert profile["items"] == list(profile_drafts.of_pack(pack))
        (tmp_path / "chordwise.toml").write_text(uncommented, "utf-8")
        quoted = output_of("quote", "contract.txt", "--profile", "my contracts", "--json").out
        assert {line["questions"] for line in json.loads(quoted)["lines"]} == {1}


def test_a_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "chordwise.toml").write_text("# mine\n", "utf-8")

    refused = output_of("profile", "init", "x", "--items", "fee", code=ExitCode.USAGE)

    assert "copy it: --output x.toml" in refused.err
    assert (tmp_path / "chordwise.toml").read_text("utf-8") == "# mine\n"
    assert run(["profile", "init", "x", "--items", "fee", "--force"]) == ExitCode.SUCCESS
    assert "[profiles.x]" in (tmp_path / "chordwise.toml").read_text("utf-8")


@pytest.mark.parametrize("arguments", [(), ("contract.txt",), ("--items", "fee: dollars")])
def test_nothing_is_written_without_a_question(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The built-in model proposes no items."""
    refused = output_of("profile", "init", "x", *arguments, code=ExitCode.USAGE)

    assert "Hint: " in refused.err
    assert not (tmp_path / "chordwise.toml").exists()


def test_a_model_proposes_the_items_of_most_documents_first() -> None:
    model = ScriptedModel([proposals("Term:text, Annual_Fee:money"), proposals("annual fee:money")])

    listed = profile_drafts.proposed(model, [CONTRACT, CONTRACT.upper()])

    assert listed == ["annual fee: money", "term: text"]
    assert tomllib.loads(profile_drafts.toml("x", listed))["profiles"]["x"]["items"] == listed


def proposals(listed: str) -> str:
    pairs = (pair.split(":") for pair in split_commas(listed))
    fields = [{"name": name, "type": kind} for name, kind in pairs]
    return json.dumps({"data": {"fields": fields}, "evidence": []})
