"""Golden texts: what a user reads after each kind of mistake. Each is short, says where, and what to do next."""

# ruff: noqa: E501  (a golden text stands here as the user sees it)

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulgurite import cli
from fulgurite.launch.experiment import resolve
from fulgurite.registry import UserError

# name: (files, command line, exact text after `fulgurite: `)
WITHOUT_TORCH: dict[str, tuple[dict[str, str], str, str]] = {
    "unknown experiment": (
        {},
        "run helo",
        """\
        no experiment named 'helo'
        Did you mean 'hello'?
        fulgurite list experiments   shows all""",
    ),
    "unknown experiment in a folder": (
        {},
        "run dnd/tinny",
        """\
        no experiment named 'dnd/tinny'
        Did you mean 'dnd/tiny'?
        fulgurite list experiments   shows all""",
    ),
    "missing file": (
        {"mine.yaml": "base: hello\n"},
        "run minne.yaml",
        """\
        no such file: minne.yaml
        Did you mean 'mine.yaml'?
        fulgurite list experiments   shows the names""",
    ),
    "misspelt model key, file": (
        {"a.yaml": "base: hello\nmodel:\n  init_args:\n    widht: 3\n"},
        "run a.yaml",
        """\
        a.yaml:4: HelloModule has no argument 'widht'
        Did you mean 'width'?
        fulgurite info hello   shows its arguments""",
    ),
    "misspelt model key, flag": (
        {},
        "run hello --model.widht 3",
        """\
        --model.widht: HelloModule has no argument 'widht'
        Did you mean 'width'?
        fulgurite info hello   shows its arguments""",
    ),
    "misspelt data key, flag": (
        {},
        "run hello --data.batchsize 3",
        """\
        --data.batchsize: DigitsDataModule has no argument 'batchsize'
        Did you mean 'batch_size' or 'num_batches'?
        fulgurite info digits   shows its arguments""",
    ),
    "misspelt trainer key, file": (
        {"a.yaml": "base: hello\ntrainer:\n  max_epoch: 3\n"},
        "run a.yaml",
        """\
        a.yaml:3: Trainer has no argument 'max_epoch'
        Did you mean 'max_epochs' or 'min_epochs' or 'max_steps'?
        fulgurite info trainer   shows its arguments""",
    ),
    "misspelt trainer key, flag": (
        {},
        "run hello --trainer.max_stepz 3",
        """\
        --trainer.max_stepz: Trainer has no argument 'max_stepz'
        Did you mean 'max_steps' or 'max_time' or 'min_steps'?
        fulgurite info trainer   shows its arguments""",
    ),
    "misspelt top key": (
        {"a.yaml": "base: hello\nmodle:\n  class_path: hello\n"},
        "run a.yaml",
        """\
        a.yaml:3: unknown key 'modle'
        Did you mean 'model'?
        fulgurite explain hello   shows a whole experiment""",
    ),
    "misspelt key in a file laid over": (
        {"over.yaml": "trainer:\n  max_epochz: 1\n"},
        "run hello -c over.yaml",
        """\
        over.yaml:2: Trainer has no argument 'max_epochz'
        Did you mean 'max_epochs' or 'min_epochs' or 'max_steps'?
        fulgurite info trainer   shows its arguments""",
    ),
    "misspelt key in an optimizer": (
        {
            "a.yaml": "base: hello\nmodel:\n  init_args:\n    optimizer:\n      class_path: torch.optim.AdamW\n      init_args: {lrr: 1}\n"
        },
        "run a.yaml",
        """\
        a.yaml:6: AdamW has no argument 'lrr'
        Did you mean 'lr'?
        fulgurite info torch.optim.AdamW   shows its arguments""",
    ),
    "misspelt key in a list of callbacks": (
        {
            "a.yaml": "base: hello\ntrainer:\n  callbacks:\n  - class_path: lightning.pytorch.callbacks.EarlyStopping\n"
            "    init_args:\n      monitr: val/accuracy\n"
        },
        "run a.yaml",
        """\
        a.yaml:6: EarlyStopping (in trainer.callbacks) has no argument 'monitr'
        Did you mean 'monitor'?
        fulgurite info lightning.pytorch.callbacks.EarlyStopping   shows its arguments""",
    ),
    "wrong type, file": (
        {"a.yaml": "base: hello\nmodel:\n  init_args: {width: wide}\n"},
        "run a.yaml",
        """\
        a.yaml:3: HelloModule: 'width' is int, not 'wide'
        fulgurite info hello   shows its arguments""",
    ),
    "wrong type, flag": (
        {},
        "run hello --trainer.max_epochs few",
        """\
        --trainer.max_epochs: Trainer: 'max_epochs' is int or null, not 'few'
        fulgurite info trainer   shows its arguments""",
    ),
    "wrong type of init_args": (
        {"a.yaml": "base: hello\nmodel: {init_args: [3]}\n"},
        "run a.yaml",
        """\
        a.yaml:2: init_args is a mapping of arguments, not [3]
        fulgurite info hello   shows its arguments""",
    ),
    "model that is a number": (
        {"a.yaml": "base: hello\nmodel: 3\n"},
        "run a.yaml",
        """\
        a.yaml:2: `model:` has no class_path
        Write `model: {class_path: NAME, init_args: …}`.
        fulgurite list models   shows the names""",
    ),
    "seed that is no number": (
        {},
        "run hello --seed_everything many",
        "--seed_everything: seed_everything is a whole number, not 'many'",
    ),
    "unregistered model": (
        {"a.yaml": "base: hello\nmodel:\n  class_path: helo\n"},
        "run a.yaml",
        """\
        a.yaml:3: no model named 'helo'
        Did you mean 'hello'?
        fulgurite list models   shows all""",
    ),
    "short name inside a model": (
        {"a.yaml": "base: hello\nmodel: {init_args: {optimizer: {class_path: AdamW}}}\n"},
        "run a.yaml",
        """\
        a.yaml:2: 'AdamW' is no dotted path of a class
        Did you mean 'torch.optim.AdamW'?
        A class inside `model` or `data` is named by its full path, such as torch.optim.AdamW.""",
    ),
    "class that does not exist": (
        {"a.yaml": "model: fulgurite.lightning_modules.hello.HeloModule\n"},
        "run a.yaml",
        """\
        a.yaml:1: fulgurite.lightning_modules.hello has no 'HeloModule'
        Did you mean 'fulgurite.lightning_modules.hello.HelloModule'?
        fulgurite list models   shows the registered names""",
    ),
    "library class that does not exist": (
        {},
        "run hello --model.optimizer.class_path torch.optim.AdamWW",
        """\
        --model.optimizer.class_path: torch.optim has no 'AdamWW'
        Did you mean 'torch.optim.AdamW' or 'torch.optim.Adam' or 'torch.optim.RAdam'?""",
    ),
    "class off the allowlist": (
        {"a.yaml": "base: hello\nmodel: {class_path: os.system}\n"},
        "run a.yaml",
        """\
        a.yaml:2: 'os.system' is not on the import allowlist
        Experiments may name classes of fulgurite, torch, lightning, torchmetrics, transformers, peft, diffusers and of installed plug-ins.
        If you trust this file: FULGURITE_ALLOW_IMPORTS=os fulgurite …""",
    ),
    "datamodule as model": (
        {"a.yaml": "base: hello\nmodel: {class_path: digits}\n"},
        "run a.yaml",
        """\
        a.yaml:2: 'digits' is a datamodule, not a model
        fulgurite list models   shows the models""",
    ),
    "datamodule as model, by its path": (
        {},
        "run hello --model fulgurite.lightning_modules.hello.DigitsDataModule",
        """\
        --model: fulgurite.lightning_modules.hello.DigitsDataModule is no LightningModule
        fulgurite list models   shows the registered ones""",
    ),
    "neither model nor stages": (
        {"a.yaml": "title: nothing\n"},
        "run a.yaml",
        """\
        a: no `model:` and no `stages:`
        An experiment needs one of the two.
        fulgurite explain hello   shows a small one""",
    ),
    "tab": (
        {"a.yaml": "base: hello\nmodel:\n\tclass_path: hello\n"},
        "run a.yaml",
        """\
        a.yaml:3: not valid YAML: found character 'tab' that cannot start any token
        Check the indentation (spaces, no tabs) and the quotes on and above this line.""",
    ),
    "indentation": (
        {"a.yaml": "base: hello\nmodel:\n  class_path: hello\n   init_args: 3\n"},
        "run a.yaml",
        """\
        a.yaml:4: not valid YAML: mapping values are not allowed here
        Check the indentation (spaces, no tabs) and the quotes on and above this line.""",
    ),
    "bytes that are no text": (
        {"a.yaml": "base: hello\n\udcff\n"},
        "run a.yaml",
        """\
        a.yaml:2: not UTF-8 text: invalid start byte
        Save the file as UTF-8.""",
    ),
    "python tag": (
        {"a.yaml": "model: !!python/object/apply:os.system [ls]\n"},
        "run a.yaml",
        """\
        a.yaml:1: not valid YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'
        Check the indentation (spaces, no tabs) and the quotes on and above this line.""",
    ),
    "date that is none": (
        {"a.yaml": "title: 2020-99-99\n"},
        "run a.yaml",
        """\
        a.yaml:1: can't be read: month must be in 1..12
        Put it in quotes if it is text.""",
    ),
    "list": (
        {"a.yaml": "- base: hello\n"},
        "run a.yaml",
        """\
        a.yaml:1: an experiment is a mapping of keys to values, this is a list
        fulgurite explain hello   shows one""",
    ),
    "duplicate key": (
        {"a.yaml": "base: hello\ntrainer: {max_epochs: 1}\ntrainer: {max_epochs: 2}\n"},
        "run a.yaml",
        """\
        a.yaml:3: 'trainer' is set twice in this file
        Keep one of the two.""",
    ),
    "circle": (
        {"a.yaml": "base: b.yaml\n", "b.yaml": "title: b\nbase: [hello, a.yaml]\n"},
        "run a.yaml",
        """\
        b.yaml:2: `base:` goes round in a circle:
        a.yaml -> b.yaml -> a.yaml
        Take one of these `base:` lines out.""",
    ),
    "missing base": (
        {"a.yaml": "title: x\nbase: base/cpuu\n"},
        "run a.yaml",
        """\
        a.yaml:2: no experiment named 'base/cpuu'
        Did you mean 'base/cpu'?
        fulgurite list experiments   shows all""",
    ),
    "missing base file": (
        {"a.yaml": "base: other.yaml\n"},
        "run a.yaml",
        """\
        a.yaml:1: no such file: other.yaml
        Give a path to a YAML file, or a name.
        fulgurite list experiments   shows the names""",
    ),
    "unknown stage key": (
        {"a.yaml": "stages:\n- name: train\n  verbb: fit\n  experiment: hello\n"},
        "run a.yaml",
        """\
        a.yaml:3: unknown key 'verbb'
        Did you mean 'verb'?
        fulgurite explain dnd/tiny   shows a whole staged experiment""",
    ),
    "unknown stage": (
        {"a.yaml": "stages:\n- {name: train, experiment: hello}\ntrian:\n  trainer: {max_epochs: 1}\n"},
        "run a.yaml",
        """\
        a.yaml:4: unknown key 'trian'
        Did you mean 'train'?
        fulgurite explain dnd/tiny   shows a whole staged experiment""",
    ),
    "unknown stage on the command line": (
        {"a.yaml": "stages:\n- {name: train, experiment: hello}\n"},
        "run a.yaml --trian.trainer.max_epochs 1",
        """\
        --trian.trainer.max_epochs: unknown key 'trian'
        Did you mean 'train'?
        fulgurite explain dnd/tiny   shows a whole staged experiment""",
    ),
    "unknown stage verb": (
        {"a.yaml": "stages:\n- name: train\n  verb: tset\n  experiment: hello\n"},
        "run a.yaml",
        """\
        a.yaml:3: stage 'train': no verb 'tset'
        Did you mean 'test'? Verbs are fit, validate, test, predict, command.""",
    ),
    "unknown stage command": (
        {"a.yaml": "stages:\n- name: test\n  command: dnd evalute\n"},
        "run a.yaml",
        """\
        a.yaml:3: no command named 'dnd evalute'
        Did you mean 'dnd evaluate' or 'dnd adapt'?
        fulgurite list commands   shows all""",
    ),
    "unknown stage experiment": (
        {"a.yaml": "stages:\n- name: train\n  experiment: helo\n"},
        "run a.yaml",
        """\
        a.yaml:3: no experiment named 'helo'
        Did you mean 'hello'?
        fulgurite list experiments   shows all""",
    ),
    "misspelt override": (
        {"a.yaml": "stages:\n- name: train\n  experiment: hello\n  overrides:\n    model:\n      widht: 1\n"},
        "run a.yaml",
        """\
        a.yaml:6: HelloModule has no argument 'widht'
        Did you mean 'width'?
        fulgurite info hello   shows its arguments""",
    ),
    "two stages of one name": (
        {"a.yaml": "stages:\n- {name: a, experiment: hello}\n- {name: a, experiment: hello}\n"},
        "run a.yaml",
        """\
        a.yaml:1: two stages have the same name
        Stage names are folder names: each must be its own.""",
    ),
    "missing required argument": (
        {"a.yaml": "model: dnd\n"},
        "run a.yaml",
        """\
        DnDModule needs 'shapes' (list[list[int]])
        Set model.init_args.shapes in the YAML, or --model.init_args.shapes on the command line.
        fulgurite info dnd   shows its arguments""",
    ),
    "missing required argument of a command": (
        {"a.yaml": "stages:\n- {name: adapt, command: dnd adapt}\n"},
        "run a.yaml",
        """\
        command 'dnd adapt' needs 'prompts' (Path)
        Set prompts in the YAML, or --prompts on the command line.
        fulgurite dnd adapt --help   shows its options""",
    ),
    "option without value": (
        {},
        "run hello --trainer.max_epochs",
        """\
        --trainer.max_epochs needs a value
        Write --trainer.max_epochs VALUE (true or false for a switch).""",
    ),
    "word that is no setting": (
        {},
        "run hello max_epochs=3",
        """\
        'max_epochs=3' is no setting
        A setting is written --key value, such as --trainer.max_steps 5.""",
    ),
    "unknown option of a verb": (
        {},
        "runs --outptu x",
        """\
        unknown option '--outptu'
        Did you mean '--output'?
        fulgurite runs --help   shows the options""",
    ),
    "misspelt option of run": (
        {},
        "run hello --outptu x",
        """\
        unknown option '--outptu'
        Did you mean '--output'?
        fulgurite run --help   shows the options""",
    ),
    "unknown verb": (
        {},
        "rnu hello",
        """\
        no verb 'rnu'
        Did you mean run?
        fulgurite --help   shows all""",
    ),
    "unknown action": (
        {},
        "cache clear",
        """\
        no action 'clear' of cache: list, clean
        Did you mean clean?
        fulgurite cache --help   shows the options""",
    ),
    "missing argument of a verb": (
        {},
        "run",
        """\
        the following arguments are required: experiment
        fulgurite run --help   shows the options""",
    ),
    "unknown name": (
        {},
        "info helo",
        """\
        nothing is named 'helo'
        Did you mean 'hello'?
        fulgurite list   shows all names""",
    ),
    "unknown kind": (
        {},
        "list modles",
        """\
        nothing called 'modles' to list
        Did you mean models or datamodules?
        fulgurite list   shows all kinds""",
    ),
    "unknown source": (
        {},
        "fetch smollm2-135m-instuct",
        """\
        no source named 'smollm2-135m-instuct'
        Did you mean 'smollm2-135m-instruct'?
        fulgurite list sources   shows all""",
    ),
    "unknown command of a group": (
        {},
        "dnd adpt",
        """\
        no command 'dnd adpt'
        Did you mean dnd adapt?
        fulgurite list commands   shows all""",
    ),
    "unknown key to explain": (
        {},
        "explain hello model.widht",
        """\
        hello has no key 'model.widht'
        Did you mean model.width?
        fulgurite explain hello   shows every key""",
    ),
    "time that is none": (
        {},
        "run hello --max-time soon",
        "--max-time soon: give a time such as 90s, 9m or 1.5h",
    ),
    "one seed": (
        {},
        "run hello --seeds 1",
        "--seeds 1: give at least two whole numbers, such as --seeds 0,1,2",
    ),
    "LightningCLI verb, misspelt key": (
        {},
        "fit hello --model.init_args.widht 3",
        """\
        --model.init_args.widht: HelloModule has no argument 'widht'
        Did you mean 'width'?
        fulgurite info hello   shows its arguments""",
    ),
    "LightningCLI verb, broken file": (
        {"a.yaml": "model:\n\tclass_path: hello\n"},
        "fit -c a.yaml",
        """\
        a.yaml:2: not valid YAML: found character 'tab' that cannot start any token
        Check the indentation (spaces, no tabs) and the quotes on and above this line.""",
    ),
}

