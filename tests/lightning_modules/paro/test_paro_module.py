"""Plans from captures and what they cost, through a Trainer, on small random weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from fulgurite.datamodules.paro.captures import CaptureStore
from fulgurite.datamodules.paro.module import AttentionCaptureDataModule
from fulgurite.kernels.adapters.serve import serve
from fulgurite.kernels.api import make_backend
from fulgurite.kernels.paro.calibration import Metric, bin_of, block_mass, order_metrics, recall_of
from fulgurite.kernels.paro.plan import Plan
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
from fulgurite.lightning_modules.paro.module import ParoModule
from fulgurite.lightning_modules.paro.planning import arm_orders
from fulgurite.registry import MODELS, UserError


def trainer(folder: Path) -> Trainer:
    return Trainer(default_root_dir=folder, logger=False, accelerator="cpu", enable_progress_bar=False,
                   enable_checkpointing=False, enable_model_summary=False)  # fmt: skip


@pytest.fixture(scope="module")
def planned(captures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Plans of all arms at two densities and a recall, and what predict says of them."""
    folder = tmp_path_factory.mktemp("plans")
    model = ParoModule(str(folder / "plans"), densities=[0.9, 0.8], recalls=[0.95])
    trainer(folder).predict(model, datamodule=AttentionCaptureDataModule(str(captures)))
    return folder / "plans", model.results()


def test_plans_are_what_the_captures_say(planned: tuple[Path, dict[str, Any]], captures: Path) -> None:
    folder, results = planned
    store = CaptureStore(captures)
    assert results["statements"] == []
    assert len(list(folder.glob("*.safetensors"))) == len(results["tables"][0]["rows"]) == 5 * 3
    plan = Plan.load(folder / "paro-d0.9.safetensors")
    assert plan.meta.model_hash == store.meta.model_hash and plan.meta.target == {"density": 0.9}
    assert plan.meta.edges == store.meta.edges and plan.orders.shape == (3, 2)
    handles = store.select(1, "calibrate")
    metrics = torch.stack([order_metrics(store.load(h), Metric()) for h in handles]).mean(0)
    torch.testing.assert_close(plan.sparse[1], metrics[0])
    torch.testing.assert_close(plan.incoherence[1], metrics[1])
    assert torch.equal(plan.orders[1].long(), arm_orders("paro", metrics[:, None], 0.5, 0)[0])
    second = [h for h in handles if bin_of(store.timestep(h), plan.meta.edges) == 1]
    mass = torch.stack([block_mass(store.load(h), plan.orders[1].long()) for h in second]).mean(0)
    mean, worst = recall_of(mass, plan.keep(1, 1)[0])
    torch.testing.assert_close(plan.recall[1, 1], mean)
    torch.testing.assert_close(plan.recall_worst[1, 1], worst)
    assert (Plan.load(folder / "held-r0.95.safetensors").recall >= 0.95 - 1e-5).all()
    assert not Plan.load(folder / "none-d0.9.safetensors").orders.any()
    assert len(Plan.load(folder / "single-d0.9.safetensors").orders.unique()) == 1


def test_test_measures_held_out_films(planned: Any, captures: Path, weights: Path, tmp_path: Path) -> None:
    folder, _ = planned
    model = ParoModule(str(folder), model=str(weights), densities=[0.9, 0.8], recalls=[], precisions=["float", "int4"])
    trainer(tmp_path).test(model, datamodule=AttentionCaptureDataModule(str(captures)), verbose=False)
    results = model.results()
    recall, films = results["tables"]
    assert [row[:2] for row in recall["rows"][:2]] == [["paro", "d0.9"], ["paro", "d0.8"]]
    assert len(recall["rows"]) == 10
    for _, target, density, mean, worst, worst_row in recall["rows"]:
        assert density <= float(target[1:]) + 0.12 and 0 <= worst_row <= worst <= mean <= 1
    assert len(results["statements"]) == 2 and "the best control" in results["statements"][0]
    assert films["rows"][0][0] == "dense, other kernel"
    # quantisation alone; the first arm in two precisions; the others in float
    assert len(films["rows"]) == 1 + 1 + 2 * 2 + 4 * 2
    assert all(0 < row[3] <= 60 and row[4] <= 1 for row in films["rows"])
    assert 60 >= films["rows"][0][3] > results["metrics"]["test/psnr/paro_d1_int4"]


def test_a_plan_for_other_weights_is_refused(planned: Any, weights: Path, captures: Path, tmp_path: Path) -> None:
    plan = planned[0] / "paro-d0.8.safetensors"
    other = GameCraftPipeline.from_pretrained(weights)
    with torch.no_grad():
        next(iter(other.transformer.parameters())).add_(1.0)
    with pytest.raises(UserError, match="the plan was made for other weights of GameCraftTransformer"):
        serve(other.transformer, make_backend("paro", plan=plan))
    copy = tmp_path / "captures"
    shutil.copytree(captures, copy)
    manifest = copy / "captures.json"
    found = CaptureStore(captures).meta.model_hash
    manifest.write_text(manifest.read_text().replace(found, "0" * 64))
    model = ParoModule(str(planned[0]), densities=[0.8])
    with pytest.raises(UserError, match="was made for other weights than the captures"):
        trainer(tmp_path).test(model, datamodule=AttentionCaptureDataModule(str(copy)), verbose=False)


def test_a_density_that_can_not_be_reached_is_told(captures: Path, tmp_path: Path) -> None:
    model = ParoModule(str(tmp_path / "plans"), densities=[0.9, 0.3], arms=["none"])
    trainer(tmp_path).predict(model, datamodule=AttentionCaptureDataModule(str(captures)))
    assert model.results()["statements"] == [
        "Text and the last block alone are 0.750 of the 2x2 blocks: no plan reaches the density 0.3."
    ]


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    assert MODELS["paro"] is ParoModule
    with pytest.raises(UserError, match=r"model.arms: no arm 'best'; there are paro, held, none"):
        ParoModule(str(tmp_path), arms=["best"])


def test_gamecraft_compiled_whole_with_a_plan(planned: Any, weights: Path) -> None:
    pipe = GameCraftPipeline.from_pretrained(weights, dtype=torch.float32)
    transformer = pipe.transformer
    hidden = torch.randn(1, 33, 18, 4, 6)
    states, mask, pooled = pipe.captions(["a hall"])

    @torch.no_grad()
    def call(model: Any, timestep: float) -> torch.Tensor:
        return model(hidden, torch.tensor([timestep]), states, mask, pooled, guidance=torch.tensor([0.0]))

    dense = call(transformer, 900.0)
    graphs: list[Any] = []

    def count(graph: Any, example_inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    backend = make_backend("paro", plan=planned[0] / "none-d0.8.safetensors", precision="float")
    with serve(transformer, backend):
        eager = [call(transformer, t) for t in (950.0, 300.0)]
        torch._dynamo.reset()
        compiled = torch.compile(transformer, backend=count, fullgraph=True)
        given = [call(compiled, t) for t in (950.0, 300.0)]
    hook, whole = (len(graph.graph.nodes) for graph in graphs)  # the hook notes the timestep before the forward
    assert hook < 10 < whole
    for mine, wanted in zip(given, eager, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(eager[0], dense, atol=1e-3)
    torch.testing.assert_close(call(transformer, 900.0), dense)  # and all is as it was
