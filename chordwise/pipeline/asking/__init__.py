"""Asks one question: groups, prompts, checks, repair, cascade, votes, critique and merging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from chordwise.domain import (
    field_groups,
    grounding,
    json_values,
    routing,
    self_consistency,
    validation,
)
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask
from chordwise.domain.answers import Answer, lowered_by
from chordwise.domain.field_groups import MAX_FIELDS, FieldGroup, part_of
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.errors import (
    AwaitingBatchError,
    BudgetExceededError,
    InvalidAnswerError,
    ModelError,
    ModelRequestError,
    PausingError,
    TransientError,
    first_transient_or_first,
    seconds_not_enough,
)
from chordwise.llm.middleware.tiered import Tiered
from chordwise.llm.model import EXTRACTIVE, MIN_REQUEST_SECONDS
from chordwise.pipeline.asking.answers import ask_model, gather, merged
from chordwise.pipeline.asking.assessment import first_few
from chordwise.pipeline.asking.question import (
    AskingPolicy,
    Question,
    groups_of,
    schema_of,
    values_of_rows,
)
from chordwise.settings import RoutingSettings

__all__ = ["AskingPolicy", "Question", "ask"]

log = structlog.get_logger(__name__)

_TOO_WIDE = f"These fields cannot be split, and are more than {MAX_FIELDS}: use several lists."


def ask(question: Question) -> Answer:
    """Return the answer to a question.

    A wide schema is asked for in groups of fields. If the task asks for votes, several samples are
    requested and their majority is the answer. Each sample is requested from the tiers of the model
    in turn until an answer is good enough, and from each tier until an answer is valid and
    grounded, within the limits of the policy.

    Raises:
        ModelError: No usable answer was received; the subclass gives the reason.
        AwaitingBatchError: An answer is still expected from a batch.
        LeaseLostError: Another worker has claimed the work.
    """
    groups = groups_of(question.model, question.task)
    return _ask_groups(question, groups) if groups else _ask_whole(question)


def _ask_groups(question: Question, groups: Sequence[FieldGroup]) -> Answer:
    """Return the answer to a question that is asked for one group of fields after the other.

    The groups share the time of the policy. The fields of a group without a valid answer about a
    text are missing, and `missing_fields` says why; other questions fail as a whole.
    """
    policy, task = question.policy, question.task
    ends_at = policy.clock() + policy.seconds
    with_lists = sum(values_of_rows(group.options) > 0 for group in groups)

    def outcome_of(group: FieldGroup) -> Answer | ModelError:
        left = max(MIN_REQUEST_SECONDS, ends_at - policy.clock())
        part = replace(group.task(task), lists_elsewhere=with_lists > 1)
        try:
            answer = _ask_whole(replace(question, task=part, policy=replace(policy, seconds=left)))
        except ModelError as error:
            if not task.is_about_text or isinstance(error, TransientError | PausingError):
                raise
            what = f"{error.what} {_TOO_WIDE}" if group.fields > MAX_FIELDS else error.what
            return type(error)(what, error.hint)
        return replace(answer, output=part_of(answer.output, group.members))

    outcomes = gather([partial(outcome_of, group) for group in groups])
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, ModelError)]
    if not answers:
        raise errors[0]
    if not errors:
        return _joined(answers, task, task.options)
    failed = [group for group, one in zip(groups, outcomes, strict=True) if one in errors]
    members = [steps for group in groups if group not in failed for steps in group.members]
    answer = _joined(answers, task, field_groups.narrowed(task.options, members))
    missing, fields = (sum(group.fields for group in some) for some in (failed, groups))
    paths = first_few(field_groups.pointer(steps) for group in failed for steps in group.members)
    said = f"{missing} of {fields} fields have no valid answer ({paths}): {errors[0].what}"
    quality = lowered_by(answer.quality, 1 - missing / fields)
    return replace(answer, quality=quality, missing_fields=said)


def _joined(answers: Sequence[Answer], task: AnalysisTask, options: AnalysisOptions) -> Answer:
    """Return one answer, which is valid against the schema of the options."""
    answer, schema = merged(answers, task), schema_of(options, analysis_for(task.analysis_type))
    data = field_groups.completed(answer.output["data"], SchemaNode.root_of(options.schema or {}))
    problems: list[str] = []
    for output in (answer.output, {**answer.output, "data": data}):
        plain = json_values.as_object(grounding.without_spans(output))
        if not (problems := validation.problems(plain, schema)):
            return replace(answer, output=output)
    what = f"The groups of fields do not match the schema together: {'; '.join(problems)}."
    raise InvalidAnswerError(what)


def _ask_whole(question: Question) -> Answer:
    """Return an answer, by vote if the task asks for votes.

    A critique and a revision are asked once, and so is the built-in model, which gives the same
    answer each time.
    """
    task = question.task
    is_voted_on = task.options.votes > 1 and task.draft is None
    if is_voted_on and question.model.profile.understands_language:
        return _ask_by_vote(question)
    return _ask_tiers(question)


def _ask_by_vote(question: Question) -> Answer:
    """Return the answer that wins the vote of a question's samples.

    Failed samples have no vote. The samples are requested one after the other and share the time of
    the policy; the next one is requested while more time is left than one that timed out took.
    """
    task, policy = question.task, question.policy
    answers: list[Answer] = []
    errors: list[ModelError] = []
    waiting: list[AwaitingBatchError] = []
    ends_at = policy.clock() + policy.seconds
    for number in range(1, task.options.votes + 1):
        left = ends_at - policy.clock()
        if left <= seconds_not_enough(errors) and (answers or errors):
            log.info("vote.timed_out", samples=number - 1, votes=task.options.votes)
            break
        sample, limited = replace(task, sample=number), replace(policy, seconds=left)
        try:
            answers.append(_ask_tiers(replace(question, task=sample, policy=limited)))
        except AwaitingBatchError as error:
            waiting.append(error)
        except ModelError as error:
            if _ends_vote(error, has_answers=bool(answers)):
                raise
            errors.append(error)
            log.info("vote.sample_failed", sample=number, code=error.code)
    if waiting:
        raise waiting[0]
    if not answers:
        raise first_transient_or_first(errors)
    by_models = [answer for answer in answers if answer.provider != EXTRACTIVE]
    return self_consistency.elected(by_models or answers[:1], task.analysis_type, task.options)


def _ends_vote(error: ModelError, *, has_answers: bool) -> bool:
    """Return whether to stop requesting samples.

    The vote ends if a person has to act, if the question has to wait (the samples so far are in the
    cache then), or if the provider rejects the question itself.
    """
    if isinstance(error, TransientError):
        return error.is_throttling
    rejected = isinstance(error, ModelRequestError) and not has_answers
    return isinstance(error, PausingError) or rejected


def _ask_tiers(question: Question) -> Answer:
    """Ask a model, or each of its tiers at most once until an answer is good enough.

    The tiers share the time of the policy.
    """
    model, policy = question.model, question.policy
    if not isinstance(model, Tiered):
        return ask_model(question)
    cascade = _Cascade(policy=model.policy)
    steps = model.steps(question.task)
    ends_at = policy.clock() + policy.seconds
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        left = ends_at - policy.clock()
        if cascade.is_too_late(left):
            break
        limited = replace(policy, seconds=left)
        answer = cascade.try_step(replace(question, model=step, policy=limited))
        if answer is not None:
            return answer
        if following is not None:
            reason = cascade.reason
            log.info("model.escalated", tier=step.tier, next=following.tier, reason=reason)
    return cascade.outcome()


@dataclass(slots=True, kw_only=True)
class _Cascade:
    policy: RoutingSettings
    weak: list[Answer] = field(default_factory=list)
    errors: list[ModelError] = field(default_factory=list)
    reason: str = ""

    def try_step(self, question: Question) -> Answer | None:
        """Return the answer of a tier if it is good enough; otherwise keep it, or its error.

        Raises:
            ModelError: The error holds for all tiers.
        """
        try:
            answer = ask_model(question)
        except ModelError as error:
            if not self._continues_after(error):
                raise
            self.errors.append(error)
            self.reason = error.code
            return None
        policy = self.policy
        if not policy.cascade or (
            answer.quality >= policy.accept_quality
            and answer.confidence >= policy.accept_confidence
        ):
            return answer
        self.weak.append(answer)
        self.reason = f"quality {answer.quality:g}, confidence {answer.confidence:g}"
        return None

    def is_too_late(self, seconds: float) -> bool:
        """Return whether the remaining time is too short for another tier."""
        return bool(self.weak or self.errors) and seconds <= seconds_not_enough(self.errors)

    def outcome(self) -> Answer:
        """Return the best of the answers that were not good enough.

        Raises:
            ModelError: There is no answer. A transient or pausing error takes precedence over the
                last.
        """
        if self.weak:
            return routing.best(self.weak)
        for kind in (TransientError, PausingError):
            for error in self.errors:
                if isinstance(error, kind):
                    raise error
        raise self.errors[-1]

    def _continues_after(self, error: ModelError) -> bool:
        """Return whether to ask another tier.

        After a rate limit or a spent budget, a larger model would only be more expensive.
        """
        if isinstance(error, BudgetExceededError):
            return False
        if isinstance(error, TransientError):
            return not error.is_throttling
        return isinstance(error, PausingError) or self.policy.cascade
