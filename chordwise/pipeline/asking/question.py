"""A question to a model, and the policy that limits how often and how long it is asked."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from chordwise.domain import critique, field_groups, items, outline, tokens, validation
from chordwise.domain.analysis import AnalysisDefinition
from chordwise.domain.analysis_tasks import (
    AnalysisOptions,
    AnalysisTask,
    AnalysisType,
    PromptTemplate,
    Stage,
)
from chordwise.domain.chunking import RowSize, TextBudget
from chordwise.domain.field_groups import FieldGroup
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject
from chordwise.domain.memo import memoized_by_identity
from chordwise.domain.prompts import render, render_examples, render_header, render_revision
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.errors import ConfigurationError, InvalidAnswerError, ModelError
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile
from chordwise.llm.schema_dialects import MAX_ENUM_VALUES
from chordwise.pipeline.asking.check import INVALID, CheckResult, RecordCheck, require_complete
from chordwise.prompts import library
from chordwise.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingPolicy:
    """How often and how long a question is asked before it fails.

    `prompts` names the further templates for answers that stay invalid. All calls and their waits
    together take at most `seconds`. A further prompt or model is tried only while more time is left
    than a timed-out request of the same question took. `require` is called before each request, and
    raises if the answer is no longer needed.
    """

    prompts: tuple[str, ...] = ()
    seconds: float = math.inf
    clock: Callable[[], float] = time.monotonic
    require: Callable[[], None] = lambda: None


ONE_PROMPT = AskingPolicy()


def policy_of(settings: Settings, require: Callable[[], None] = lambda: None) -> AskingPolicy:
    """Return the policy of the settings: `worker.chunk_seconds` and the further prompts.

    `require` raises once another worker has claimed the work, so that no further request is paid
    for.
    """
    seconds = settings.worker.chunk_seconds
    return AskingPolicy(prompts=settings.prompts.fallback, seconds=seconds, require=require)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked, and how.

    The quotes of the answer are located in `source`. `record_check` is called with each completion
    and the result of its check.
    """

    model: ChatModel
    task: AnalysisTask
    source: Source
    record_check: RecordCheck = lambda *_: None
    policy: AskingPolicy = ONE_PROMPT


def about_part(
    task: AnalysisTask, whole: Source, start: int, end: int
) -> tuple[AnalysisTask, Source]:
    """Return the question about a part of a text, and the source of its quotes.

    If a table continues in the part, its header is repeated there.
    """
    text, header = whole.text, None
    begins = outline.table_header(text, start)
    if not start or (begins and whole.header and not begins[0]):
        header = whole.header  # of a table that begins before this text
    elif begins:
        header = Source(text[slice(*begins)], offset=whole.offset + begins[0])
    is_whole = not _NO_BLANK.search(text, 0, start) and not _NO_BLANK.search(text, end)
    source = replace(whole, text=text[start:end], offset=whole.offset + start, header=header)
    shown = header.text if header else ""
    return replace(task, text=source.text, header=shown, is_whole=is_whole), source


REPAIR_TOKENS = 256
"""The maximum size of the remark below a repeated question, in estimated tokens."""
_NO_BLANK = re.compile(r"\S")
CHUNK_TOKENS, MAX_CHUNK_TOKENS = 3_000, 12_000
"""The size of a chunk for answers that grow with the text, and the maximum for others."""
_MIN_TEXT_TOKENS = 64
_MIN_ROWS = 8
_TOKENS_OF_VALUE, _TOKENS_OF_NAMED_VALUE, _TOKENS_OF_QUOTE = 3, 9, 27
"""In an answer, a value of 3 tokens takes 9, and the quote of a row takes 27 plus the row."""
_RAISED_BY = 2
_MIN_FIELDS = 20
_MATERIAL_SHARE = 0.9


