"""What each verb of the command line does. Each imports only what it needs: `list`, `info`, `explain` no torch."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..registry import UserError

if TYPE_CHECKING:
    from .config.experiment import Experiment, Stage
    from .stages.runner import Engine


def run(options: argparse.Namespace) -> int:
    """`fulgurite run`: the stages of an experiment, once for each seed if seeds are given."""
    from .config.experiment import parse_flags, resolve

    flags, files = parse_flags(options.settings), _config_files(options.config)
    seeds = _seeds(options.seeds)
    experiment = resolve(options.experiment, flags, files)
    wandb = _wandb(options)
    max_time_s = _seconds(options.max_time)
    _check_where(options)
    if options.on == "slurm":
        return _queue(options, experiment)

    from .stages.group import of_launcher, queues_again
    from .stages.runner import RunOptions, run_experiment

    command = shlex.join(["fulgurite", *sys.argv[1:]])
    new = options.new and not os.environ.get("SLURM_RESTART_COUNT")  # a job that was queued again goes on
    with _engine(options, experiment) as engine:
        run_options = RunOptions(Path(options.output), new, max_time_s, wandb, command, engine)
        if seeds:
            from .stages.seeds import run_seeds

            if of_launcher():
                raise UserError(
                    "--seeds takes one process\nUnder torchrun or srun, give one --seed_everything at a time."
                )
            return run_seeds(options.experiment, flags, files, seeds, run_options)
        try:
            folder = run_experiment(experiment, run_options)
        except SystemExit as stop:
            from .clusters.slurm import is_follower_told_to_stop, requeue

            if isinstance(stop.code, int) and is_follower_told_to_stop(stop.code):
                return 0
            if isinstance(stop.code, int) and queues_again(stop.code):
                requeue()
            raise
    from .stages.past_runs import print_outcome

    return print_outcome(folder.path)


def _engine(options: argparse.Namespace, experiment: Experiment) -> contextlib.AbstractContextManager[Engine | None]:
    """Where the stages run: Ray Train, or None for this process.

    Raises:
        UserError: for what can't work there.
    """
    if options.on != "ray":
        return contextlib.nullcontext()
    from .clusters.ray_train import RayOptions, check_experiment, on_ray

    count = 1 if options.num_workers is None else options.num_workers
    address = options.address or os.environ.get("RAY_ADDRESS") or None
    ray_options = RayOptions(count, _resources(options.resources), address)
    check_experiment(experiment, ray_options)
    return on_ray(ray_options)


_WHERE = {
    "ray": ("num_workers", "resources", "address"),
    "slurm": ("nodes", "gpus_per_node", "tasks_per_node", "cluster", "dry_run"),
}


def _check_where(options: argparse.Namespace) -> None:
    """Refuse an option of one way to run without that way.

    Raises:
        UserError: names it.
    """
    for way, names in _WHERE.items():
        for name in names:
            value = getattr(options, name)
            if value is not None and value is not False and options.on != way:
                raise UserError(f"--{name.replace('_', '-')} without --on {way}\nAdd --on {way}, or leave it out.")


def _queue(options: argparse.Namespace, experiment: Experiment) -> int:
    """Queue the command as a job of SLURM, or print its script."""
    from .clusters.cluster_file import read_cluster
    from .clusters.slurm import SlurmOptions, check_experiment, log_of, script, submit

    if options.seeds:
        raise UserError("--seeds with --on slurm\nQueue one job for each seed: --seed_everything 0, then 1, …")
    cluster = read_cluster(Path(options.cluster) if options.cluster else None)
    nodes, tasks = (1 if n is None else n for n in (options.nodes, options.tasks_per_node))
    found = SlurmOptions(cluster, nodes, options.gpus_per_node or 0, tasks, Path(options.output))
    check_experiment(experiment, found)
    words = sys.argv[1:]
    if options.dry_run:
        print(script(words, experiment.name, found))
        return 0
    job = submit(words, experiment.name, found)
    print(
        f"job {job} is queued\nlog: {log_of(job, found)}\nfulgurite runs   shows how far it is; scancel {job}   ends it"
    )
    return 0


def _resources(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    found = dict(re.findall(r"([A-Za-z_]\w*)=(\d+(?:\.\d+)?)(?:,|$)", text))
    if not found or ",".join(f"{k}={v}" for k, v in found.items()) != text:
        raise UserError(f"--resources {text}: give names and amounts, such as --resources CPU=4,GPU=1")
    return {name: float(value) for name, value in found.items()}


def sweep(options: argparse.Namespace) -> int:
    """`fulgurite sweep`: many runs of one experiment, by a W&B sweep file."""
    if options.agents < 1:
        raise UserError(f"--agents {options.agents}: at least one trial runs at a time")

    from .sweeps.run_sweep import run_sweep

    return run_sweep(options.file, Path(options.output), options.new, options.agents)


def plan(options: argparse.Namespace) -> None:
    """`fulgurite plan`: what an experiment would take on a card."""
    from .plan.report import print_plan

    print_plan(options, _config_files(options.config))


def list_names(options: argparse.Namespace) -> None:
    """`fulgurite list`."""
    from .listing import print_list

    print_list(options.kind)


def info(options: argparse.Namespace) -> None:
    """`fulgurite info`."""
    from .listing import print_info

    print_info(options.name)


def explain(options: argparse.Namespace) -> None:
    """`fulgurite explain`."""
    from .config.experiment import parse_flags, resolve
    from .config.explain import print_explanation

    print_explanation(
        resolve(options.experiment, parse_flags(options.settings), _config_files(options.config)), options.key
    )


def fetch(options: argparse.Namespace) -> None:
    """`fulgurite fetch`."""
    from ..datamodules.sources.download import fetch as fetch_source

    names, further = [*options.names], [*options.settings, *options.config]
    if options.experiment:
        from .config.experiment import parse_flags, resolve
        from .config.needs import sources_of

        experiment = resolve(options.experiment, parse_flags(options.settings), _config_files(options.config))
        names += sources_of(experiment)
        if not names:
            print(f"{options.experiment} needs no download")
    elif further:
        raise UserError(f"'{further[0]}' is too much\nSettings and files go with --for EXPERIMENT.")
    elif not names:
        raise UserError(
            "fetch what?\nfulgurite fetch NAME, or --for EXPERIMENT\nfulgurite list sources   shows the names"
        )
    for name in names:
        print(f"{name}: {fetch_source(name)}")


def cache(options: argparse.Namespace) -> None:
    """`fulgurite cache list|clean`."""
    from .listing import clean_cache, print_cache

    clean_cache(options.names) if options.action == "clean" else print_cache()


def runs(options: argparse.Namespace) -> int:
    """`fulgurite runs watch|list|show|stop|resume|compare|clean`."""
    from .stages import past_runs as past
    from .stages.watching import is_anything_under_way, resume, stop, watch

    root, live = Path(options.output), sys.stdout.isatty()
    if options.action == "watch" or (options.action is None and live and is_anything_under_way(root)):
        watch(root, live)
    elif options.action in ("stop", "resume"):
        if len(options.names) != 1:
            raise UserError(f"{options.action} takes one run\nfulgurite runs list   shows them")
        run = past.find_run(root, options.names[0])
        if options.action == "resume":
            return resume(run)
        stop(run)
    elif options.action == "show":
        past.show(root, options.names)
    elif options.action == "compare":
        past.compare(root, options.names)
    elif options.action == "clean":
        past.clean(root, options.names)
    else:
        past.print_runs(root)
    return 0


def export(options: argparse.Namespace) -> None:
    """`fulgurite export RUN`."""
    from .export import export as export_run
    from .stages.past_runs import find_run

    for path in export_run(
        find_run(Path(options.output), options.run), options.format, Path(options.out), options.stage
    ):
        print(path)


def results(options: argparse.Namespace) -> None:
    """`fulgurite results`."""
    from .records.results import publish, write_results

    for name in options.publish:
        publish(Path(options.output), name)
    print(write_results())


def new(options: argparse.Namespace) -> None:
    """`fulgurite new paper NAME`."""
    from .new_paper import write_skeleton

    write_skeleton(options.name)


def doctor(options: argparse.Namespace) -> int:
    """`fulgurite doctor`."""
    from .doctor import print_report

    return print_report()


def lightning_verb(verb: str, arguments: list[str]) -> int:
    """`fulgurite fit EXPERIMENT …`: stock LightningCLI; an experiment's name stands for `-c` its resolved file, with
    the settings among the flags (short forms too) laid over it and checked like those of `run`.
    """
    import datetime
    import tempfile

    import yaml

    from .config.experiment import parse_flags, resolve
    from .config.settings import read_yaml

    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder, config, settings = Path("runs") / verb / f"{verb}-{stamp}", [], None
    for option, value in itertools.pairwise(arguments):
        if option in ("-c", "--config") and Path(value).suffix in (".yaml", ".yml"):
            read_yaml(_config_files([value])[0])
    if arguments and not arguments[0].startswith("-"):
        flags, arguments = _split_settings(arguments)
        experiment = resolve(flags.pop(0), parse_flags(flags))
        chosen = [s for s in experiment.stages if s.verb == verb] or [s for s in experiment.stages if s.verb == "fit"]
        if len(chosen) != 1:
            raise UserError(
                f"{experiment.name} has {len(chosen)} stages to {verb}\n"
                f"fulgurite run {experiment.name}   runs all its stages"
            )
        folder = Path("runs") / experiment.name / f"{verb}-{stamp}"
        from .stages.placeholders import expand

        if verb != "fit" and not _given(arguments, "--ckpt_path", "--print_config", "--help", "-h"):
            checkpoint = _newest_checkpoint(verb, experiment, chosen[0])
            print(f"checkpoint: {checkpoint}, of the newest finished run", file=sys.stderr)
            arguments = [*arguments, "--ckpt_path", str(checkpoint)]
        settings = expand(chosen[0].settings, folder, experiment.seed)
        if settings.get("runner") == "rllib":
            print(f"note: `fulgurite {verb}` is Lightning's; `fulgurite run` takes RLlib", file=sys.stderr)
        values = {k: v for k, v in settings.to_dict().items() if k not in ("ckpt_path", "runner", "rllib")}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            yaml.safe_dump(values, file, sort_keys=False)
        config = ["-c", file.name]

    from .lightning import run_verb
    from .stages.lightning_stage import default_callbacks

    try:
        run_verb([verb, *config, *arguments], folder, default_callbacks(folder), False, settings)
    finally:
        for path in config[1:]:
            Path(path).unlink()
    print(folder)
    return 0


def _given(arguments: list[str], *options: str) -> bool:
    return any(a.partition("=")[0] in options or a.endswith(".help") for a in arguments)


def _newest_checkpoint(verb: str, experiment: Experiment, stage: Stage) -> Path:
    """The checkpoint that a stage names, or that its fit left, in the newest finished run of its experiment.

    Raises:
        UserError: if there is none.
    """
    from .stages.run_folder import all_runs

    root = Path("runs")
    named = str(stage.settings.get("ckpt_path") or f"${{run_dir}}/{stage.name}/checkpoints/last.ckpt")
    for run in reversed(list(all_runs(root / experiment.name))):
        checkpoint = Path(named.replace("${run_dir}", str(run.path)))
        if run.path.parent == root / experiment.name and run.finished and checkpoint.is_file():
            return checkpoint
    raise UserError(
        f"{verb} needs a checkpoint, and {root} holds no finished run of {experiment.name}\n"
        f"Give one with --ckpt_path FILE, or make one:\nfulgurite run {experiment.name}"
    )


def _split_settings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """An experiment's name and the settings that follow it; and what only LightningCLI understands (`--print_config`,
    `--ckpt_path`, `-c`, `--model.help`, `--trainer.callbacks+`).
    """
    ours, rest = [arguments[0]], list(arguments[1:])
    stock: list[str] = []
    while rest:
        key, equals, _ = rest[0].partition("=")
        setting = key.startswith("--") and ("." in key or key in ("--model", "--data", "--seed_everything"))
        setting = setting and not key.endswith((".help", "+"))
        target = ours if setting else stock
        target.append(rest.pop(0))
        if not equals and rest and not rest[0].startswith("--"):
            target.append(rest.pop(0))
    return ours, stock


def _wandb(options: argparse.Namespace) -> dict[str, str | None] | None:
    """Where to log to W&B, if anywhere; a trial that `wandb agent` has started logs to its sweep without being asked.

    Raises:
        UserError: for a detail without the switch.
    """
    details = {name: getattr(options, f"wandb_{name}") for name in ("entity", "group", "tags")}
    of_agent = bool(os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"))
    for name, value in details.items():
        if value and not options.wandb:
            raise UserError(f"--wandb-{name} without --wandb\nAdd --wandb PROJECT, which turns the logging on.")
    return {"project": options.wandb, **details} if options.wandb or of_agent else None


def _config_files(names: list[str]) -> list[Path]:
    for name in names:
        if not Path(name).is_file():
            raise UserError(f"no such file: {name}")
    return [Path(n) for n in names]


def _seeds(text: str | None) -> list[int]:
    if not text:
        return []
    if not re.fullmatch(r"\d{1,20}(,\d{1,20})+", text):
        raise UserError(f"--seeds {text}: give at least two whole numbers, such as --seeds 0,1,2")
    seeds = [int(s) for s in text.split(",")]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: a seed stands there twice; each seed counts once")
    return seeds


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found or float(found.group(1)) == 0:
        raise UserError(f"--max-time {text}: give a time such as 90s, 9m or 1.5h")
    return float(found.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[found.group(2)]
