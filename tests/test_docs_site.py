"""The documentation site: it builds strictly, its pages hold what they should, and nothing is loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
    home = tmp_path_factory.mktemp("site")
    (home / "fulgurite").symlink_to(ROOT)
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace(".typing", str(home))
    settings = settings.replace("docs_dir: docs", f"docs_dir: {ROOT / 'docs'}").replace("[docs/", f"[{ROOT}/docs/")
    (home / "mkdocs.yml").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(home / "mkdocs.yml"), "-d", str(home / "out")]
    environment = {**os.environ, "PYTHONPATH": str(home), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return home / "out"


@pytest.mark.slow
def test_every_paper_and_the_reference_have_their_page(site: Path) -> None:
    for page, said in {
        "index.html": "make run",
        "papers/dnd.html": "2506.16406",
        "papers/gamecraft.html": "gamecraft_answers.jpg",
        "kernels.html": "cuDNN",
        "reference/registered.html": "dnd adapt",
        "reference/kernels.html": "fulgurite.kernels.api",
        "reference/modules.html": "GameCraftStudentModule",
    }.items():
        assert said in (site / page).read_text(encoding="utf-8"), page


@pytest.mark.slow
def test_links_lead_to_pages_and_pictures_that_are_there(site: Path) -> None:
    dead = []
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for target in re.findall(r'(?:href|src)="([^"#]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|//", target) and not (page.parent / target).exists():
                dead.append(f"{page.relative_to(site)}: {target}")
    assert not dead


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]*src="(https?:[^"]+)|<link[^>]*rel="stylesheet"[^>]*href="(https?:[^"]+)', text
        )
        assert not loaded, (page.name, loaded)
