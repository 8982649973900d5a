"""How the processes of a fit share its work: one table of strategies, each with its counterpart on Ray Train.

`trainer.strategy` takes the short names, Lightning's own names of the same (`deepspeed_stage_2`), or a class path. What
can't work together is refused by the settings and the source text, before anything starts. No torch until one is made.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..registry import UserError
from .config.experiment import Experiment, Stage
from .config.signatures import lineage

FSDP2 = "fulgurite.launch.sharded_strategy.FullyShardedStrategy"
_LIGHTNING, _RAY = "lightning.pytorch.strategies", "ray.train.lightning"


@dataclass(frozen=True)
class Strategy:
    """A row of the table.

    Args:
        name: what `trainer.strategy` says.
        lightning: class that Lightning's trainer takes.
        ray: class that it takes inside a worker of Ray Train.
        package: what has to be installed for it, or None.
        gpus_only: whether it runs on GPUs alone.
    """

    name: str
    lightning: str
    ray: str
    package: str | None = None
    gpus_only: bool = False

    def is_meant_by(self, path: str) -> bool:
        """Whether a short name, a name of Lightning's or a class path means this strategy."""
        own = self.lightning.rpartition(".")[2]
        return path == self.name or path.startswith(f"{self.name}_") or path.rpartition(".")[2] == own


STRATEGIES = (
    Strategy("ddp", f"{_LIGHTNING}.DDPStrategy", f"{_RAY}.RayDDPStrategy"),
    Strategy("fsdp2", FSDP2, "fulgurite.launch.clusters.ray_strategies.RayFullyShardedStrategy"),
    Strategy("deepspeed", f"{_LIGHTNING}.DeepSpeedStrategy", f"{_RAY}.RayDeepSpeedStrategy", "deepspeed", True),
)


def path_of(value: Any) -> str:
    """The name or class path in a value of `trainer.strategy`; empty where it leaves the choice to Lightning."""
    path = value.get("class_path", "") if isinstance(value, Mapping) else value
    return "" if path in (None, "auto") else str(path)


def find(value: Any) -> Strategy | None:
    """The row that a value of `trainer.strategy` means, or None for any other of Lightning's."""
    path = path_of(value)
    if path.rpartition(".")[2] == "ModelParallelStrategy":  # Lightning's own, of which ours is a kind
        return next(s for s in STRATEGIES if s.name == "fsdp2")
    return next((s for s in STRATEGIES if s.is_meant_by(path)), None)


def one_process(stage: Stage) -> str:
    """Why a stage runs in one process whatever is asked for, in a clause; empty if it may run in several."""
    if stage.verb != "fit":
        return f"`{stage.verb}` is one process's work"
    if stage.settings.get("runner") == "rllib":
        return "RLlib spreads it by `rllib:`"
    return _class_text(_model(stage), "ONE_PROCESS")


def check_experiment(experiment: Experiment) -> None:
    """Refuse what can't work, where Lightning starts the processes that `trainer.devices` asks for.

    Raises:
        UserError: with the reason.
    """
    for stage in experiment.stages:
        if stage.verb == "command" or stage.settings.get("runner") == "rllib":
            continue
        devices = stage.settings.get("trainer", "devices")
        nodes = stage.settings.get("trainer", "num_nodes") or 1
        count = len(devices) if isinstance(devices, list) else devices
        if count in (None, "auto") and stage.settings.get("trainer", "accelerator") == "cpu":
            count = 1
        check(stage, count * nodes if type(count) is type(nodes) is int and count > 0 else None)


