"""LightningCLI with our habits: command line over checkpoint, short errors, checkpoints that are whole or absent."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import torch
import yaml
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger

from ..datamodules.files import atomic_write
from ..registry import UserError, find_source, import_part, plugin_packages
from .callbacks import ResumePoint
from .config.key_check import allowed_packages
from .config.refusals import RefusedConfig, refusals
from .config.settings import Settings
from .place import Place
from .records.redaction import redact
from .strategies import make as make_strategy

PARSER_MODE = "omegaconf+"
NOT_LIGHTNINGS = ("ckpt_path", "runner", "rllib")  # keys of a stage that LightningCLI does not take


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name and renames it: a crash leaves the old one whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save `checkpoint` (tensors, numbers, strings) under `path`.

        Raises:
            UserError: if it can't be written, a full disk included; the old file is kept.
        """
        try:
            with atomic_write(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{path}: the checkpoint can't be written: {error}\n"
                "The one before it is kept. Free some space and run again: it goes on."
            ) from error


class QuietParser(LightningArgumentParser):
    """Raises its message instead of printing it below 60 lines of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Hand the message to `refusals`."""
        raise RefusedConfig(message)


class SaveWhole(SaveConfigCallback):
    """Saves the parsed configuration beside the run's files, over an older one."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write config.yaml once, on rank 0."""
        if trainer.is_global_zero and not self.already_saved:
            with atomic_write(Path(trainer.default_root_dir) / "config.yaml") as temporary:
                self.parser.save(self.config, temporary, skip_unset=False, overwrite=True, multifile=False)
                _hide_secrets(temporary)
        self.already_saved = True


