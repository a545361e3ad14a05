"""Quality: Show the prompts that are sent to models."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, TypeAlias

import typer

from chordwise.cli.command import group
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import (
    AnalysisOptions,
    AnalysisTask,
    AnalysisType,
    PromptTemplate,
    Stage,
)
from chordwise.domain.prompts import Prompt, render
from chordwise.errors import ConfigurationError, ExitCode, UsageError
from chordwise.pipeline.intake.run_options import requested
from chordwise.pipeline.quoting.quote import read_all
from chordwise.prompts import library, packs
from chordwise.readers.discovery import discover
from chordwise.readers.reader import UnreadDocument
from chordwise.readers.reader_output import WHOLE
from chordwise.rendering import layouts
from chordwise.settings import Profile, Settings

Name: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="Such as summary.analyze or summary.analyze@brief.")
]
_HELP = """Show the prompts that are sent to models.

chordwise prompts list

chordwise prompts diff summary.analyze@brief
"""


def list_prompts(invocation: Invocation, *, as_json: AsJson = False) -> ExitCode:
    """List the newest released templates, your own, and the packs.

    chordwise prompts list
    """
    settings, screen = invocation.settings(), invocation.screen
    folder, files = settings.prompts.folder, _user_templates(settings).values()
    errors = [file for file in files if isinstance(file, ConfigurationError)]
    released = [library.latest(name) for name in library.replaceable()]
    templates = [(template, "released") for template in released]
    templates += [(file, str(folder)) for file in files if isinstance(file, PromptTemplate)]
    code = ExitCode.CONFIGURATION if errors else ExitCode.SUCCESS
    if as_json:
        members = [{**_members(template), "origin": origin} for template, origin in templates]
        titles = [{"name": pack.name, "title": pack.title} for pack in packs.all_packs().values()]
        problems = [{"message": error.what, "hint": error.hint} for error in errors]
        screen.write_json(templates=members, packs=titles, problems=problems)
        return code
    rows = [(template.title, template.version, origin) for template, origin in templates]
    screen.show(layouts.folded(("Template", "Version", "From"), rows, ("Version",)))
    descriptions = [(pack.name, pack.title) for pack in packs.all_packs().values()]
    screen.show(layouts.folded(("Pack", "Description"), descriptions, ("Pack",)))
    for error in errors:
        screen.info(f"{error.what} {error.hint}")
    return code


def show(invocation: Invocation, name: Name, *, as_json: AsJson = False) -> None:
    """Show the file of a template, with its variables, or of a pack.

    chordwise prompts show summary.analyze

    chordwise prompts show legal
    """
    if name in packs.all_packs() and not as_json:
        invocation.screen.write(packs.named(name).source)
        return
    template = _find(invocation.settings(), name)
    if as_json:
        invocation.screen.write_json(template=_members(template))
    else:
        invocation.screen.write(f"# {template.version}\n")
        for member, text in (("system", template.system), ("user", template.user)):
            written = f"{json.dumps(text)}\n" if "'''" in text else f"'''\n{text}\n'''\n"
            invocation.screen.write(f"\n{member} = {written}")


def render_prompt(
    invocation: Invocation,
    name: Name,
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="DOCUMENT", help="Documents to fill in.")
    ] = None,
    *,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="Fill in the options of [profiles.NAME].")
    ] = "",
    pack: Annotated[
        str, typer.Option(metavar="NAME", help="Fill in the questions of a pack.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show a prompt as it is sent for a document. No model is called.

    chordwise prompts render summary.analyze@brief letter.txt

    chordwise prompts render extraction.schema.analyze contract.pdf --pack legal
    """
    settings = invocation.settings()
    template = _find(settings, name)
    task = _task(settings, template, profile, pack)
    schema = analysis_for(task.analysis_type).question_schema(task.options)
    rendered = {
        source: render(template, text_task, schema)
        for source, text_task in _about(settings, task, documents or [])
    }
    if as_json:
        members = [{"source": source, "prompt": prompt} for source, prompt in rendered.items()]
        invocation.screen.write_json(prompts=members)
        return
    for source, prompt in rendered.items():
        title = f"{template.version}, {source}" if source else template.version
        invocation.screen.write("".join(_lines(title, prompt)))


