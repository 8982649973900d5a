"""Names: the index read from text agrees with what the code registers, and everything that uses it stays light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from fulgurite import registry
from fulgurite.registry import Registry, UserError, read_index, scan, unknown

IMPORT_ALL = """
import importlib, json
from fulgurite import registry
found, missing = {}, []
for room in registry.ROOMS:
    for file in sorted((registry.ROOT / room).rglob("*.py")):
        name = ".".join(("fulgurite", *file.relative_to(registry.ROOT).with_suffix("").parts)).removesuffix(".__init__")
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:  # a paper's extra that is not installed here
            if (error.name or "").startswith("fulgurite"):
                raise
            missing.append(name)
            continue
        for part in vars(module).values():
            if isinstance(part, registry.Registry):
                found[part.name] = {k: f"{v.__module__}.{v.__qualname__}" for k, v in part._parts.items()}
index = {}
for entry in registry.read_index().entries:
    if entry.plugin is None and entry.path.rpartition(".")[0] not in missing:
        index.setdefault(entry.registry, {})[entry.name] = entry.path
print(json.dumps([{k: v for k, v in found.items() if v}, index]))
"""


@pytest.mark.slow
def test_the_index_read_from_text_is_what_the_code_registers(child_environment, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL]
    done = subprocess.run(command, cwd=tmp_path, env=child_environment(), capture_output=True, text=True, check=True)
    registered, index = json.loads(done.stdout.splitlines()[-1])
    assert registered == index
    assert registered["models"]["hello"] == "fulgurite.lightning_modules.hello.HelloModule"


LIGHT = (
    "list",
    "info dnd",
    "info hello",
    "explain hello",
    "run hello --model.widht 1",
    "run unknown",
    "--version",
    "--help",
    "cache",
    "runs",
)


@pytest.mark.parametrize("command", LIGHT)
def test_questions_import_no_torch(command, child_environment, tmp_path):
    code = f"""
    import sys
    from fulgurite.cli import main
    try:
        main({command.split()!r})
    except SystemExit:
        pass
    print([m for m in ("torch", "lightning", "numpy", "transformers", "matplotlib") if m in sys.modules])
    """
    command_line = [sys.executable, "-c", dedent(code)]
    done = subprocess.run(command_line, cwd=tmp_path, env=child_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_second_part_of_the_same_name_is_refused_with_both_places():
    things = Registry("things")

    @things.register("a")
    def first() -> None: ...

    def second() -> None: ...

    with pytest.raises(ValueError, match=r"things: 'a' is registered twice") as refused:
        things.register("a")(second)
    assert "first" in str(refused.value)
    assert "second" in str(refused.value)
    assert str(refused.value).count("test_registry.py") == 2
    assert things.register("a")(first) is first  # the same part again, as after a reload, is no conflict


def test_two_files_with_one_name_are_both_named(tmp_path, monkeypatch):
    room = tmp_path / "datamodules"
    room.mkdir()
    for name in ("one.py", "two.py"):
        (room / name).write_text('@MODELS.register("same")\nclass A: ...\n')
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    read_index.cache_clear()
    try:
        with pytest.raises(UserError) as refused:
            read_index()
    finally:
        read_index.cache_clear()
    assert str(refused.value).splitlines()[1:3] == [f"{room / 'one.py'}:2", f"{room / 'two.py'}:2"]


def test_an_unknown_name_gives_the_nearest_and_the_command():
    with pytest.raises(UserError) as refused:
        registry.MODELS["helo"]
    assert str(refused.value) == "no model named 'helo'\nDid you mean 'hello'?\nfulgurite list models   shows all"
    assert unknown("commands", "zzz", ["dnd adapt"]).splitlines()[1] == "There are 1 of them."
    assert registry.nearest("tiny", ["dnd/tiny", "viki/tiny", "hello"]) == ["dnd/tiny", "viki/tiny"]


def test_a_paper_may_make_a_registry_of_its_own(tmp_path):
    file = tmp_path / "readers.py"
    file.write_text(
        dedent('''
        """Readers."""
        from fulgurite.registry import Registry
        READERS = Registry("readers")

        @READERS.register("pages", since=2025)
        def read(path: str) -> str:
            """Read a page.

            More."""
            return path
        ''')
    )
    (entry,) = scan(file, "somewhere.readers")
    assert (entry.registry, entry.name, entry.path, entry.line) == ("readers", "pages", "somewhere.readers.read", 7)
    assert (entry.summary, entry.extra) == ("Read a page.", {"since": 2025})


def test_a_name_that_is_no_literal_is_refused(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("NAME = 'x'\n@MODELS.register(NAME)\nclass A: ...\n")
    with pytest.raises(ValueError, match="malformed"):
        scan(file, "bad")


PLUGIN = '''
from fulgurite.registry import COMMANDS, MODELS

@MODELS.register("acme")
class AcmeModel:
    """A model of someone else's.

    Args:
        size: how big.
    """
    def __init__(self, size: int = 3) -> None: ...

@COMMANDS.register("acme greet")
def greet(name: str = "you") -> None:
    """Say hello."""
    print(f"hello {name}")
'''


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Installs plug-ins, `{distribution: (entry point's value, {file: text})}`, as pip would leave them."""

    def install(wanted: dict[str, tuple[str, dict[str, str]]]) -> Path:
        site = tmp_path / "site"
        for name, (value, files) in wanted.items():
            info = site / f"{name}-1.0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[fulgurite.plugins]\n{name} = {value}\n")
            for file, text in files.items():
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).write_text(text)
        monkeypatch.syspath_prepend(str(site))
        read_index.cache_clear()
        return site

    yield install
    read_index.cache_clear()


