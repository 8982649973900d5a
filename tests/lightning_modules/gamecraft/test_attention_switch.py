"""`attention:` and `plan:`: the switch of GameCraft's models, from an experiment's words to the layers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")

from fulgurite.kernels import api
from fulgurite.kernels.paro.backend import Int4Attention, ParoAttention
from fulgurite.kernels.paro.model_hash import model_hash
from fulgurite.kernels.paro.plan import Plan, PlanMeta, forced_blocks, pack
from fulgurite.kernels.reference import ReferenceAttention
from fulgurite.kernels.sdpa import SdpaAttention
from fulgurite.launch.config.experiment import resolve
from fulgurite.lightning_modules.gamecraft.distillation import GameCraftStudentModule
from fulgurite.lightning_modules.gamecraft.module import GameCraftModule
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
from fulgurite.lightning_modules.gamecraft.transformer import SIZES, GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.registry import UserError

SMALL: dict[str, Any] = {**SIZES["tiny"], "text_embed_dim": 12, "pooled_projection_dim": 12}
GRID, TEXT, LAYERS, HEADS = (18, 2, 3), 16, 3, 2


@pytest.fixture(autouse=True)
def quiet() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    api._told.clear()


def make() -> GameCraftTransformer:
    """A model in which nothing is zero any more."""
    model = GameCraftTransformer(**SMALL).eval()
    for parameter in model.parameters():
        if parameter.count_nonzero() == 0:
            nn.init.normal_(parameter, std=0.2)
    return model


def make_plan(share: float, **changes: Any) -> Plan:
    """Random orders and masks in two bins; `share` of 1 keeps all."""
    layers, heads = changes.pop("layers", LAYERS), changes.pop("heads", HEADS)
    meta = PlanMeta(**{"grid": GRID, "text": TEXT, "side": "suffix", "edges": (500.0,), **changes})
    size = -(-meta.layout.num_tokens // 64)
    forced = forced_blocks(meta.layout)
    keep = (torch.rand(2, layers, heads, size, size) < share) | forced | forced[:, None]
    ones, metric = torch.ones(2, layers, heads), torch.ones(layers, heads, 6)
    orders = torch.randint(6, (layers, heads)).to(torch.uint8)
    empty = torch.zeros(layers, heads, dtype=torch.bool)
    return Plan(meta, pack(keep), orders, empty, keep.float().mean((3, 4)), ones, ones, metric, metric, metric)


def inputs(timestep: float = 900.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(1, 33, 18, 4, 6, generator=generator),
        "timestep": torch.tensor([timestep]),
        "encoder_hidden_states": torch.randn(1, TEXT, 12, generator=generator),
        "encoder_attention_mask": torch.arange(TEXT)[None] < 9,
        "pooled_projections": torch.randn(1, 12, generator=generator),
    }


def distance(out: Tensor, wanted: Tensor) -> float:
    return float((out - wanted).norm() / wanted.norm())


@torch.no_grad()
def test_paro_with_all_blocks_is_sdpa_within_its_rounding() -> None:
    model = make()
    model.set_attention("sdpa")
    dense = model(**inputs())
    model.set_attention("paro", make_plan(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no layer falls back, and the text's own is not asked
        full = model(**inputs())
    assert 0 < distance(full, dense) < 0.03
    model.set_attention("paro", make_plan(0.2))
    sparse, late = model(**inputs()), model(**inputs(100.0))
    assert distance(sparse, dense) > distance(full, dense)
    model.set_attention(None)
    assert torch.equal(model(**inputs()), dense)
    assert distance(model(**inputs(100.0)), late) > 0
    assert not model._forward_pre_hooks and not model.has_plan


@torch.no_grad()
def test_patterns_of_layers_and_the_last_that_fits_counts() -> None:
    model, plan = make(), make_plan(0.2)
    model.set_attention({"*": "sdpa", "single_transformer_blocks.*": "paro", "*blocks.1.attn": "int4"}, plan)
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "processor")}
    found = {name: type(layer.processor.backend) for name, layer in layers.items()}
    assert found == {
        "context_embedder.token_refiner.refiner_blocks.0.attn": SdpaAttention,
        "transformer_blocks.0.attn": SdpaAttention,
        "single_transformer_blocks.0.attn": ParoAttention,
        "single_transformer_blocks.1.attn": Int4Attention,
    }
    mixed = model(**inputs())
    # as an experiment file hands the same on
    nested = {"*": "sdpa", "single_transformer_blocks": {"*": "paro"}, "*blocks": {"1": {"attn": "int4"}}}
    model.set_attention(nested, plan)
    assert torch.equal(model(**inputs()), mixed)
    model.set_attention("paro", plan)
    assert not torch.equal(model(**inputs()), mixed)


@torch.no_grad()
def test_timesteps_of_all_calls_lie_in_one_tensor_which_graphs_can_read() -> None:
    model = make()
    model.set_attention("paro", make_plan(0.2))
    place = model.transformer_blocks[0].attn.processor.backend.place
    model(**inputs(900.0))
    held = place.timestep
    model(**inputs(100.0))
    assert place.timestep is held and held.tolist() == [100.0]


@torch.no_grad()
def test_a_copy_of_a_model_has_an_attention_and_a_place_of_its_own() -> None:
    model = make()
    model.set_attention("paro", make_plan(0.2))
    other = copy.deepcopy(model)
    wanted = model(**inputs())
    model.set_attention("sdpa")
    assert torch.equal(other(**inputs()), wanted)


@pytest.mark.parametrize(
    ("choice", "plan", "said"),
    [
        ("prao", None, "no attention named 'prao'\nDid you mean 'paro'?"),
        ("paro", None, "attention 'paro' needs a plan: name its file as 'plan'"),
        ("sdpa", {}, "a plan is given, and attention is sdpa, which takes none"),
        (None, {}, "attention is left as it is, which takes none"),
        ({"single_transformer_block.*": "sdpa"}, None, "Did you mean 'single_transformer_blocks.*'"),
        ({"*": {"attn": 3}}, None, "attention: '*.attn' is 3, no name of a backend"),
        ({"context_embedder.*": "paro"}, {}, "no plan counts context_embedder.token_refiner.refiner_blocks.0.attn"),
        ("paro", {"layers": 2}, "the plan has 2 layers of 2 heads, this GameCraftTransformer has 3 of 2"),
        ("paro", {"heads": 4}, "the plan has 3 layers of 4 heads"),
        ("paro", {"side": "prefix"}, "the plan has text as prefix; this GameCraftTransformer has it as suffix"),
        ("paro", {"model_hash": "0123"}, "the plan was made for other weights of a model (0123)"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(choice: Any, plan: dict[str, Any] | None, said: str) -> None:
    model = make()
    model.set_attention("sdpa")
    with pytest.raises(UserError) as refused:
        model.set_attention(choice, None if plan is None else make_plan(1.0, **plan))
    assert said in str(refused.value)
    assert all(isinstance(m.processor.backend, SdpaAttention) for m in model.modules() if hasattr(m, "processor"))
    assert not model._forward_pre_hooks


@torch.no_grad()
def test_a_call_of_another_grid_goes_to_sdpa_with_the_reason() -> None:
    model = make()
    dense = model(**inputs())
    model.set_attention("paro", make_plan(0.2, grid=(10, 2, 3)))
    with pytest.warns(UserWarning, match=r"'paro' has a plan for grid 10x2x3 .* of grid 18x2x3; 'sdpa' takes its"):
        assert torch.equal(model(**inputs()), dense)


def test_a_pipeline_refuses_a_plan_for_other_pictures() -> None:
    vae = GameplayVAE(block_out_channels=(4, 4, 4, 4), decoder_block_out_channels=(4, 4, 4, 4), norm_num_groups=2)
    pipe = GameCraftPipeline(make(), vae, height=32, width=48)
    pipe.set_attention("paro", make_plan(0.2))
    with pytest.raises(UserError, match="the plan is for pictures of 64x48, these have 32x48"):
        pipe.set_attention("paro", make_plan(0.2, grid=(18, 4, 3)))


def test_an_experiment_file_s_words_reach_the_layers(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "base: gamecraft/smoke\nteacher: {model: {attention: {'*': sdpa, single_transformer_blocks.*: reference}}}\n"
    )
    experiment = resolve(str(tmp_path / "mine.yaml"))
    stage = next(stage for stage in experiment.stages if stage.name == "teacher")
    given = stage.settings.to_dict()["model"]["init_args"]["attention"]
    model = make()
    model.set_attention(given)
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "processor")}
    for name, layer in layers.items():
        wanted = ReferenceAttention if name.startswith("single") else SdpaAttention
        assert type(layer.processor.backend) is wanted


def test_teacher_and_student_train_with_it(tmp_path: Path) -> None:
    teacher = make()
    teacher.save_pretrained(tmp_path / "weights")
    plan = make_plan(0.2, model_hash=model_hash(teacher))
    plan.save(tmp_path / "plan.safetensors")
    given: dict[str, Any] = {"attention": "paro", "plan": str(tmp_path / "plan.safetensors")}
    module = GameCraftModule(init_from=str(tmp_path / "weights"), **given)
    student = GameCraftStudentModule(teacher=str(tmp_path / "weights"), **given)
    for network in (module.network, module.ema.average, student.network, student.ema.average):
        assert network.has_plan
    assert not student.frozen["teacher"].has_plan
    module.network(**inputs()).square().mean().backward()
    with torch.no_grad():
        dense = teacher(**inputs())
        assert distance(module.ema.average(**inputs()), dense) > 1e-3
        torch.testing.assert_close(student.network(**inputs()), module.network(**inputs()))
    gradient = module.network.transformer_blocks[0].attn.to_q.weight.grad
    assert gradient is not None and bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0
    with pytest.raises(UserError, match="made for other weights"):
        GameCraftModule(transformer=SMALL, **given)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@torch.no_grad()
def test_a_cuda_graph_of_the_forward_reads_each_call_s_timestep() -> None:
    from fulgurite.lightning_modules.gamecraft.play.world import GraphedCalls

    model = make().to("cuda", torch.bfloat16)
    model.set_attention("paro", make_plan(0.2))
    early, late = ({k: v.cuda() for k, v in inputs(t).items()} for t in (900.0, 100.0))
    wanted = [model(**early), model(**late)]
    model.forward = GraphedCalls(model.forward)
    for given, right in ((early, wanted[0]), (late, wanted[1]), (early, wanted[0])):
        torch.testing.assert_close(model(**given), right, atol=2e-2, rtol=2e-2)
