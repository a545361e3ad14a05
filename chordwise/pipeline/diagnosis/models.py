"""Checks of the models: name, key, server, price, and a test request."""

from __future__ import annotations

import time
from dataclasses import replace

from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage
from chordwise.domain.grounding import Source
from chordwise.embedded import llama
from chordwise.embedded.home import home_at
from chordwise.errors import ServiceUnavailableError
from chordwise.llm.prices import price_of
from chordwise.llm.provider import connect
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.diagnosis.outcome import Check, warning
from chordwise.pipeline.jobs import endpoint_pauses
from chordwise.pipeline.models.budgets import PRICE_HINT
from chordwise.pipeline.models.model_client import Models, server_of
from chordwise.settings import Settings
from chordwise.settings.environment import missing_key_finding

PAUSES = "pauses"
_MINUTE = 60
_TINY_TEXT = "The meeting is on Monday. Anna brings the report."


def model(settings: Settings, name: str) -> Check:
    """Check a model without sending a request.

    Raises:
        ConfigurationError: It is unknown, or a key, a file or an extra is missing.
        ServiceUnavailableError: Its local server does not run.
    """
    model_settings = settings.model_named(name)
    if llama.is_served_here(model_settings):
        if llama.server_address(home_at(settings.home), model_settings.model) is None:
            raise ServiceUnavailableError(
                f"No server runs {model_settings.model}.",
                f"Start it with: chordwise up --model {name}",
            )
        return Check(name=f"model {name}", finding="its server is running on this machine")
    connect(model_settings, settings.api_key_for(model_settings))
    if model_settings.provider == "extractive":
        finding = "built in; it quotes and counts and is not a language model"
        return Check(name=f"model {name}", finding=finding)
    check = Check(name=f"model {name}", finding="name and key are set; --ask sends a test request")
    if keyless := missing_key_finding(settings, name):
        finding, hint = keyless
        check = replace(check, finding=f"{finding}; --ask sends a test request", hint=hint)
    return check if price_of(model_settings).is_known() else _of_unknown_price(settings, check)


def _of_unknown_price(settings: Settings, check: Check) -> Check:
    """Add what an unknown price means for budgets; a warning if there are any budgets."""
    caps = (settings.budget.usd_per_run, settings.budget.usd_per_day)
    of_profiles = (profile.budget_usd for profile in settings.profiles.values())
    if all(cap is None for cap in (*caps, *of_profiles)):
        return replace(check, finding=f"{check.finding}; its price is unknown")
    meaning = "runs with a budget refuse it"
    if settings.budget.allow_unknown_prices:
        meaning = "budgets count only those of its calls whose cost the server reports"
    finding = f"{check.finding}; its price is unknown: {meaning}"
    hint = " ".join(filter(None, (check.hint, PRICE_HINT)))
    return warning(check.name, finding, hint)


def question(settings: Settings) -> Check:
    """Send a short request to the model, once, even if it is paused; this may cost money.

    An answer ends the pause for all processes.

    Raises:
        ConfigurationError: The model cannot be used as configured.
        ModelError: The answer is not usable.
    """
    once = settings.retries.model_copy(update={"attempts": 1})
    models = Models(settings.model_copy(update={"retries": once}), server_of(settings))
    task = AnalysisTask(analysis_type=AnalysisType.SUMMARY, stage=Stage.ANALYZE, text=_TINY_TEXT)
    endpoint_pauses.probe_again(settings, [settings.model])
    started = time.monotonic()
    model = models.open(settings.model)
    source = Source(text=_TINY_TEXT)
    answer = ask(Question(model=model, task=task, source=source))
    seconds = time.monotonic() - started
    return Check(
        name="question", finding=f"{answer.provider}/{answer.model} answered in {seconds:.1f} s"
    )


def pauses(settings: Settings) -> Check:
    """Check whether a refused key, model or quota has paused calls for all runs.

    Raises:
        ServiceUnavailableError: The broker is unreachable.
        ConfigurationError: The broker has no database of the number in its address.
    """
    paused = endpoint_pauses.active_pauses(settings)
    if not paused:
        return Check(name=PAUSES, finding="no calls are paused")
    first = paused[0]
    minutes = max(1, round(first.seconds / _MINUTE))
    when = f"Calls of all runs are paused for {minutes} min."
    if not first.seconds:
        when = "The next call of any run tries again."
    hint = f"{first.denial.hint} To try again now: chordwise continue RUN.".strip()
    return warning(PAUSES, f"{first.denial.what} {when}", hint)