def check(stage: Stage, processes: int | None, on_ray: bool = False) -> None:
    """Refuse what can't work.

    Args:
        stage: a Lightning stage.
        processes: of its fit, in all; None if only the machine tells.
        on_ray: whether they are workers of Ray Train.

    Raises:
        UserError: with the reason.
    """
    value = stage.settings.get("trainer", "strategy")
    where, found = stage.settings.origin("trainer", "strategy"), find(value)
    names = ", ".join(s.name for s in STRATEGIES)
    if path_of(value) and found is None and on_ray:
        raise UserError(f"{where}: no way to run {path_of(value)} on Ray Train\nThere it is one of {names}.")
    alone = one_process(stage)
    if (processes or 1) > 1 and alone and stage.verb == "fit":
        raise UserError(
            f"stage {stage.name}: {_model(stage).rpartition('.')[2]} trains in one process: {alone}\n"
            f"Leave its trainer.devices at 1."
        )
    if found is None:
        return
    if found.package and importlib.util.find_spec(found.package) is None:
        raise UserError(f"{where}: {found.name} needs the package {found.package}\npip install {found.package}")
    if found.gpus_only and stage.settings.get("trainer", "accelerator") == "cpu":
        raise UserError(f"{where}: {found.name} runs on GPUs alone\nOn the CPU there are ddp and fsdp2.")
    if found.name == "fsdp2":
        _check_sharding(stage, value, processes, where)


def _check_sharding(stage: Stage, value: Any, processes: int | None, where: str) -> None:
    model = _model(stage)
    text = _method_text(model, "configure_model")
    if "device_mesh" not in text:
        raise UserError(
            f"{where}: {model.rpartition('.')[2]} can't be sharded: its configure_model does not use self.device_mesh\n"
            "Take ddp, which every model can."
        )
    given = value.get("init_args", {}) if isinstance(value, Mapping) else {}
    tensor = given.get("tensor_parallel_size", 1)
    data = given.get("data_parallel_size", "auto")
    if tensor not in (1, "auto") and "tensor_parallel" not in text:
        raise UserError(
            f"{where}: {model.rpartition('.')[2]} does not divide its layers\n"
            f"Leave tensor_parallel_size at 1, instead of {tensor}."
        )
    if processes and isinstance(tensor, int) and isinstance(data, int) and data * tensor != processes:
        raise UserError(
            f"{where}: data_parallel_size {data} x tensor_parallel_size {tensor} is {data * tensor}, "
            f"not the {processes} processes of this fit"
        )


def make(value: Any, on_ray: bool = False) -> Any:
    """What the trainer's `strategy` becomes: short names and Ray's counterparts as objects, the rest as it is.

    Args:
        value: a name, an object that was made of a class path, or None.
        on_ray: whether this is a worker of Ray Train.
    """
    if value is not None and not isinstance(value, str):
        return _as_rays(value) if on_ray else value
    name = "ddp" if on_ray and value in (None, "auto") else value
    row = find(name)
    if row is None or (not on_ray and row.name != "fsdp2"):
        return value
    return _class_of(row.ray if on_ray else row.lightning)(**_arguments(str(name)))


def _arguments(name: str) -> dict[str, Any]:
    """What Lightning's longer names say: `ddp_find_unused_parameters_true`, `deepspeed_stage_2_offload`."""
    if name.startswith("ddp_find_unused_parameters_"):
        return {"find_unused_parameters": name.endswith("true")}
    if name.startswith("deepspeed_stage_"):
        return {"stage": int(name[len("deepspeed_stage_")]), "offload_optimizer": "offload" in name}
    return {}


def _as_rays(made: Any) -> Any:
    """The same strategy as a class of Ray's: what differs is only where it looks for ranks and devices."""
    row = find(type(made).__name__)
    if row is None:
        raise UserError(f"no way to run {type(made).__name__} on Ray Train")
    wanted = _class_of(row.ray)
    made.__class__ = wanted if issubclass(wanted, type(made)) else made.__class__
    return made


def _class_of(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _model(stage: Stage) -> str:
    return str(stage.settings.get("model", "class_path"))


def _method_text(dotted: str, name: str) -> str:
    """Source text of a class's method, or of the nearest base's that has it."""
    for found in lineage(dotted):
        for node in found.node.body if isinstance(found.node, ast.ClassDef) else ():
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return ast.unparse(node)
    return ""


def _class_text(dotted: str, name: str) -> str:
    """A class's constant text, or the nearest base's; empty if there is none."""
    for found in lineage(dotted):
        for node in found.node.body if isinstance(found.node, ast.ClassDef) else ():
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                value = getattr(node, "value", None)
                return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
    return ""