def diff(
    invocation: Invocation,
    name: Name,
    other: Annotated[
        str | None,
        typer.Argument(metavar="OTHER", help="Default: the newest released template of that name."),
    ] = None,
) -> None:
    """Show the difference between two templates as a unified diff.

    chordwise prompts diff summary.analyze@brief
    """
    settings = invocation.settings()
    new = _find(settings, name)
    old = _find(settings, other or new.name)
    before, after = (
        list(_lines("", Prompt(system=template.system, user=template.user)))[1:]
        for template in (old, new)
    )
    lines = difflib.unified_diff(before, after, fromfile=old.version, tofile=new.version)
    invocation.screen.write("".join(lines))


prompts = group(_HELP, list=list_prompts, show=show, render=render_prompt, diff=diff)


def _user_templates(settings: Settings) -> Mapping[str, PromptTemplate | ConfigurationError]:
    """Return each template in the user's folder by its file name, or the error if it is invalid."""
    folder = settings.prompts.folder
    return library.examined(settings.base_folder / folder) if folder else {}


def _find(settings: Settings, name: str) -> PromptTemplate:
    """Return the template with a name; without a version, the newest released one."""
    released = library.released().values()
    if "@" in name:
        files = _user_templates(settings)
        if isinstance(error := files.get(name), ConfigurationError):
            raise error
        usable = (file for file in files.values() if isinstance(file, PromptTemplate))
        templates = {template.title: template for template in (*released, *usable)}
    else:
        templates = {template.name: library.latest(template.name) for template in released}
    if name not in templates:
        hint = "`chordwise prompts list` shows all templates."
        raise UsageError(f"There is no prompt template “{name}”.", hint)
    return templates[name]


def _task(settings: Settings, template: PromptTemplate, profile: str, pack: str) -> AnalysisTask:
    """Return the task of a template with the options of a profile or pack, without a text."""
    if template.name not in library.replaceable():
        raise UsageError(
            f"{template.name} is only a part of other prompts and cannot be rendered.",
            f"Show it with: chordwise prompts show {template.name}",
        )
    kind = AnalysisType(template.name.partition(".")[0])
    options = AnalysisOptions()
    if profile or pack:
        profile_options = Profile(pack=pack, types=[kind]) if pack else Profile()
        options = requested(settings, profile_options, {"profile": profile}).analysis_of(kind)
    if kind == AnalysisType.EXTRACTION:
        is_own = template.name.startswith("extraction.schema.")
        schema = options.schema or {"type": "object"} if is_own else None
        options = replace(options, schema=schema)
    stage = Stage.SYNTHESIZE if template.name.endswith(Stage.SYNTHESIZE) else Stage.ANALYZE
    return AnalysisTask(analysis_type=kind, stage=stage, options=options)


def _about(
    settings: Settings, task: AnalysisTask, documents: Sequence[str]
) -> Iterator[tuple[str, AnalysisTask]]:
    if not documents:
        yield "", task
        return
    if task.stage is Stage.SYNTHESIZE:
        raise UsageError("A synthesis prompt contains no document.", "Omit DOCUMENT.")
    for document in read_all(settings, discover(documents), WHOLE):
        if isinstance(document, UnreadDocument):
            raise document.error
        yield document.source, replace(task, text=document.content.text)


def _lines(title: str, prompt: Prompt) -> Iterator[str]:
    yield f"# {title}\n"
    for name in ("system", "user"):
        yield f"\n[{name}]\n"
        yield from f"{getattr(prompt, name)}\n".splitlines(keepends=True)


def _members(template: PromptTemplate) -> dict[str, object]:
    return {name: getattr(template, name) for name in ("title", "version", "system", "user")}
