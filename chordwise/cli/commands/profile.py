"""Tables and reports: Write a profile for a question, a pack or example documents."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.command import group
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import Model
from chordwise.domain import items as item_names
from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.embedded.home import Level
from chordwise.errors import UsageError
from chordwise.pipeline import profile_drafts
from chordwise.pipeline.exports import writers
from chordwise.pipeline.models.model_client import Models
from chordwise.readers.reader import Reader, UnreadDocument

_HELP = """Write a profile: the options of a question in chordwise.toml.

chordwise profile init contracts --items "annual fee: money, parties: list"

chordwise profile init contracts a.pdf b.pdf c.pdf
"""


def init(  # noqa: PLR0913 - the options of a command
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the profile.")],
    documents: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DOCUMENT", help="Examples, for which the model proposes items."),
    ] = None,
    *,
    items: Annotated[str, typer.Option(metavar="NAME:TYPE,NAME", help="Items to ask for.")] = "",
    pack: Annotated[
        str, typer.Option(metavar="NAME", help="Use a question pack: legal, financial, …")
    ] = "",
    model: Model = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")
    ] = Path("chordwise.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Write a commented chordwise.toml from a question, a pack or up to three documents.

    chordwise profile init contracts --pack legal
    """
    usual = Path("chordwise.toml")
    if output == usual and usual.exists() and not force:
        hint = f"Write it to a file of its own and copy it: --output {shlex.quote(name)}.toml"
        raise UsageError(f"{usual} already exists; --force replaces all of it.", f"{hint}.")
    writers.check(output, overwrite=force)
    listed: Sequence[str] = item_names.split(items)
    item_names.check(AnalysisOptions(items=tuple(listed)))
    if documents and not listed:
        listed = _proposed(invocation, documents[:_MAX_EXAMPLES], model)
    if listed:
        pack = ""
    elif pack:
        listed = profile_drafts.of_pack(pack)
    else:
        raise UsageError(
            "The built-in model proposes no items." if documents else "Nothing to ask is given.",
            "Give --items or --pack, or connect a language model.",
        )
    with writers.new_file(output, overwrite=force) as file:
        file.write(profile_drafts.toml(name, listed, pack).encode())
    # --config would replace the models of the usual file.
    is_part = output != usual and usual.exists()
    then = f"copy it into {usual}" if is_part else "change it"
    invocation.screen.info(f"Wrote the profile {name} to {output}. Check it, {then}, and run:")
    config = "" if is_part or output == usual else f"--config {shlex.quote(str(output))} "
    paths = shlex.join(map(str, documents or ())) or "DOCUMENTS"
    invocation.screen.suggest(f"chordwise {config}analyze {paths} --profile {shlex.quote(name)}")


_MAX_EXAMPLES = 3


def _proposed(
    invocation: Invocation, documents: Sequence[Path], model: str | None
) -> Sequence[str]:
    settings = invocation.settings()
    chosen = model or settings.model
    settings = access.with_model(invocation, settings, chosen)
    if not Models(settings).open(chosen).profile.understands_language:
        return ()
    settings = access.reach(invocation, settings, Level.ALL)
    texts = []
    with Reader(settings.readers) as reader:
        for path in documents:
            read = reader.read(path)
            if isinstance(read, UnreadDocument):
                raise read.error
            texts.append(read.content.text)
    return profile_drafts.proposed(Models(settings).open(chosen), texts)


profile = group(_HELP, init=init)