WITH_TORCH: dict[str, tuple[dict[str, str], str, str]] = {
    "wrong type in an optimizer, file": (
        {
            "a.yaml": "base: hello\nmodel:\n  init_args:\n    optimizer:\n      class_path: torch.optim.AdamW\n      init_args:\n        lr: fast\n"
        },
        "run a.yaml",
        """\
        a.yaml:7: 'model.optimizer.lr' is float, not 'fast'
        fulgurite info torch.optim.AdamW   shows its arguments""",
    ),
    "wrong type in an optimizer, flag": (
        {},
        "run hello --model.optimizer.class_path torch.optim.SGD --model.optimizer.lr fast",
        """\
        --model.optimizer.lr: 'model.optimizer.lr' is float, not 'fast'
        fulgurite info torch.optim.SGD   shows its arguments""",
    ),
    "number as optimizer": (
        {"a.yaml": "base: hello\nmodel:\n  init_args:\n    optimizer: 3\n"},
        "run a.yaml",
        """\
        a.yaml:4: 'model.optimizer' is a class or a function: Expected an import path or a subclass spec, but got 3
        Write {class_path: NAME, init_args: …}.
        fulgurite info hello   shows its arguments""",
    ),
    "literal": (
        {},
        "run hello --trainer.precision 16-mix",
        """\
        --trainer.precision: 'trainer.precision' is one of transformer-engine, transformer-engine-float16, 16-true, 16-mixed, bf16-true, bf16-mixed, 32-true, 64-true, 64, 32, 16, bf16, not '16-mix'
        Did you mean 16-mixed or bf16-mixed?
        fulgurite info trainer   shows its arguments""",
    ),
    "class of the wrong kind": (
        {"a.yaml": "base: hello\nmodel: torch.nn.Identity\n"},
        "run a.yaml",
        """\
        a.yaml:2: 'model' is a LightningModule, which torch.nn.Identity is not
        fulgurite info torch.nn.Identity   shows its arguments""",
    ),
    "value that a constructor refuses": (
        {
            "a.yaml": "base: hello\ntrainer:\n  callbacks:\n"
            "  - {class_path: fulgurite.launch.callbacks.ResumePoint, init_args: {every_n_steps: 0}}\n"
        },
        "run a.yaml",
        """\
        ResumePoint: every_n_steps is at least 1, not 0
        fulgurite info fulgurite.launch.callbacks.resume_point.ResumePoint   shows its arguments""",
    ),
    "interpolation of nothing": (
        {"a.yaml": "base: hello\nmodel:\n  init_args: {width: '${data.init_args.widht}'}\n"},
        "run a.yaml",
        """\
        a.yaml:3: 'model.init_args.width': Interpolation key 'data.init_args.widht' not found
        Write ${a.b} with the full path of another key, ${seed} or ${run_dir}.""",
    ),
    "settings that Lightning refuses": (
        {},
        "run hello --trainer.strategy dpp",
        """\
        Lightning can't run these settings: You selected an invalid strategy name: `strategy='dpp'`. It must be either a string or an instance of `lightning.pytorch.strategies.Strategy`. Example choices: auto, ddp, ddp_spawn, deepspeed, ... Find a complete list of options in our documentation at https://lightning.ai
        fulgurite info trainer   shows its arguments""",
    ),
    "missing checkpoint of a stage": (
        {
            "a.yaml": "stages:\n- name: test\n  verb: test\n  experiment: hello\n  overrides:\n    ckpt_path: nope.ckpt\n"
        },
        "run a.yaml",
        "a.yaml:6: no checkpoint at nope.ckpt",
    ),
    "damaged checkpoint": (
        {
            "a.yaml": "stages:\n- {name: test, verb: test, experiment: hello, overrides: {ckpt_path: bad.ckpt}}\n",
            "bad.ckpt": "not a checkpoint",
        },
        "run a.yaml",
        """\
        the checkpoint can't be read: Weights only load failed. In PyTorch 2.6, we changed the default value of the `weights_only` argument in `torch.load` from `False` to `True`. Re-running `torch.load` with `weights_only` set to `False` will likely succeed, but it can result in arbitrary code execution. Do it only if you got the file
        It is damaged, or holds more than tensors and numbers.""",
    ),
    "LightningCLI verb, unknown option": (
        {
            "a.yaml": "model: fulgurite.lightning_modules.hello.HelloModule\ndata: fulgurite.lightning_modules.hello.DigitsDataModule\n"
        },
        "fit -c a.yaml --trainer.max_stepz 3",
        """\
        unknown option --trainer.max_stepz
        Did you mean --trainer.max_steps or --trainer.max_time or --trainer.min_steps?
        fulgurite info trainer   shows its arguments""",
    ),
    "LightningCLI verb, nothing given": (
        {},
        "fit",
        """\
        needed and not given: fit.data, fit.model
        Name an experiment, or give a file that sets them: -c FILE
        fulgurite list experiments   shows the names""",
    ),
    "LightningCLI verb, missing file": ({}, "fit -c nope.yaml", "no such file: nope.yaml"),
    "LightningCLI verb, class off the allowlist": (
        {"a.yaml": "model: {class_path: os.system}\n"},
        "fit -c a.yaml",
        """\
        --model names 'os.system', which is not on the import allowlist
        If you trust it: FULGURITE_ALLOW_IMPORTS=os fulgurite …""",
    ),
    "LightningCLI verb, missing checkpoint": (
        {},
        "fit hello --ckpt_path nope.ckpt",
        "--ckpt_path: no checkpoint at nope.ckpt",
    ),
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(("files", "command", "wanted"), WITHOUT_TORCH.values(), ids=WITHOUT_TORCH.keys())
def test_text_of_a_mistake(files, command, wanted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, files)
    assert cli.main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.err == f"fulgurite: {dedent(wanted)}\n"
    assert printed.out == ""
    assert len(printed.err.splitlines()) <= 6
    assert [f.name for f in tmp_path.iterdir() if f.name not in files] == []  # no run folder was begun


@pytest.mark.slow
@pytest.mark.parametrize(("files", "command", "wanted"), WITH_TORCH.values(), ids=WITH_TORCH.keys())
def test_text_of_a_mistake_that_only_the_libraries_find(files, command, wanted, tmp_path, forked):
    write(tmp_path, files)
    outcome = forked(*command.split(), cwd=tmp_path, FULGURITE_ALLOW_IMPORTS="")
    assert outcome.status == 2, outcome.output
    text = re.sub(r"(?s).*^fulgurite: ", "", outcome.output, flags=re.MULTILINE)
    assert text == f"{dedent(wanted)}\n"
    assert len(text.splitlines()) <= 6


WORDS = st.sampled_from(
    ["base", "stages", "model", "data", "trainer", "class_path", "init_args", "name", "verb", "experiment", "overrides", "command",
     "seed_everything", "hello", "digits", "base/cpu", "fit", "test", "max_epochs", "callbacks", "width", "torch.optim.AdamW", "a.b", ""]
)  # fmt: skip
SCALARS = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def resolve_or_refuse(file: Path) -> None:
    try:
        resolve(str(file))
    except UserError as error:
        assert 1 <= len(str(error).splitlines()) <= 6


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(WORDS, TREES, max_size=5))
def test_any_mapping_is_an_experiment_or_refused_in_a_few_lines(tmp_path, tree):
    import yaml

    file = tmp_path / "any.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    resolve_or_refuse(file)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            [
                *"ab:-[]{}#&*!|>%@'\"\\,?.0123 \n\t",
                "<<",
                "base: ",
                "model: ",
                "stages:\n- name: ",
                "&x ",
                "*x",
                "!!",
                "${",
                "2020-",
                "\x00",
                "é",
            ]
        ),
        max_size=40,
    )
)
def test_any_text_is_an_experiment_or_refused_in_a_few_lines(tmp_path, pieces):
    file = tmp_path / "any.yaml"
    file.write_text("".join(pieces), encoding="utf-8")
    resolve_or_refuse(file)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_an_experiment_or_refused_in_a_few_lines(tmp_path, content):
    file = tmp_path / "any.yaml"
    file.write_bytes(content)
    resolve_or_refuse(file)


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "a: &a {b: *a}", "[" * 5000, "{a: " * 2000, "\n".join(["a0: &a0 {x: 1}"] + [f"a{n + 1}: &a{n + 1} {{x: *a{n}, y: *a{n}}}" for n in range(30)])],
    ids=["list in itself", "mapping in itself", "deep list", "deep mapping", "bomb of aliases"],
)  # fmt: skip
def test_hostile_files_are_refused(text, tmp_path):
    file = tmp_path / "hostile.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"hostile\.yaml"):
        resolve(str(file))
