"""The symbolic state as a drawing: a tile for every place in use, with the robots and things that are there."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from .problem import Problem
from .state import State
from .vocabulary import places, robots

_FLOOR = "floor"
_WIDTH, _LINE, _HEAD, _COLUMNS = 224, 19, 24, 4
_COLORS = {"arm": "#8a6d3b", "wheeled": "#2f6f9f", "humanoid": "#7a3e9d", "dog": "#b4542b"}


def draw_state(state: State, says: Mapping[str, str]) -> str:
    """An SVG of the state.

    Args:
        state: what is drawn.
        says: robot -> what it has just done, written beside its name.
    """
    tiles: dict[str, list[tuple[int, str, str]]] = {name: [] for name in _tiles(state.problem)}
    for asset, name in enumerate(state.problem.assets):
        if not state.grasped[asset] and not _is_tile(name):
            root, depth = _root(state, asset)
            tiles.setdefault(root, []).append((depth, f"{name}{' (on)' if state.active[asset] else ''}", "#333"))
    for agent, name in enumerate(state.problem.agents):
        root, _ = _root(state, -1 - agent)
        text = f"{name} {state.problem.types[agent]}"
        held = ", ".join(state.name(thing) for thing in state.carried[agent])
        text += f" holds {held}" if held else ""
        color = _COLORS[robots()[state.problem.types[agent]].kind]
        tiles.setdefault(root, []).append((0, text, color))
        if name in says:
            tiles[root].append((1, says[name], color))
    rows = [list(tiles.items())[i : i + _COLUMNS] for i in range(0, len(tiles), _COLUMNS)]
    top, parts = 4, []
    for row in rows:
        height = _HEAD + _LINE * max(1, *(len(lines) for _, lines in row)) + 8
        for column, (name, lines) in enumerate(row):
            parts.append(_tile(4 + column * (_WIDTH + 8), top, height, _title(state, name), lines))
        top += height + 8
    width = 4 + _COLUMNS * (_WIDTH + 8)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" '
        f'font-family="system-ui, sans-serif" font-size="13">{"".join(parts)}</svg>'
    )


def _is_tile(name: str) -> bool:
    return name in places()


def _tiles(problem: Problem) -> list[str]:
    """Places in use: those of the kitchen, the floor, and where fixed arms stand."""
    used = {area for choices in problem.starts for area in choices} | set(problem.assets)
    used |= {f.value for facts in problem.goals for f in facts if isinstance(f.value, str)}
    spots = {place.spot for place in places().values()}
    known = [name for name in places() if name in used or name == _FLOOR]
    others = used - set(known) - set(problem.assets) - set(problem.agents) - spots
    return [*known, *sorted(others), *(name for i, name in enumerate(problem.agents) if _stays(problem, i))]


def _stays(problem: Problem, agent: int) -> bool:
    return "move" not in problem.primitives[agent]


def _root(state: State, target: int) -> tuple[str, int]:
    """The tile that something is in, and how deep: a thing on a plate on the table is at depth 1."""
    seen: set[int] = set()
    depth = 0
    while True:
        position = state.pos_name(target)
        holder = state.entity(position, assets_first=True)
        if position == places()[_FLOOR].spot or (holder is not None and holder < 0 and holder == target):
            return _FLOOR if holder is None or not _stays(state.problem, -1 - holder) else position, depth
        if holder is not None and holder in seen:  # it holds what it stands at: the released rules know no more
            return _FLOOR, depth
        if holder is None:
            return position, depth
        if holder >= 0 and _is_tile(state.problem.assets[holder]):
            return state.problem.assets[holder], depth
        seen.add(target)
        depth += holder >= 0
        target = holder


def _title(state: State, name: str) -> str:
    asset = state.problem.asset_index.get(name)
    if asset is None:
        return f"at {name}" if name in state.problem.agent_index else name
    marks = ["closed"] if state.cell_shut[asset] else ["open"] if name == "cabinet" else []
    marks += ["on"] if state.active[asset] else []
    return f"{name} ({', '.join(marks)})" if marks else name


def _tile(x: int, y: int, height: int, title: str, lines: list[tuple[int, str, str]]) -> str:
    lit = "#fff6d6" if "(on" in title or ", on" in title else "#fafaf7"
    parts = [
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{height}" rx="6" fill="{lit}" stroke="#bbb"/>',
        f'<text x="{x + 8}" y="{y + 17}" font-weight="600" fill="#555">{escape(title)}</text>',
    ]
    for number, (depth, text, color) in enumerate(lines):
        below = y + _HEAD + _LINE * number + 13
        parts.append(f'<text x="{x + 10 + 14 * depth}" y="{below}" fill="{color}">{escape(text)}</text>')
    return "".join(parts)
