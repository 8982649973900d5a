"""PARO as a LightningModule: predict makes plans from captures, test says what they keep, and what they cost in films.

Axis legend: L layer, H head, O order.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ...datamodules.paro.captures import CaptureStore
from ...datamodules.paro.module import AttentionCaptureDataModule, LayerCaptures
from ...kernels.api import make_backend
from ...kernels.paro.calibration import Metric
from ...kernels.paro.orders import order_name
from ...kernels.paro.plan import Plan, forced_blocks
from ...registry import MODELS, UserError
from .planning import ARMS, Captures, Target, build_plans, measure_layer, recall_on, without_masks

DEFAULT_ARMS = ("paro", "held", "none", "random", "single")


@MODELS.register("paro", paper="2506.16054")
class ParoModule(LightningModule):
    """Nothing is trained. `predict` writes a plan for every arm of orders and every density; `test` reads them back.

    The plans are made from films of the split `calibrate`; test measures them on films that chose nothing: the share of
    attention that each plan's masks keep, and, where `model` names GameCraft weights, PSNR and SSIM of whole films
    against dense ones of the same start, keys and noise.

    Deviations from the paper: see the README (sign of the metric, eps, one threshold for the heads of a layer).

    Args:
        plans: folder of the plans: `<arm>-<target>.safetensors`, such as paro-d0.3.
        model: folder of GameCraft weights for the films; empty leaves the films out.
        densities: kept blocks / all blocks, text included; a plan for each.
        recalls: kept attention / all attention; a plan for each.
        arms: how orders are chosen: paro, held, none, random, single.
        precisions: numbers of the products in the films with the arm `paro`: float, int8, int4, int8_qk, int4_qk.
        alpha: weight of sparsity in the metric.
        eps: entries of the map below it count as small; None is 17.8 / N.
        sigma: share of small entries that makes a block sparse.
        empty_below: a head whose picture tokens send less than this share to picture tokens keeps text alone.
        num_steps: steps a chunk of the films; None = what the weights came with.
        seed: of the random orders.
    """

    def __init__(
        self,
        plans: str,
        model: str = "",
        densities: list[float] = [0.5, 0.3, 0.2],  # noqa: B006  (jsonargparse shows it; never changed)
        recalls: list[float] = [],  # noqa: B006
        arms: list[str] = list(DEFAULT_ARMS),  # noqa: B006
        precisions: list[str] = ["float", "int8", "int4"],  # noqa: B006
        alpha: float = 0.5,
        eps: float | None = None,
        sigma: float = 0.9,
        empty_below: float = 0.01,
        num_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        unknown = [arm for arm in arms if arm not in ARMS]
        if unknown:
            raise UserError(f"model.arms: no arm '{unknown[0]}'; there are {', '.join(ARMS)}")
        self.plans, self.model, self.arms, self.precisions = Path(plans), model, arms, precisions
        self.targets = [Target("density", d) for d in densities] + [Target("recall", r) for r in recalls]
        self.metric = Metric(alpha, eps, sigma)
        self.empty_below, self.num_steps, self.seed = empty_below, num_steps, seed
        self._measured: dict[int, Tensor] = {}
        self._recall: dict[tuple[str, str], list[Tensor]] = {}
        self._plans: dict[tuple[str, str], Plan] = {}
        self._results: dict[str, Any] = {}

    @property
    def store(self) -> CaptureStore:
        """The captures."""
        found = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(found, AttentionCaptureDataModule)
        return found.store

    def predict_step(self, batch: LayerCaptures, batch_idx: int) -> int:
        """Measure one layer's heads in every order; gives the layer's number."""
        self._measured[batch.layer] = measure_layer(self._captures(batch), self.metric)
        return batch.layer

    def on_predict_epoch_end(self) -> None:
        """Choose orders, make masks, write the plans."""
        store = self.store
        metrics_3LHO = torch.stack([self._measured[layer] for layer in sorted(self._measured)], 1)
        numbers = range(store.meta.num_layers)
        batches = (LayerCaptures(n, store, tuple(store.select(n, "calibrate"))) for n in numbers)
        films = [film for film in store.meta.films if film.split == "calibrate"]
        made_with = f"{len(films)} films, steps {', '.join(map(str, store.meta.steps))} of {len(store.meta.timesteps)}"
        plans = build_plans(
            store.meta, ((b.layer, self._captures(b)) for b in batches), metrics_3LHO, self.arms, self.targets,
            self.metric, self.empty_below, self.seed, made_with,
        )  # fmt: skip
        for (arm, target), plan in plans.items():
            plan.save(self._file(arm, target))
        self._results = _calibration_results(plans)

    def on_test_start(self) -> None:
        """Read the plans and see that they are for these captures.

        Raises:
            UserError: if one is missing or for another model.
        """
        self._recall, self._plans = {}, self._read_plans()
        for (arm, target), plan in self._plans.items():
            if plan.meta.model_hash != self.store.meta.model_hash:
                raise UserError(f"{self._file(arm, target)}: was made for other weights than the captures\n"
                                "Make the plans again: trainer.predict.")  # fmt: skip
            self._recall[(arm, target)] = []

    def test_step(self, batch: LayerCaptures, batch_idx: int) -> None:
        """What each plan keeps of one layer's attention in films that chose nothing."""
        for (arm, target), plan in self._plans.items():
            self._recall[(arm, target)].append(torch.stack(recall_on(plan, batch.layer, self._captures(batch))))

    def on_test_epoch_end(self) -> None:
        """Sum up, and play the films."""
        rows: list[list[Any]] = []
        metrics: dict[str, float] = {}
        for (arm, target), found in self._recall.items():
            density, recall, worst = torch.stack(found, 1)  # [L, H] each
            figures = (density.mean(), recall.mean(), recall.min(), worst.min())
            rows.append([arm, target, *map(float, figures)])
            metrics |= {f"test/recall/{arm}_{target}": float(recall.mean())}
        table = {
            "title": f"Attention kept on held-out films, mean over {self.store.meta.num_layers} layers and their heads",
            "columns": ["orders", "target", "density", "recall", "worst head", "worst block of queries"],
            "rows": rows,
            "note": "; ".join(f"{arm}: {ARMS[arm]}" for arm in self.arms) + ".",
        }
        statements = [s for target in self.targets if (s := _verdict(target.name, metrics, self.arms))]
        self._results = {"metrics": metrics, "statements": statements, "tables": [table]}
        if self.model:
            self._play()

    def _play(self) -> None:
        from .films import DenseFilms
        from .subjects import GameCraftSubject, open_subject

        subject = open_subject(Path(self.model), self.device, self.num_steps)
        if not isinstance(subject, GameCraftSubject):
            raise UserError(f"model.model: {self.model} is no GameCraft pipeline; films are compared for those only")
        films = [film for film in self.store.meta.films if film.split == "test"]
        dense, rows = DenseFilms(subject, films), []
        floor = dense.noise_floor()
        rows.append(["dense, other kernel", "", "", float(floor.psnr.mean()), float(floor.ssim.mean())])
        for arm, target, precision, plan in self._arms_of_films(self._plans):
            found = dense.compare(make_backend("paro", plan=plan, precision=precision))
            rows.append([arm, target, precision, float(found.psnr.mean()), float(found.ssim.mean())])
            self._results["metrics"][f"test/psnr/{arm}_{target}_{precision}"] = float(found.psnr.mean())
            self._results["metrics"][f"test/ssim/{arm}_{target}_{precision}"] = float(found.ssim.mean())
        self._results["tables"].append({
            "title": f"{len(films)} held-out films against dense ones of the same start, keys and noise",
            "columns": ["orders", "target", "numbers", "PSNR in dB", "SSIM"],
            "rows": rows,
            "note": "The first chunk is dense in all. 60 dB means equal. d1 keeps all blocks: quantisation alone.",
        })  # fmt: skip

    def _arms_of_films(self, plans: dict[tuple[str, str], Plan]) -> list[tuple[str, str, str, Plan]]:
        """Every plan in float; those of the first arm in the other numbers too, and without masks."""
        first = self.arms[0]
        any_plan = plans[(first, self.targets[0].name)]
        whole = [(first, "d1", p, without_masks(any_plan)) for p in self.precisions if p != "float"]
        sparse = [
            (arm, target, precision, plan)
            for (arm, target), plan in plans.items()
            for precision in (self.precisions if arm == first else ["float"])
        ]
        return whole + sparse

    def results(self) -> dict[str, Any]:
        """Content of results.json."""
        return self._results

    def _captures(self, batch: LayerCaptures) -> Captures:
        return [(batch.store.timestep(h), partial(batch.load, h, self.device)) for h in batch.handles]

    def _file(self, arm: str, target: str) -> Path:
        return self.plans / f"{arm}-{target}.safetensors"

    def _read_plans(self) -> dict[tuple[str, str], Plan]:
        keys = [(arm, target.name) for arm in self.arms for target in self.targets]
        return {key: Plan.load(self._file(*key)) for key in keys}


