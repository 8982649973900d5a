"""The front door: `fulgurite VERB …`. Names, help and mistakes are answered here without importing torch."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from . import __version__
from .registry import UserError, did_you_mean, nearest, read_index

EPILOG = """\
start here:    fulgurite run hello            a small model learns digits, in seconds
               fulgurite list                 experiments, models, commands, sources
               fulgurite run dnd/tiny         prompts to LoRA weights, a real small model, minutes
any setting:   fulgurite run hello --trainer.max_epochs 2 --model.width 32
where from:    fulgurite explain hello trainer.max_epochs
"""
_Argument = tuple[tuple[str, ...], dict[str, Any]]
LIGHTNING_VERBS = ("fit", "validate", "test", "predict")
CLUSTERS = ["ray", "slurm"]
RUN_ACTIONS = ["list", "watch", "show", "stop", "resume", "compare", "clean"]
EXPORT_FORMATS = ["safetensors", "hf", "diffusers", "peft", "onnx"]
SETTING_VERBS = ("run", "explain", "fetch", "plan")  # they take any setting, --key VALUE
ROOT_SETTINGS = ("--model", "--data", "--trainer")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status. A user's mistake is a short text on stderr and status 2."""
    # OpenMP's waiting threads spin by default: beside any other busy process, small models then train ten times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # where the terminal's encoding lacks a letter, its number is shown
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except UserError as error:
        print(f"fulgurite: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        from .launch.doctor import missing_package

        print(f"fulgurite: {missing_package(error.name, arguments) if error.name else error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fulgurite: stopped{_goes_on(arguments)}", file=sys.stderr)
        return 130
    except SystemExit as stop:
        if stop.code != 143 and type(stop).__name__ != "SIGTERMException":  # Lightning's own carries no status
            raise
        print(f"fulgurite: stopped by SIGTERM{_goes_on(arguments)}", file=sys.stderr)
        return 0 if os.environ.get("WANDB_SWEEP_ID") else 143  # its agent takes any other status for a failed trial
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _goes_on(arguments: list[str]) -> str:
    return "; the same command goes on where it stopped" if arguments[:1] in (["run"], ["sweep"]) else ""


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in LIGHTNING_VERBS:
        from .launch.verbs import lightning_verb

        return lightning_verb(arguments[0], arguments[1:])
    command = _registered(arguments)
    if command:
        from .launch.command_line import run_command

        return run_command(command, arguments[len(command.split()) :])
    _check_options(arguments)
    arguments, settings = _split_settings(arguments)
    options, rest = _parser().parse_known_args(arguments)
    if options.verb is None:
        _parser().print_help()
        return 0
    from .launch import verbs

    if rest and options.verb not in SETTING_VERBS:
        raise UserError(f"'{rest[0]}' is too much\nfulgurite {options.verb} --help   shows the options")
    options.settings = [*rest, *settings]
    return int(getattr(verbs, {"list": "list_names"}.get(options.verb, options.verb))(options) or 0)


def _split_settings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The part of a command line that argparse is to see, and the settings. A setting's value must never be taken for
    one of the verb's words, and words after an option must not get lost: so the words go first, then the options.

    Raises:
        UserError: if an option lacks its value.
    """
    verb, *rest = arguments or [""]
    if verb not in _verbs():
        return arguments, []
    known = {flag: keywords for flags, keywords in _verbs()[verb][1] for flag in flags}
    takes_value = {flag: k.get("action", "append") == "append" for flag, k in known.items()}
    options: list[str] = []
    words: list[str] = []
    settings: list[str] = []
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        ours = name in known or name == "--help"
        setting = verb in SETTING_VERBS and word.startswith("--") and len(word) > 2 and not ours
        target = settings if setting else options if word.startswith("-") and len(word) > 1 else words
        target.append(word)
        if (takes_value.get(name) or setting) and not equals:
            if rest and not rest[0].startswith("--" if setting else "-"):
                target.append(rest.pop(0))
                while known.get(name, {}).get("nargs") == "+" and rest and not rest[0].startswith("-"):
                    target.append(rest.pop(0))
            elif not setting:
                raise UserError(f"argument {name}: expected one argument\nfulgurite {verb} --help   shows the options")
    return [verb, *words, *options], settings


def _check_options(arguments: list[str]) -> None:
    """Find a misspelt option before argparse takes the word after it for something else.

    Raises:
        UserError: with the nearest options.
    """
    verb, *rest = arguments or [""]
    known = [flag for flags, _ in _verbs().get(verb, ("", []))[1] for flag in flags if flag.startswith("--")]
    for flag in (a.partition("=")[0] for a in rest if a.startswith("--") and verb in _verbs()):
        hint = did_you_mean(flag, known, end="\n")
        setting = verb in SETTING_VERBS and ("." in flag or flag in ROOT_SETTINGS or not hint)
        if flag not in (*known, "--help", "--") and not setting:
            raise UserError(f"unknown option '{flag}'\n{hint}fulgurite {verb} --help   shows the options")


def _registered(arguments: list[str]) -> str | None:
    """The registered command that the line begins with (`dnd adapt …`), or None.

    Raises:
        UserError: if only the group is right; with the nearest commands.
    """
    names = list(read_index().of("commands"))
    for size in (2, 1):
        if " ".join(arguments[:size]) in names and len(arguments) >= size:
            return " ".join(arguments[:size])
    group = [n for n in names if arguments and n.split()[0] == arguments[0] and " " in n]
    if group:
        if len(arguments) == 1 or arguments[1].startswith("-"):
            raise UserError("which one?\n" + "\n".join(f"fulgurite {n}" for n in group[:5]))
        near = [f"{arguments[0]} {n}" for n in nearest(arguments[1], [n.partition(" ")[2] for n in group])] or group[:3]
        raise UserError(
            f"no command '{' '.join(arguments[:2])}'\nDid you mean {' or '.join(near)}?\n"
            "fulgurite list commands   shows all"
        )
    return None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        if "invalid choice" in message and "'" in message:
            word, *choices = re.findall(r"'([^']*)'", message)
            name = message.split()[1].rstrip(":")
            if name != "VERB":
                hint = did_you_mean(word, choices, show=str, end="\n")
                raise UserError(
                    f"no {name} '{word}' of {self.prog.split()[-1]}: {', '.join(choices)}\n"
                    f"{hint}{self.prog} --help   shows the options"
                )
            verbs = [*_verbs(), *LIGHTNING_VERBS, *{n.split()[0] for n in read_index().of("commands")}]
            hint = did_you_mean(word, verbs, f"Verbs: {', '.join(verbs)}.", show=str)
            raise UserError(f"no verb '{word}'\n{hint}\nfulgurite --help   shows all")
        raise UserError(f"{message}\n{self.prog} --help   shows the options")


def _parser() -> _Parser:
    parser = _Parser(
        prog="fulgurite",
        description="Recent papers as PyTorch Lightning experiments that run from YAML.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fulgurite {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, (text, arguments) in _verbs().items():
        sub = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        for flags, keywords in arguments:
            sub.add_argument(*flags, **keywords)
    for verb in LIGHTNING_VERBS:
        subparsers.add_parser(
            verb,
            help=f"LightningCLI's {verb}: {verb} EXPERIMENT or -c FILE, --print_config, dotted overrides",
            add_help=False,
        )
    return parser


def _verbs() -> dict[str, tuple[str, list[_Argument]]]:
    experiment: tuple[tuple[str, ...], dict[str, Any]] = (
        ("experiment",),
        {"help": "name (see `fulgurite list experiments`) or path of a YAML file"},
    )
    output: tuple[tuple[str, ...], dict[str, Any]] = (
        ("--output",),
        {"default": "runs", "metavar": "FOLDER", "help": "where run folders lie (default: runs)"},
    )
    config: _Argument = (
        ("-c", "--config"),
        {"action": "append", "default": [], "metavar": "FILE", "help": "lay a YAML or JSON file over the experiment"},
    )
    return {
        "run": (
            "Run an experiment's stages, or go on with it where it was cut off. Any setting: --key VALUE.",
            [
                experiment,
                config,
                output,
                (("--new",), {"action": "store_true", "help": "start afresh even if the same run exists"}),
                (
                    ("--seeds",),
                    {"metavar": "0,1,2", "help": "run once for each seed, then give mean and spread"},
                ),
                (
                    ("--max-time",),
                    {"metavar": "9m", "help": "stop in good order after this time (s, m, h); run again to go on"},
                ),
                (
                    ("--wandb",),
                    {"metavar": "PROJECT", "help": "log to Weights & Biases too; offline where no key is set"},
                ),
                (("--wandb-entity",), {"metavar": "NAME", "help": "W&B entity"}),
                (("--wandb-group",), {"metavar": "NAME", "help": "W&B group"}),
                (("--wandb-tags",), {"metavar": "A,B", "help": "W&B tags"}),
                (("--on",), {"choices": CLUSTERS, "help": "run the stages on Ray Train, or as a job of SLURM"}),
                (("--num-workers",), {"type": int, "metavar": "N", "help": "ray: processes of a fit (default: 1)"}),
                (("--resources",), {"metavar": "CPU=4,GPU=1", "help": "ray: of each worker"}),
                (("--address",), {"metavar": "HOST:PORT", "help": "ray: of a cluster (default: RAY_ADDRESS, or none)"}),
                (("--nodes",), {"type": int, "metavar": "N", "help": "slurm: machines (default: 1)"}),
                (
                    ("--gpus-per-node",),
                    {"type": int, "metavar": "M", "help": "slurm: GPUs of each, a process for each"},
                ),
                (("--tasks-per-node",), {"type": int, "metavar": "M", "help": "slurm: processes of each without GPUs"}),
                (("--cluster",), {"metavar": "FILE", "help": "slurm: YAML file with partition, account, set-up lines"}),
                (("--dry-run",), {"action": "store_true", "help": "slurm: print the job's script"}),
            ],
        ),
        "list": (
            "List what there is: experiments, models, datamodules, commands, attention, sources, plugins.",
            [(("kind",), {"nargs": "?", "help": "one kind only"})],
        ),
        "info": (
            "What a name is, where it stands, what arguments it takes.",
            [(("name",), {"help": "any listed name, or a dotted path"})],
        ),
        "explain": (
            "Every resolved value of an experiment with the file and line, or the flag, that set it.",
            [experiment, (("key",), {"nargs": "?", "help": "one key, or everything below it"}), config],
        ),
        "fetch": (
            "Bring a source (model, data) into the cache; says its size and licence first.",
            [
                (("names",), {"nargs": "*", "metavar": "NAME", "help": "sources (see `fulgurite list sources`)"}),
                (
                    ("--for",),
                    {
                        "dest": "experiment",
                        "metavar": "EXPERIMENT",
                        "help": "all that an experiment needs; any setting",
                    },
                ),
                config,
            ],
        ),
        "cache": (
            "What the cache holds; free its space.",
            [
                (("action",), {"choices": ["list", "clean"], "nargs": "?", "default": "list"}),
                (("names",), {"nargs": "*", "metavar": "NAME", "help": "clean only these"}),
            ],
        ),
        "runs": (
            "What is under way (watch), past runs (list), show RUN, stop RUN, resume RUN, compare A B, clean.",
            [
                (("action",), {"choices": RUN_ACTIONS, "nargs": "?", "help": "watch where something runs, else list"}),
                (("names",), {"nargs": "*", "metavar": "RUN", "help": "run folders, or the last part of their names"}),
                output,
            ],
        ),
        "sweep": (
            "Run a W&B sweep file over an experiment: with W&B where there is a key, else here; again to go on.",
            [
                (("file",), {"help": "the sweep's YAML file, or its name under experiments/sweeps/"}),
                output,
                (("--new",), {"action": "store_true", "help": "start afresh even if the same sweep exists"}),
                (("--agents",), {"type": int, "default": 1, "metavar": "N", "help": "trials at once (default: 1)"}),
            ],
        ),
        "plan": (
            "What an experiment's training would take on a card: parameters, memory, work, hours. Any setting.",
            [
                experiment,
                config,
                (
                    ("--card",),
                    {"default": "h100", "metavar": "NAME", "help": "h100, h200, b200, a100, … (default: h100)"},
                ),
                (
                    ("--utilisation",),
                    {"type": float, "default": 0.35, "metavar": "SHARE", "help": "of the card's peak (default: 0.35)"},
                ),
            ],
        ),
        "export": (
            "What a run has trained, in a form that other libraries load.",
            [
                (("run",), {"metavar": "RUN", "help": "run folder, or the last part of its name"}),
                (("--format",), {"choices": EXPORT_FORMATS, "default": "safetensors", "help": "default: safetensors"}),
                (("--stage",), {"metavar": "NAME", "help": "this stage alone"}),
                (("--out",), {"metavar": "FOLDER", "default": "export", "help": "where to (default: export)"}),
                output,
            ],
        ),
        "results": (
            "Make docs/results.md from docs/records/; --publish RUN adds a run's record first.",
            [
                (("--publish",), {"nargs": "+", "default": [], "metavar": "RUN", "help": "run folders to publish"}),
                output,
            ],
        ),
        "new": (
            "Write the skeleton of a new paper: module, datamodule, smoke experiment, test, README.",
            [(("what",), {"choices": ["paper"]}), (("name",), {"help": "short name, such as `mamba`"})],
        ),
        "doctor": ("This machine, its versions, and what of each paper can run here.", []),
    }


if __name__ == "__main__":
    sys.exit(main())
