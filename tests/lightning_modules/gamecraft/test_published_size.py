"""The published 13B model on meta tensors: names and shapes are the committed list's, and diffusers' base's."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import HunyuanVideoTransformer3DModel

from fulgurite.launch.config.experiment import resolve
from fulgurite.lightning_modules.gamecraft.sharded import ShardedGameCraftModule
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer

LIST = Path(__file__).with_name("published_size.txt")
Shapes = dict[str, tuple[int, ...]]


def listed() -> Shapes:
    """The committed list; `blocks.[0-19].x` stands for twenty names."""
    shapes: Shapes = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        name, size = line.split()
        shape = tuple(int(n) for n in size.split("x"))
        found = re.search(r"\[0-(\d+)\]", name)
        for index in range(int(found[1]) + 1 if found else 1):
            shapes[name.replace(found[0], str(index)) if found else name] = shape
    return shapes


def shapes_of(model: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_built_on_meta_it_has_the_listed_names_and_shapes() -> None:
    with torch.device("meta"):
        model = GameCraftTransformer.of_size("published")
    assert shapes_of(model) == listed()
    assert sum(p.numel() for p in model.parameters()) == 12_821_515_697


def test_the_paper_s_experiment_builds_the_listed_network_and_its_average_without_memory() -> None:
    for stage in resolve("gamecraft/paper").stages:
        given = stage.settings.get("model", "init_args")
        kept = {name: given[name] for name in given if name in ("init_from", "transformer", "warmup_steps")}
        module = ShardedGameCraftModule(**kept)
        assert shapes_of(module.network) == shapes_of(module.ema.average) == listed()
        assert all(p.is_meta for p in (*module.network.parameters(), *module.ema.parameters()))
        assert module.network.gradient_checkpointing
        trainer = stage.settings.get("trainer")
        ranks = trainer["devices"] * trainer["num_nodes"]
        assert trainer["strategy"]["init_args"]["data_parallel_size"] == ranks
        assert ranks * trainer["accumulate_grad_batches"] * stage.settings.get("data", "init_args", "batch_size") == 48


def test_what_the_base_publishes_is_the_same_but_for_17_more_input_channels() -> None:
    with torch.device("meta"):
        base = shapes_of(HunyuanVideoTransformer3DModel())  # its defaults are the published configuration
    ours = {name: shape for name, shape in listed().items() if not name.startswith("camera_encoder.")}
    assert ours.pop("x_embedder.proj.weight") == (3072, 33, 1, 2, 2)
    assert base.pop("x_embedder.proj.weight") == (3072, 16, 1, 2, 2)
    assert ours == base


def test_a_forward_pass_of_the_published_size_has_the_right_shapes() -> None:
    """704 x 1216 pixels, a frame as history: about 33,000 video tokens."""
    with torch.device("meta"), torch.no_grad():
        model = GameCraftTransformer.of_size("published")
        noisy, history = torch.empty(1, 16, 9, 88, 152), torch.empty(1, 16, 1, 88, 152)
        tokens = model.camera_tokens(torch.empty(1, 33, 6, 704, 1216), 1)
        assert tokens.shape == (1, 10 * 44 * 76, 3072)
        out = model(
            model.model_input(noisy, history),
            torch.empty(1),
            torch.empty(1, 256, 4096),
            torch.empty(1, 256, dtype=torch.bool),
            torch.empty(1, 768),
            camera_tokens=tokens,
            guidance=torch.empty(1),
        )
    assert out.shape == (1, 16, 10, 88, 152)
