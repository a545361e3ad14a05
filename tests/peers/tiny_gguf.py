"""Builds a language model of half a megabyte with random weights, for a real llama.cpp server.

Its answers are meaningless, but parsing, grammar, tokens and truncation are real. The first
embedding channel holds a constant that no layer changes. Through it the output weights favor
closing quotes and brackets, so that constrained answers end soon, and printable ASCII characters.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

CONTEXT_TOKENS = 32_768
WIDTH = 64
HEADS = 4
HIDDEN_WIDTH = 128
LAYERS = 2
SEED = 20_261_124

CONSTANT_CHANNEL = 0
CONSTANT = 20.0
NEVER = -20.0
UNKNOWN, BEGIN, END = 0, 1, 2
FIRST_BYTE, FIRST_CHARACTER = 3, 259

SPACE = "\u2581"
BIASES = {'"': 0.5, "]": 0.3, "}": 0.3, ",": 0.1, "e": -1.0, "E": -2.0, "\\": -3.0, SPACE: -1.0}
END_BIAS = 0.2

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

Matrix = NDArray[np.float32]


def build(path: Path) -> Path:
    """Write the model to `path` and return the path; the bytes are always the same."""
    writer = gguf.GGUFWriter(str(path), "llama")
    _add_shape(writer)
    _add_vocabulary(writer)
    _add_weights(writer, np.random.default_rng(SEED))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _characters() -> list[str]:
    return [SPACE, *(chr(code) for code in range(33, 127))]


def _add_shape(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    kind = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_characters()]
    kinds = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256
    kinds += [kind.NORMAL] * len(_characters())
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.encode() for token in tokens])
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)


def _add_weights(writer: gguf.GGUFWriter, random: np.random.Generator) -> None:
    writer.add_tensor("token_embd.weight", _embedding(random))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output.weight", _output(random))
    for layer in range(LAYERS):
        for name, weights in _layer(random).items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights)


def _embedding(random: np.random.Generator) -> Matrix:
    weights = _noise(random, FIRST_CHARACTER + len(_characters()), WIDTH)
    weights[:, CONSTANT_CHANNEL] = CONSTANT
    return weights


def _output(random: np.random.Generator) -> Matrix:
    weights = _noise(random, FIRST_CHARACTER + len(_characters()), WIDTH)
    weights[:, CONSTANT_CHANNEL] = 0.0
    weights[UNKNOWN, CONSTANT_CHANNEL] = NEVER
    weights[FIRST_BYTE:FIRST_CHARACTER, CONSTANT_CHANNEL] = NEVER
    weights[END, CONSTANT_CHANNEL] = END_BIAS
    for character, bias in BIASES.items():
        token = FIRST_CHARACTER + _characters().index(character)
        weights[token, CONSTANT_CHANNEL] = bias
    return weights


def _layer(random: np.random.Generator) -> dict[str, Matrix]:
    """Return the weights of a layer; they neither read nor write the constant channel."""
    norm = np.ones(WIDTH, np.float32)
    layer = {"attn_norm": norm, "ffn_norm": norm}
    for name in ("attn_q", "attn_k", "attn_v"):
        layer[name] = _noise(random, WIDTH, WIDTH)
    for name in ("ffn_gate", "ffn_up"):
        layer[name] = _noise(random, HIDDEN_WIDTH, WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"):
        layer[name][:, CONSTANT_CHANNEL] = 0.0
    layer["attn_output"] = _noise(random, WIDTH, WIDTH)
    layer["ffn_down"] = _noise(random, WIDTH, HIDDEN_WIDTH)
    for name in ("attn_output", "ffn_down"):
        layer[name][CONSTANT_CHANNEL, :] = 0.0
    return layer


def _noise(random: np.random.Generator, rows: int, columns: int) -> Matrix:
    return (random.standard_normal((rows, columns)) * 0.2).astype(np.float32)