def request_for(
    model: ChatModel, task: AnalysisTask, template: PromptTemplate | None = None
) -> CompletionRequest:
    """Render the question for a model, with the usual template where none is given.

    White space around the text is omitted.
    """
    task = replace(task, text=task.text.strip() or task.text)
    analysis = critique.analysis_of(task)
    schema = schema_of(task.options, analysis, is_about_text=task.is_about_text)
    template = template or library.template_for(task)
    prompt = render(template, task, schema)
    remark = header = ""
    if examples := render_examples(task):
        header = f"{examples}\n\n"
    if task.header:
        header += f"{render_header(library.latest(library.TABLE_HEADER), task)}\n\n"
    if task.stage is Stage.REVISE:
        remark = f"\n\n{render_revision(library.latest(library.REVISION), task)}"
    return CompletionRequest(
        task=task,
        system=prompt.system,
        user=f"{header}{prompt.user}{remark}",
        schema=schema,
        schema_name=library.CRITIQUE if task.is_critique else task.analysis_type,
        prompt_version=template.version,
        max_output_tokens=model.profile.max_output_tokens,
    )


@memoized_by_identity
def schema_of(
    options: AnalysisOptions, analysis: AnalysisDefinition, *, is_about_text: bool = False
) -> JsonObject:
    """Return the schema of the answers, which the chunks of a job share."""
    return analysis.question_schema(options) if is_about_text else analysis.schema(options)


def groups_of(model: ChatModel, task: AnalysisTask) -> Sequence[FieldGroup]:
    """Return the groups of fields that a model is asked for one by one; empty if at once.

    Their size follows from the length of an answer; each fits the dialects of JSON Schema.
    """
    profile, is_extraction = model.profile, task.analysis_type == AnalysisType.EXTRACTION
    if not is_extraction or task.is_critique or not profile.understands_language:
        return []
    size = profile.max_output_tokens // (_TOKENS_OF_QUOTE + _TOKENS_OF_NAMED_VALUE)
    max_fields = min(max(size, _MIN_FIELDS), field_groups.MAX_FIELDS)
    return field_groups.groups_of(task.options, max_fields, MAX_ENUM_VALUES)


def parts_of(model: ChatModel, task: AnalysisTask) -> list[AnalysisTask]:
    """Return the questions of a task to a model: one, or one for each group of fields."""
    return [group.task(task) for group in groups_of(model, task)] or [task]


def reserve_for_critique(model: ChatModel, task: AnalysisTask) -> int:
    """Return the tokens to keep free so that the answer can be examined below its question.

    An answer longer than half of the limit, which is rare, may not be examined.
    """
    if not task.options.critique:
        return 0
    kind = task.analysis_type
    principles = tokens.estimate("\n".join(critique.principles_for(kind, task.options)))
    return principles + REPAIR_TOKENS + model.profile.max_output_tokens // 2


