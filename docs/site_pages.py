"""Pages of the site that are made when it is built: the READMEs with their links turned, and what is registered."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from fulgurite.launch.config.experiment import names
from fulgurite.registry import read_index

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "kernels/README.md": "kernels.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "lightning_modules/dnd/README.md": "papers/dnd.md",
    "lightning_modules/chunking/README.md": "papers/chunking.md",
    "lightning_modules/paro/README.md": "papers/paro.md",
    "lightning_modules/viki/README.md": "papers/viki.md",
    "lightning_modules/viki/grpo/README.md": "papers/viki_grpo.md",
    "lightning_modules/gamecraft/README.md": "papers/gamecraft.md",
}
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]+)\)")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that no file in docs/ holds."""
    made = {page: turned((ROOT / source).read_text(encoding="utf-8"), source, page) for source, page in PAGES.items()}
    made["reference/registered.md"] = registered()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page that lies in docs/."""
    place = page.file.src_uri
    return markdown if place in PAGES.values() else turned(markdown, f"docs/{place}", place)


def turned(text: str, source: str, page: str) -> str:
    """A README's text with links as the site has them; a link to what the site does not show becomes plain words.

    Args:
        text: markdown.
        source: the README's path in the repository.
        page: its path on the site.
    """

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        in_docs = place.startswith("docs/") and not place.startswith("docs/records/")
        shown = PAGES.get(place) or (place.removeprefix("docs/") if in_docs else None)
        if shown is None:
            return words
        near = posixpath.relpath(shown, posixpath.dirname(page) or ".")
        return f"{picture}[{words}]({near}{'#' + anchor if anchor else ''})"

    parts = CODE.split(text)
    return "".join(part if at % 2 else LINK.sub(link, part) for at, part in enumerate(parts))


def registered() -> str:
    """Tables of what `fulgurite list` shows: every registry, and the experiments."""
    index = read_index()
    parts = [
        "# What is registered",
        "Names that YAML files and the command line take. `fulgurite info NAME` says more.",
    ]
    for kind in dict.fromkeys(entry.registry for entry in index.entries):
        rows = []
        for entry in index.of(kind).values():
            summary, paper = entry.summary.replace("|", "\\|"), entry.extra.get("paper", "")
            source = f"[{paper}](https://arxiv.org/abs/{paper})" if paper else ""
            rows.append(f"| `{entry.name}` | {summary} | {source} |")
        parts += [f"## {kind}", "\n".join(["| name | what it is | paper |", "|---|---|---|", *rows])]
    parts += ["## experiments", "\n".join(f"- `{name}`" for name in names())]
    return "\n\n".join(parts) + "\n"
