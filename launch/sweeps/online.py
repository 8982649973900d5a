"""A sweep on W&B's server: created there, and worked off by agents of W&B's own (`wandb agent`) on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from ...datamodules.files import atomic_write
from ...registry import UserError
from .trial import Place

console = Console(stderr=True, highlight=False, soft_wrap=True)


def run_online(place: Place, agents: int) -> int:
    """Create the sweep, unless an earlier call has, and run agents until it has no more trials.

    The sweep's id lies in its folder, so a call that was stopped goes on with the same sweep.

    Returns:
        0 if all agents ended well, else 1.

    Raises:
        UserError: if W&B refuses the sweep.
    """
    file = place.folder / "wandb_sweep"
    if not file.is_file():
        path = _create(place)
        with atomic_write(file) as temporary:
            temporary.write_text(path + "\n", encoding="utf-8")
    path = file.read_text(encoding="utf-8").strip()
    console.print(f"[bold]{place.sweep.name}[/bold]: W&B's sweep {path}; elsewhere: wandb agent {path}")
    started = [_start_agent(path) for _ in range(agents)]
    try:
        return int(any([agent.wait() for agent in started]))
    except BaseException:
        for agent in started:
            agent.terminate()
        for agent in started:
            agent.wait()
        raise


def _create(place: Place) -> str:
    """Create the sweep on the server; returns ENTITY/PROJECT/ID."""
    import wandb

    sweep = place.sweep
    entity = sweep.content.get("entity")
    new = ["--new"] if place.fresh else []
    command = [*sweep.content["command"], "--output", str(place.root.resolve()), *new]
    content = {"name": sweep.name, **sweep.content, "command": command}
    try:
        identity = wandb.sweep(content, entity=entity, project=sweep.project)
        entity = entity or wandb.Api().default_entity
    except (wandb.Error, ValueError, OSError) as error:
        raise UserError(
            f"W&B did not take the sweep: {str(error).splitlines()[0]}\nwandb login   renews the key"
        ) from None
    return f"{entity}/{sweep.project}/{identity}"


def _start_agent(path: str) -> subprocess.Popen[bytes]:
    """An agent of W&B's; `fulgurite` and `python` in its commands are those of this interpreter's environment."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "wandb", "agent", "--forward-signals", path]
    return subprocess.Popen(command, env={**os.environ, "PATH": search})