def text_budget(model: ChatModel, task: AnalysisTask, chunk_tokens: int | None) -> TextBudget:
    """Return the text that fits into one question to this model, even when it is repeated.

    The maximum is `chunk_tokens`, unless the task has an option for it; without either, it depends
    on the room and the question (docs/configuration.md#size-of-chunks). For a list of objects, the
    chunks are smaller where a text has many records: a row takes more tokens in an answer than in
    the text, and the answer has a limit.

    Raises:
        ConfigurationError: The prompt alone fills the model's context.
    """
    requests = [request_for(model, part) for part in parts_of(model, task)]
    used = max(tokens.estimate(request.system + request.user) for request in requests)
    used += REPAIR_TOKENS + model.profile.max_output_tokens + reserve_for_critique(model, task)
    room = model.profile.context_tokens - used
    if room < _MIN_TEXT_TOKENS:
        raise ConfigurationError(
            f"The prompt and the answer fill the context of {model.profile.model} "
            f"({model.profile.context_tokens:,} tokens) without any text.",
            "Raise context_tokens or lower max_output_tokens of the model.",
        )
    options, profile, chosen = task.options, model.profile, CHUNK_TOKENS
    values, has_items = values_of_rows(options), options.schema or items.are_named(options)
    lists = values or (task.analysis_type == AnalysisType.EXTRACTION and not has_items)
    if profile.understands_language and not lists:
        chosen = max(CHUNK_TOKENS, min(MAX_CHUNK_TOKENS, room // 2))
    rows = None
    if values and profile.understands_language:
        answer = min(_RAISED_BY * profile.max_output_tokens, profile.output_ceiling)
        quoted = _TOKENS_OF_QUOTE + _TOKENS_OF_NAMED_VALUE * values
        row = max(quoted, _TOKENS_OF_VALUE * values * values)  # or a quote of the row for a value
        rows = RowSize(tokens=min(row, answer / _MIN_ROWS), limit=answer)
    return TextBudget(min(options.chunk_tokens or chunk_tokens or chosen, room), rows)


def values_of_rows(options: AnalysisOptions) -> int:
    """Return the number of values in a row if the schema asks for a list of objects, else 0."""
    return SchemaNode.root_of(options.schema).max_row_width() if options.schema else 0


def room_for_answers(model: ChatModel, task: AnalysisTask) -> float:
    """Return the tokens for the answers in one question that joins them, even when it is repeated.

    The prompt, the model's own answer and its critique are subtracted. The result is not positive
    if no answer fits.
    """
    parts = parts_of(model, replace(task, stage=Stage.SYNTHESIZE))
    empty = [request_for(model, part) for part in parts]
    used = max(tokens.weigh(request.system + request.user) for request in empty) + REPAIR_TOKENS
    used += model.profile.max_output_tokens + reserve_for_critique(model, task)
    return (model.profile.context_tokens - used) * _MATERIAL_SHARE


def with_problems(
    request: CompletionRequest, error: InvalidAnswerError, profile: ModelProfile
) -> CompletionRequest:
    """Return the same question with the errors of the check below it, as far as they fit.

    A raised output limit is reduced, so that both fit the context.
    """
    problems, words = error.what, f"\n\n{library.latest(library.REPAIR).user}"
    while tokens.estimate(remark := words.replace("$problems", problems)) > REPAIR_TOKENS:
        problems = problems[: len(problems) * 9 // 10]
    user = f"{request.user}{remark}"
    room = profile.context_tokens - tokens.estimate(request.system + user)
    return replace(
        request,
        user=user,
        task=replace(request.task, stage=Stage.REPAIR),
        max_output_tokens=min(request.max_output_tokens, max(room, profile.max_output_tokens)),
    )


def with_raised_limit(
    request: CompletionRequest, profile: ModelProfile
) -> CompletionRequest | None:
    """Return the same question with a higher output limit, or `None` if it cannot be raised.

    The limit is raised once, up to the model's maximum and what the prompt leaves free.
    """
    if request.max_output_tokens > profile.max_output_tokens:
        return None
    room = profile.context_tokens - tokens.estimate(request.system + request.user)
    limit = min(_RAISED_BY * request.max_output_tokens, profile.output_ceiling, room)
    if limit <= request.max_output_tokens:
        return None
    return replace(request, max_output_tokens=limit)


Content = TypeVar("Content")


def content_of(
    model: ChatModel,
    request: CompletionRequest,
    read: Callable[[JsonObject], Content],
    record_check: RecordCheck,
    *,
    lenient: bool = True,
) -> Content:
    """Return what `read` makes of an answer that is no analysis; an invalid one is asked again.

    `read` raises `InvalidAnswerError` with words for the model. Without `lenient`, damaged JSON is
    not repaired, as that could truncate a text.

    Raises:
        ModelError: The model gave no valid answer.
    """

    def checked(completion: Completion) -> Content:
        try:
            require_complete(completion)
            answer = validation.parse(completion.text, lenient=lenient).answer
            if problems := validation.problems(answer, request.schema):
                raise InvalidAnswerError("; ".join(problems))
            content = read(answer)
        except ModelError:
            record_check(completion, INVALID)
            raise
        record_check(completion, CheckResult(valid=True, quality=None))
        return content

    try:
        return checked(model.complete(request))
    except InvalidAnswerError as error:
        again = with_problems(request, error, model.profile)
    return checked(model.complete(again))
