"""Weights & Biases as a switch: offline where no key is set, one W&B run for one run folder, artifacts in and out.

Keys are read by wandb itself, from its own places (WANDB_API_KEY, netrc, wandb's settings); nothing here stores one.
"""

from __future__ import annotations

import json
import netrc
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..datamodules.files import atomic_write
from ..datamodules.sources.cache import cache_dir
from ..registry import UserError

if TYPE_CHECKING:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

ARTIFACT = "artifact:"
ID_FILE = "wandb_id"
SWEEP_VARIABLE, RUN_VARIABLE = "WANDB_SWEEP_ID", "WANDB_RUN_ID"  # set by `wandb agent` for each trial
FILMS = (".mp4", ".webm", ".gif")


def wandb_logger(
    folder: Path, project: str, entity: str | None = None, group: str | None = None, tags: str | None = None
) -> WandbLogger:
    """Lightning's logger for one stage; all stages and resumptions of a run folder are one W&B run.

    Args:
        folder: the stage's folder; the run's id lies above it, in `wandb_id`.
        project: W&B project.
        entity: W&B user or team.
        group: W&B group.
        tags: comma-separated tags.
    """
    from lightning.pytorch.loggers import WandbLogger

    given = _arguments(folder, project, entity, group, tags)
    upload = f"; wandb sync {folder.parent}/wandb   uploads it" if given["mode"] == "offline" else ""
    whose = f"project {project}" if project else "the sweep's project"
    print(f"W&B: {whose}, run {given['id']}, {given['mode']}{upload}", file=sys.stderr)
    logger = WandbLogger(**given)
    logger._wandb_init.pop("anonymous", None)  # wandb warns of it, whatever its value
    return logger


@contextmanager
def open_run(folder: Path, **options: str | None) -> Iterator[wandb.Run]:
    """The same W&B run, for a stage without a Lightning trainer. Arguments as for `wandb_logger`."""
    import wandb

    given = _arguments(folder, **options)
    with wandb.init(dir=given.pop("save_dir"), **given) as run:
        yield run


def in_sweep() -> bool:
    """Whether `wandb agent` has started this process as a trial of a sweep on W&B's server."""
    return bool(os.environ.get(SWEEP_VARIABLE) and os.environ.get(RUN_VARIABLE))


def run_id(run_dir: Path) -> str:
    """The W&B id of a run folder, made when first asked for; in a sweep, the one that the server gave the trial."""
    file = run_dir / ID_FILE
    given = os.environ[RUN_VARIABLE] if in_sweep() else None
    if given or not file.is_file():
        with atomic_write(file) as temporary:
            temporary.write_text((given or secrets.token_hex(4)) + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def has_key() -> bool:
    """Whether wandb would find a key without asking: in the environment, in netrc or in its settings."""
    import wandb

    settings = wandb.setup().settings
    if settings.api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    for place in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if place and netrc.netrc(os.path.expanduser(place)).authenticators(urlsplit(settings.base_url).netloc):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def log_settings(run: wandb.Run, folder: Path, settings: dict[str, Any]) -> None:
    """Give a stage's resolved settings, the commit and the versions to its W&B run, as its config."""
    from .records.record import git_state, versions

    run.config.update({folder.name: settings, "git": git_state(), "versions": versions()}, allow_val_change=True)


def log_finished(run_dir: Path, metrics: dict[str, float | None], options: dict[str, Any]) -> None:
    """Give the metrics of a run that was finished before to the trial of a sweep that asks for the same settings."""
    with open_run(run_dir / "sweep", **options) as run:
        run.log({name: value for name, value in metrics.items() if value is not None})


def log_stage(run: wandb.Run, folder: Path) -> None:
    """Give a finished stage to its W&B run: metrics, tables, pictures and films of results.json, the last checkpoint
    and every PEFT adapter folder as artifacts.
    """
    import wandb

    name = folder.name
    results: dict[str, Any] = {}
    if (folder / "results.json").is_file():
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    run.summary.update(results.get("metrics", {}))
    media: dict[str, Any] = {}
    for item in results.get("tables", []):
        rows = [["" if cell is None else str(cell) for cell in row] for row in item["rows"]]
        media[f"{name}/{item['title']}"] = wandb.Table(columns=item["columns"], data=rows)
    for file in results.get("figures", []):
        kind = wandb.Video if Path(file).suffix in FILMS else wandb.Image
        media[f"{name}/{Path(file).stem}"] = kind(str(folder / file))
    if media:
        run.log(media)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if checkpoint.is_file():
        log_artifact(run, checkpoint, f"{run.id}-{name}", "model")
    for config in sorted(folder.rglob("adapter_config.json")):
        log_artifact(run, config.parent, f"{run.id}-{name}-{config.parent.name}", "adapter")


def log_artifact(run: wandb.Run, path: Path, name: str, kind: str) -> None:
    """Log a file or folder as an artifact; an unchanged one makes no new version."""
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    for file in sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]:
        artifact.add_file(str(file), name=file.relative_to(path if path.is_dir() else path.parent).as_posix())
    run.log_artifact(artifact)


def local_path(text: str) -> Path:
    """Download `artifact:entity/project/name:version` into the cache.

    Returns:
        The artifact's folder, or its file if it holds just one.

    Raises:
        UserError: if no key is set, or W&B has no such artifact or can't be reached.
    """
    import wandb

    name = text.removeprefix(ARTIFACT)
    if not has_key():
        raise UserError(
            f"{text}: downloading an artifact needs a W&B key, and none is set\n"
            "wandb login   stores one; or set WANDB_API_KEY."
        )
    try:
        artifact = wandb.Api().artifact(name)
        place = artifact.qualified_name.replace("/", ".").replace(":", ".")
        folder = Path(artifact.download(root=str(cache_dir() / "artifacts" / place)))
    except (wandb.Error, ValueError, OSError) as error:
        raise UserError(
            f"{text}: {str(error).splitlines()[0]}\nAn artifact is written artifact:ENTITY/PROJECT/NAME:VERSION."
        ) from None
    files = [f for f in folder.rglob("*") if f.is_file()]
    return files[0] if len(files) == 1 else folder


def _arguments(
    folder: Path, project: str | None, entity: str | None = None, group: str | None = None, tags: str | None = None
) -> dict[str, Any]:
    import wandb

    run_dir = folder.parent
    # a trial's project and entity are the sweep's; wandb warns of any that are given, so none are
    whose = {} if in_sweep() else {"project": project, "entity": entity}
    return {
        **whose,
        "group": group,
        "tags": [t.strip() for t in tags.split(",") if t.strip()] if tags else None,
        "name": f"{run_dir.parent.name}/{run_dir.name}",
        "id": run_id(run_dir),
        "resume": "allow",
        "save_dir": str(run_dir),
        "mode": os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline"),
        "settings": wandb.Settings(silent=True, console="off", disable_code=True),
    }