def test_a_plugin_is_listed_explained_allowed_and_run(plugins, capsys, tmp_path, child_environment):
    from fulgurite import cli
    from fulgurite.launch.config.key_check import allowed_packages

    site = plugins({"acme": ("acme", {"acme/__init__.py": "", "acme/parts.py": PLUGIN})})
    assert read_index().of("models")["acme"].path == "acme.parts.AcmeModel"
    assert "acme" in allowed_packages()
    assert cli.main(["list", "models"]) == 0
    assert "A model of someone else's." in capsys.readouterr().out
    assert cli.main(["info", "acme"]) == 0
    assert "size: int = 3" in capsys.readouterr().out
    environment = child_environment(PYTHONPATH=str(site))
    command = [sys.executable, "-m", "fulgurite", "acme", "greet", "--name", "there"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "hello there\n"), done.stderr


def test_broken_plugins_are_reported_and_break_nothing(plugins, capsys):
    from fulgurite import cli

    plugins(
        {
            "gone": ("gone.module", {}),
            "typo": ("typo", {"typo.py": "@MODELS.register('b')\ndef broken(:\n"}),
            "computed": ("computed", {"computed.py": "@MODELS.register('a' + 'b')\nclass A: ...\n"}),
            "taken": ("taken", {"taken.py": '@MODELS.register("hello")\nclass A: ...\n'}),
            "binary": ("binary", {"binary.py": "@MODELS.register('x')\nx = '\x00'\n"}),
            "good": ("good", {"good.py": PLUGIN}),
        }
    )
    assert set(read_index().broken) == {"gone", "typo", "computed", "taken", "binary"}
    assert read_index().of("models")["hello"].path == "fulgurite.lightning_modules.hello.HelloModule"
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "plug-in gone is broken: gone.module: module not found" in printed
    assert "plug-in taken is broken: 'hello' is already taken in models" in printed
    assert "A model of someone else's." in printed


def test_a_plugin_that_fails_at_import_is_reported(plugins):
    plugins(
        {"late": ("late", {"late.py": "import nothing_like_this\n"}), "good": ("good_one", {"good_one.py": PLUGIN})}
    )
    assert registry.load_plugins() == {"late": "late: ModuleNotFoundError: No module named 'nothing_like_this'"}


@pytest.mark.parametrize(
    ("package", "what"),
    [("slow_model", "base: hello\nmodel: late"), ("slow_command", "stages: [{name: go, command: late greet}]")],
)
def test_a_run_that_needs_a_plugin_which_fails_at_import_names_it(plugins, tmp_path, capsys, package, what):
    from fulgurite import cli

    text = PLUGIN.replace('"acme', '"late').replace("AcmeModel:", "AcmeModel(LightningModule):")
    text = f"from lightning.pytorch import LightningModule\nraise OSError('too old')\n{text}"
    site = plugins({"late": (package, {f"{package}/__init__.py": "", f"{package}/parts.py": text})})
    (tmp_path / "a.yaml").write_text(what)
    assert cli.main(["run", str(tmp_path / "a.yaml"), "--output", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err.rpartition("fulgurite: ")[2].splitlines()
    assert told == [
        "plug-in 'late' can't be imported: OSError: too old",
        f"{site / package / 'parts.py'}:2",
        "Mend or update it, or take it out: pip uninstall late",
    ]
