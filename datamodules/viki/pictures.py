"""Records with their pictures: scenes drawn, looked through for what stays hidden, and encoded."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

from ...registry import UserError
from .encoding import encode
from .generator import draw_record
from .records import Record
from .scene_description import GLOBAL_VIEW

GLOBAL_SIZE = (600, 336)
"""Width and height of the global view: as the released one, and what visibility is counted in."""
_ATTEMPTS = 12  # other kitchens for a task whose things can't all be seen in one


class Photographer:
    """Draws records with pictures; a context manager, since it holds an OpenGL context.

    Args:
        size: width and height of the pictures, pixels.
        every_view: also one view of each active robot; else the global view alone, as in the released records.
        like: split by whose rules all are drawn; their own unless given.
    """

    def __init__(self, size: tuple[int, int] = GLOBAL_SIZE, every_view: bool = False, like: str = "") -> None:
        from .scenes.renderer import SceneRenderer

        self._size, self._every_view, self._like = size, every_view, like
        self._renderer = SceneRenderer(max(size[0], GLOBAL_SIZE[0]), max(size[1], GLOBAL_SIZE[1]))

    def __enter__(self) -> Photographer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renderer.close()

    def take(self, level: int, split: str, index: int, seed: int) -> Record:
        """A record with its pictures; the same arguments give the same bytes on the same machine.

        Raises:
            UserError: if no kitchen was found that shows everything the answer needs.
        """
        from .scenes.settling import settle

        if level == 3:
            from .arms import draw_arms_record

            return draw_arms_record(split, index, seed, self._renderer)
        reason = ""
        for attempt in range(_ATTEMPTS):
            record = draw_record(level, split, index, seed, attempt, self._like)
            assert record.scene is not None
            try:
                scene, _ = settle(record.scene, self._renderer)
            except UserError as error:
                reason = str(error)
                continue
            views = scene.views if self._every_view else (GLOBAL_VIEW,)
            drawn = self._renderer.render(scene, views=views, size=self._size, visibility=False)
            images = tuple(encode(drawn.views[view]) for view in views)
            return replace(record, images=images, views=views, scene=scene)
        raise UserError(f"{split} {index}: in {_ATTEMPTS} kitchens something stayed hidden\n{reason}")