class FulguriteCLI(LightningCLI):
    """Stock LightningCLI apart from its errors, its checkpoint rule and the trainer's parts that every run gets."""

    def __init__(self, *, logger: Logger | bool, folder: Path, place: Place | None, **arguments: Any) -> None:
        self._logger, self._folder, self._place = logger, folder, place
        super().__init__(**arguments)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add our logger and resume point, unless the configuration names its own, and whole-or-absent checkpoints."""
        own = config.get("logger")
        config["logger"] = self._logger if own in (None, True) else own
        config["default_root_dir"] = config.get("default_root_dir") or str(self._folder)
        plugins = config.get("plugins") or []
        config["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        named = config.get("callbacks") or []
        config["callbacks"] = named if isinstance(named, list) else [named]
        self._take_resume_point(config["callbacks"])
        if self._place is None:
            config["strategy"] = make_strategy(config.get("strategy"))
        else:
            self._place.change(config)
        return super()._instantiate_trainer(config, callbacks)

    def _take_resume_point(self, named: list[Callback]) -> None:
        """Put the configuration's own ResumePoint where ours stands: after the callback that writes the metrics."""
        defaults = self.trainer_defaults["callbacks"]
        for own in [c for c in named if isinstance(c, ResumePoint)]:
            named.remove(own)
            for place, default in enumerate(defaults):
                if isinstance(default, ResumePoint):
                    own.folder, own.stop_at, own.asked = default.folder, default.stop_at, default.asked
                    defaults[place] = own

    def _parse_ckpt_path(self) -> None:
        """Hyper-parameters of the checkpoint fill in what neither a file nor the command line gives; they never win."""
        sub = self.config.get("subcommand")
        path = self.config[sub].get("ckpt_path") if sub else None
        if not path or path in ("best", "last", "hpc", "registry"):
            return
        if not Path(path).is_file():
            raise UserError(f"--ckpt_path: no checkpoint at {path}")
        saved = dict(torch.load(path, weights_only=True, map_location="cpu").get("hyper_parameters", {}))
        saved = {k: v for k, v in saved.items() if not k.startswith("_")}
        given = self._given(sub)
        current = self.config[sub].model.get("init_args", {})
        fill = {k: v for k, v in saved.items() if k not in given and k in current}
        for key in sorted(saved.keys() & given.keys()):
            if saved[key] != current.get(key):
                print(
                    f"model.{key}: {current.get(key)} as given, not {saved[key]} from the checkpoint", file=sys.stderr
                )
        if fill:
            model = {"class_path": self.config[sub].model.class_path, "init_args": {**current, **fill}}
            self.config = self.parser.parse_object({sub: {"model": model}}, self.config)

    def _given(self, sub: str) -> dict[str, Any]:
        explicit = self.parser.parse_args(self._arguments, defaults=False)
        model = explicit[sub].get("model") if sub in explicit else None
        return dict((model or {}).get("init_args", {}) or {})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Keep the arguments: the checkpoint rule needs to know what was given."""
        self._arguments = args if args is not None else sys.argv[1:]
        super().parse_arguments(parser, args)


def _import_plugins(settings: Settings) -> None:
    """Import the plug-ins' modules that a stage names: jsonargparse would not say which plug-in fails.

    Raises:
        UserError: if one fails; names it.
    """
    packages = plugin_packages()
    for dotted in _class_paths(settings.to_dict()):
        module = dotted.rpartition(".")[0]
        if dotted.partition(".")[0] in packages and find_source(module):
            import_part(module)


def _hide_secrets(file: Path) -> None:
    """Take the secrets out of a file of settings that has been read, or only tells."""
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    hidden = redact(settings)
    if hidden != settings:
        file.write_text(yaml.safe_dump(hidden, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _class_paths(value: Any) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key == "class_path" and isinstance(inner, str):
            yield inner
        yield from _class_paths(inner)


@dataclass(frozen=True)
class Built:
    """The three objects of a Lightning configuration."""

    model: LightningModule
    datamodule: LightningDataModule | None
    trainer: Trainer


def build(
    settings: Settings,
    folder: Path,
    *,
    callbacks: list[Callback] | None = None,
    logger: Logger | bool = False,
    place: Place | None = None,
) -> Built:
    """Build model, datamodule and trainer from a stage's settings; `folder` becomes the trainer's root, and `place`
    changes the trainer's arguments for a process that somebody else has started.

    Raises:
        UserError: if a value has the wrong type; with its file and line, or flag. If a plug-in can't be imported.
    """
    _set_parsing()
    _import_plugins(settings)
    folder.mkdir(parents=True, exist_ok=True)
    first = place is None or place.rank == 0
    given = folder / ("given.yaml" if first else f".given-{place.rank if place else 0}.yaml")
    with atomic_write(given) as temporary:
        values = {k: v for k, v in settings.to_dict().items() if k not in NOT_LIGHTNINGS}
        temporary.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with refusals(settings):
        try:
            cli = FulguriteCLI(
                **_cli_arguments(["--config", str(given)], False, folder, callbacks or [], logger, place)
            )
        finally:
            if first:
                _hide_secrets(given)
            else:
                given.unlink()
    return Built(cli.model, cli.datamodule, cli.trainer)


def run_verb(
    arguments: list[str],
    folder: Path,
    callbacks: list[Callback],
    logger: Logger | bool,
    settings: Settings | None = None,
) -> Trainer:
    """A stock LightningCLI call (`fit -c FILE --model.init_args.lr 1 …`), with our callbacks as defaults; `settings`
    gives the origins of keys, for errors.

    Raises:
        UserError: as `build`.
    """
    _set_parsing()
    if settings is not None:
        _import_plugins(settings)
    with refusals(settings):
        return FulguriteCLI(**_cli_arguments(arguments, True, folder, callbacks, logger)).trainer


def _cli_arguments(
    args: list[str],
    run: bool,
    folder: Path,
    callbacks: list[Callback],
    logger: Logger | bool,
    place: Place | None = None,
) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "callbacks": callbacks,
        "enable_progress_bar": sys.stderr.isatty(),
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
    }
    mode: Callable[[], dict[str, Any]] = lambda: {"parser_mode": PARSER_MODE}  # noqa: E731
    verbs = {v: mode() for v in ("fit", "validate", "test", "predict")} if run else {}
    return {
        "model_class": LightningModule,
        "datamodule_class": LightningDataModule,
        "subclass_mode_model": True,
        "subclass_mode_data": True,
        "parser_class": QuietParser,
        "parser_kwargs": {**mode(), **verbs},
        "save_config_callback": SaveWhole,
        "trainer_defaults": defaults,
        "seed_everything_default": 0,
        "args": args,
        "run": run,
        "logger": logger,
        "folder": folder,
        "place": place,
    }


def _set_parsing() -> None:
    jsonargparse.set_parsing_settings(
        omegaconf_absolute_to_relative_paths=True,
        import_path_denylist=["*"],
        import_path_allowlist=[*allowed_packages(), "builtins"],
    )
    nuisances = (
        "does not have many workers",
        "when logging on epoch level in distributed setting",  # each process evaluates everything
        "args parameter is intended to run from within Python",
        "The `srun` command is available",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        "The dirpath has changed from",
        "Checkpoint directory .* exists and is not empty",
    )
    for nuisance in nuisances:
        warnings.filterwarnings("ignore", message=f".*{nuisance}.*")
    for talker in (
        "pytorch.utilities.rank_zero",
        "fabric.utilities.rank_zero",
        "fabric.utilities.seed",
        "fabric.utilities.distributed",
    ):
        logging.getLogger(f"lightning.{talker}").setLevel(logging.WARNING)
