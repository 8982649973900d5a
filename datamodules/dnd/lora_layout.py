"""Which LoRA matrices an adapter has, and in which order: PEFT's keys and shapes, no weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ...registry import UserError

Shape = tuple[int, int]

_KEY = re.compile(r"(?P<path>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d+)\.")
_MODULES = ("q", "k", "v", "o", "up", "gate", "down")


def llama_lora_shapes(num_layers: int, hidden: int, kv: int, ffn: int, rank: int) -> dict[str, Shape]:
    """Shapes of a LoRA on all seven linear layers of a Llama- or Qwen-like model.

    Args:
        num_layers: number of layers.
        hidden: width of the residual stream, which is also that of q and o.
        kv: width of k and v, which is key-value heads times head size.
        ffn: width inside the MLP.
        rank: LoRA rank.

    Returns:
        PEFT key -> shape, as in an adapter_model.safetensors.
    """
    sizes = {"q": (hidden, hidden), "k": (hidden, kv), "v": (hidden, kv), "o": (hidden, hidden)}
    sizes |= {"up": (hidden, ffn), "gate": (hidden, ffn), "down": (ffn, hidden)}
    shapes: dict[str, Shape] = {}
    for layer in range(num_layers):
        for name, (d_in, d_out) in sizes.items():
            block = "self_attn" if name in "qkvo" else "mlp"
            path = f"base_model.model.model.layers.{layer}.{block}.{name}_proj"
            shapes[f"{path}.lora_A.weight"] = (rank, d_in)
            shapes[f"{path}.lora_B.weight"] = (d_out, rank)
    return shapes


def file_key(key: str) -> str:
    """The key as PEFT saves it: `lora_A.default.weight` in a live model is `lora_A.weight` in its file.

    Raises:
        UserError: if the key isn't that of a LoRA matrix.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise UserError(
            f"'{key}' is no LoRA matrix, so it has no place among weight tokens.\n"
            "Give the adapter's own weights, as in adapter_model.safetensors or from peft.get_peft_model_state_dict,\n"
            "of a plain LoRA: no bias, no DoRA, no modules_to_save, no embedding."
        )
    return f"{match['path']}.lora_{match['side']}.weight"


def matrix_side(file_key: str) -> str:
    """`A` or `B`."""
    return file_key.removesuffix(".weight")[-1]


def matrix_width(file_key: str, shape: tuple[int, ...]) -> int:
    """The size that is cut into chunks: d_in of A [rank, d_in], d_out of B [d_out, rank]."""
    return shape[1] if matrix_side(file_key) == "A" else shape[0]


def _order(file_key: str) -> tuple[Any, ...]:
    path = file_key.rpartition(".lora_")[0]
    layer = _LAYER.search(path)
    name = path.rpartition(".")[2]
    rank = _MODULES.index(short) if (short := name.removesuffix("_proj")) in _MODULES else len(_MODULES)
    # Numbers inside a path (experts) count as numbers, so that expert 10 comes after expert 9.
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.split(".")]
    return (layer is None, int(layer[1]) if layer else 0, rank, name, parts, matrix_side(file_key))


def check_shapes(shapes: Mapping[str, tuple[int, ...]], rank: int, chunk: int) -> dict[str, Shape]:
    """Put shapes in token order, if they can be cut.

    Args:
        shapes: key in file form -> shape.
        rank: LoRA rank that all must have.
        chunk: width that must divide every d_in and d_out.

    Returns:
        Key -> shape: layers numerically; q, k, v, o, up, gate, down, then others by name; what is outside of the
        layers last; A before B.

    Raises:
        UserError: if there is none, one of a pair is missing, or a shape doesn't fit.
    """
    if not shapes:
        raise UserError("there is no LoRA matrix to make weight tokens from: the state is empty")
    checked: dict[str, Shape] = {}
    for key in sorted(shapes, key=_order):
        shape, side = shapes[key], matrix_side(key)
        partner = f"{key.removesuffix('.weight')[:-1]}{'B' if side == 'A' else 'A'}.weight"
        if partner not in shapes:
            raise UserError(f"{key} has no partner: {partner} is missing")
        if len(shape) != 2:
            raise UserError(f"{key} has shape {list(shape)}: weight tokens hold the LoRA of linear layers only")
        found = shape[0] if side == "A" else shape[1]
        if found != rank:
            raise UserError(f"{key} has rank {found} (shape {list(shape)}), the tokenizer was made for rank={rank}")
        checked[key] = (shape[0], shape[1])
    greatest = math.gcd(*(matrix_width(key, shape) for key, shape in checked.items()))
    if greatest % chunk:
        key = next(key for key, shape in checked.items() if matrix_width(key, shape) % chunk)
        widths = [str(w) for w in range(greatest, 1, -1) if greatest % w == 0 and w % 2 == 0]
        advice = f"Widths that divide all: {', '.join(widths[:12])}" if widths else "No even width divides all."
        raise UserError(f"chunk={chunk} doesn't divide {matrix_width(key, checked[key])}, the width of {key}\n{advice}")
    return checked


def check_same(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Shape]) -> None:
    """Hold an adapter's shapes against a layout's.

    Raises:
        UserError: naming one matrix that is missing, unexpected, or of another shape.
    """
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    wrong = [key for key in expected if key in found and found[key] != expected[key]]
    if missing or extra or wrong:
        notes = [f"missing {len(missing)}, such as {missing[0]}"] if missing else []
        notes += [f"unexpected {len(extra)}, such as {extra[0]}"] if extra else []
        notes += [f"{wrong[0]} is {list(found[wrong[0]])} instead of {list(expected[wrong[0]])}"] if wrong else []
        raise UserError("this adapter doesn't fit the tokenizer's layout:\n" + "\n".join(notes))