def _calibration_results(plans: dict[tuple[str, str], Plan]) -> dict[str, Any]:
    rows = [
        [arm, target, float(plan.density.mean()), float(plan.recall.mean()), float(plan.recall_worst.min()),
         int(plan.empty.sum()), _histogram(plan)]
        for (arm, target), plan in plans.items()
    ]  # fmt: skip
    table = {
        "title": "Plans, on the films that they were made from",
        "columns": [
            "orders",
            "target",
            "density",
            "recall",
            "worst block of queries",
            "empty heads",
            "heads per order",
        ],
        "rows": rows,
        "note": "",
    }
    metrics = {f"calibrate/recall/{arm}_{target}": float(p.recall.mean()) for (arm, target), p in plans.items()}
    layout = next(iter(plans.values())).meta.layout
    forced = forced_blocks(layout)
    least = float((forced | forced[:, None]).float().mean())
    lower = sorted({p.meta.target["density"] for p in plans.values() if p.meta.target.get("density", 1.0) < least})
    statements = [
        f"Text and the last block alone are {least:.3f} of the {len(forced)}x{len(forced)} blocks: no plan reaches "
        f"the density {', '.join(f'{d:g}' for d in lower)}."
    ]
    return {"metrics": metrics, "statements": statements if lower else [], "tables": [table]}


def _histogram(plan: Plan) -> str:
    counts = torch.bincount(plan.orders.flatten().long(), minlength=len(plan.meta.layout.orders)).tolist()
    return ", ".join(f"{order_name(plan.meta.grid, order)} {count}" for order, count in enumerate(counts) if count)


def _verdict(target: str, metrics: dict[str, float], arms: list[str]) -> str | None:
    """The metric's orders against the best control, in words."""
    controls = {arm: metrics[f"test/recall/{arm}_{target}"] for arm in arms if arm in ("none", "random", "single")}
    own = metrics.get(f"test/recall/paro_{target}")
    if own is None or not controls:
        return None
    best = max(controls, key=lambda arm: controls[arm])
    gap = own - controls[best]
    how = "level with" if abs(gap) < 0.005 else "ahead of" if gap > 0 else "behind"
    return (
        f"At {target} the metric's orders keep {own:.3f} of the attention: {how} the best control "
        f"({best}, {controls[best]:.3f})."
    )
