"""Scenes into pictures: one compiled model, moved and hidden from scene to scene, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from ....registry import UserError
from ..scene_description import GLOBAL_VIEW, SceneDescription
from .kitchen import FIXTURE_OF, Light, lights, styles
from .model import GLASS, HIDDEN, SHOWN, Stage, Thing, build_stage, load_robots
from .opengl import make_context, use_platform
from .placing import Arrangement, Camera, Spot, arrange, global_camera
from .robot_model import embodiments

WIDTH, HEIGHT = 600, 336
"""Size of the global view, as VIKI-Bench has it."""
MIN_PIXELS = 40
"""Fewer of the global view's pixels than this, and a thing does not count as visible."""
EGO_FOV_DEG = 78.0


@dataclass(frozen=True)
class Rendering:
    """The pictures of one scene.

    Attributes:
        views: name (`global`, `R1`, ...) -> uint8 [height, width, 3], RGB.
        visible: pixels in the global view of each robot, object and named fixture (`robot:0`, `object:1`,
            `fixture:table`), glass looked through; empty if it was not asked for.
    """

    views: Mapping[str, np.ndarray]
    visible: Mapping[str, int]

    def hidden(self, description: SceneDescription, min_pixels: int = MIN_PIXELS) -> list[str]:
        """What the answer needs and the global view shows with fewer than `min_pixels` pixels."""
        wanted = [*description.needed, *(f"fixture:{name}" for name in description.fixtures if name != "floor")]
        return [name for name in wanted if self.visible.get(name, 0) < min_pixels]


class SceneRenderer:
    """Draws scenes; a context manager, since it holds an OpenGL context.

    The robots' meshes are fetched if need be, and the model is compiled once, in about two seconds; a scene then costs
    the drawing alone. Not for several threads.

    Args:
        width: largest width of a picture, in pixels.
        height: largest height.

    Raises:
        UserError: if the machine has no OpenGL, or the meshes are not to be had.
    """

    def __init__(self, width: int = WIDTH, height: int = HEIGHT) -> None:
        use_platform()
        robots = load_robots()
        import mujoco

        self._mujoco = mujoco
        self.stage: Stage = build_stage(robots, width, height)
        self._size = (width, height)
        self.data = mujoco.MjData(self.stage.model)
        self.data.qpos[:] = self.stage.qpos
        self._gl = make_context(width, height)
        self._context = mujoco.MjrContext(self.stage.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(self.stage.model, 2000)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            self._scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = self.stage.model.camera("view").id

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the OpenGL context back."""
        if self._gl is not None:
            self._context.free()
            self._gl.free()
            self._gl = None

    def render(
        self,
        description: SceneDescription,
        *,
        views: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        visibility: bool = True,
    ) -> Rendering:
        """Draw one scene.

        Args:
            description: the scene.
            views: which pictures, all of `description.views` unless given; may be empty, for the visibility alone.
            size: width and height in pixels; the largest that the renderer was made for unless given.
            visibility: count what can be seen in the global view.

        Raises:
            UserError: for what cannot be shown (see `arrange`), a view that the scene has not, or too large a size.
        """
        wanted = description.views if views is None else tuple(views)
        width, height = size or self._size
        if width > self._size[0] or height > self._size[1]:
            raise UserError(f"this renderer draws up to {self._size[0]}x{self._size[1]} pixels, not {width}x{height}")
        for view in wanted:
            if view not in description.views:
                raise UserError(f"the scene has no view '{view}'\nit has: {' '.join(description.views)}")
        arrangement = self.show(description)
        drawn, visible = {}, {}
        camera = global_camera(description, width, height)
        if GLOBAL_VIEW in wanted:
            drawn[GLOBAL_VIEW] = self.picture(camera, width, height)
        if visibility:
            visible = self._count(description, arrangement, camera, (width, height))
        for robot, (body, copy, spot) in zip(description.robots, arrangement.robots, strict=True):
            if robot.agent and robot.agent in wanted:
                drawn[robot.agent] = self.picture(self.ego_camera(body, copy, spot), width, height)
        return Rendering({view: drawn[view] for view in wanted}, visible)

    def show(self, description: SceneDescription) -> Arrangement:
        """Move, hide and colour everything as a description says, without drawing.

        Raises:
            UserError: as `arrange`.
        """
        arrangement = arrange(description)
        self.set_up(arrangement, description.style, description.light)
        return arrangement

    def set_up(self, arrangement: Arrangement, style: int, light: int) -> None:
        """As `show`, for positions that no description gave. Every robot takes its usual pose."""
        model = self.stage.model
        for thing in self.stage.things():
            model.geom_group[thing.geoms] = HIDDEN
        for body, copy, spot in arrangement.robots:
            self._place(self.stage.robots[body, copy], spot)
        for name, copy, spot in arrangement.objects:
            self._place(self.stage.objects[name, copy], spot)
        for name, placed in arrangement.fixtures.items():
            self._place(self.stage.fixtures[name], Spot(np.array([placed.x, placed.y, 0.0]), placed.yaw_deg))
        self._paint(style, lights()[light])
        self.data.qpos[:] = self.stage.qpos
        self.move()

    def move(self) -> None:
        """Bring the bodies to the positions of the joints, `data.qpos`."""
        self._mujoco.mj_kinematics(self.stage.model, self.data)
        self._mujoco.mj_comPos(self.stage.model, self.data)
        self._mujoco.mj_camlight(self.stage.model, self.data)

    def picture(self, camera: Camera, width: int, height: int) -> np.ndarray:
        """What a camera sees of the scene as it stands: uint8 [height, width, 3], RGB."""
        return self._draw(camera, width, height, numbers=False)

    def pixels(self, camera: Camera, width: int, height: int) -> np.ndarray:
        """Pixels of each geom of the model in a camera's picture, glass looked through: int64 [num_geoms]."""
        codes = self._draw(camera, width, height, numbers=True).astype(np.int64)
        codes = codes[..., 0] + 256 * codes[..., 1] + 65536 * codes[..., 2]
        drawn = np.bincount(codes.reshape(-1), minlength=self._scene.ngeom + 1)
        pixels = np.zeros(self.stage.model.ngeom, np.int64)
        geom_type = int(self._mujoco.mjtObj.mjOBJ_GEOM)
        for item in self._scene.geoms[: self._scene.ngeom]:
            if item.objtype == geom_type and 0 <= item.segid < len(drawn) - 1:
                pixels[item.objid] += drawn[item.segid + 1]
        return pixels

    def ego_camera(self, body: str, copy: int, spot: Spot) -> Camera:
        """A robot's own camera in the scene as it stands."""
        mount = embodiments()[body].camera
        item = self.data.body(f"robot/{body}/{copy}/{mount.body}")
        position = item.xpos + item.xmat.reshape(3, 3) @ np.array(mount.pos)
        heading, pitch = np.radians(spot.heading_deg), np.radians(mount.pitch_deg)
        ahead = np.array([np.cos(pitch) * np.cos(heading), np.cos(pitch) * np.sin(heading), -np.sin(pitch)])
        return Camera.looking(position, position + ahead, EGO_FOV_DEG)

    def _place(self, thing: Thing, spot: Spot) -> None:
        model, half = self.stage.model, np.radians(spot.heading_deg) / 2
        model.body_pos[thing.body] = spot.pos + np.array([0, 0, thing.base])
        model.body_quat[thing.body] = [np.cos(half), 0, 0, np.sin(half)]
        model.geom_group[thing.geoms] = thing.groups

    def _paint(self, style: int, light: Light) -> None:
        model, stage = self.stage.model, self.stage
        role = int(self._mujoco.mjtTextureRole.mjTEXROLE_RGB)
        for name, (r, g, b, texture) in styles()[style].materials.items():
            model.mat_rgba[stage.materials[name]] = [r, g, b, 1.0]
            model.mat_texid[stage.materials[name], role] = stage.textures[texture]
        # the context copied these numbers when it was made
        self._context.mat_texid[: model.nmat * model.mat_texid.shape[1]] = model.mat_texid.reshape(-1)
        model.vis.headlight.ambient[:] = light.ambient
        model.vis.headlight.diffuse[:] = 0.18
        model.vis.headlight.specular[:] = 0.0
        for i, (strength, position) in enumerate(light.lamps):
            model.light_diffuse[i] = strength
            model.light_specular[i] = 0.15 * strength
            model.light_pos[i] = position
            model.light_dir[i] = np.array([0.0, 1.2, 0.6]) - position
            model.light_dir[i] /= np.linalg.norm(model.light_dir[i])

    def _draw(self, camera: Camera, width: int, height: int, *, numbers: bool) -> np.ndarray:
        """The picture of a camera, uint8 [height, width, 3]; with `numbers`, each pixel's number in the list of drawn
        geoms + 1 as RGB in base 256 instead of its colour.
        """
        mj, scene, number = self._mujoco, self._scene, self._camera.fixedcamid
        self.data.cam_xpos[number], self.data.cam_xmat[number] = camera.position, camera.rotation.reshape(-1)
        self.stage.model.cam_fovy[number] = camera.fov_deg
        for group, seen in ((SHOWN, True), (GLASS, not numbers), (HIDDEN, False)):
            self._option.geomgroup[group] = seen
        mj.mjv_updateScene(self.stage.model, self.data, self._option, None, self._camera, mj.mjtCatBit.mjCAT_ALL, scene)
        scene.flags[mj.mjtRndFlag.mjRND_SEGMENT] = numbers
        scene.flags[mj.mjtRndFlag.mjRND_IDCOLOR] = numbers
        self._gl.make_current()
        mj.mjr_render(mj.MjrRect(0, 0, width, height), scene, self._context)
        picture = np.empty((height, width, 3), np.uint8)
        mj.mjr_readPixels(picture, None, mj.MjrRect(0, 0, width, height), self._context)
        return np.ascontiguousarray(picture[::-1])

    def _count(
        self, description: SceneDescription, arrangement: Arrangement, camera: Camera, size: tuple[int, int]
    ) -> dict[str, int]:
        pixels, stage = self.pixels(camera, *size), self.stage
        found = {f"robot:{i}": stage.robots[b, c] for i, (b, c, _) in enumerate(arrangement.robots)}
        found |= {f"object:{i}": stage.objects[n, c] for i, (n, c, _) in enumerate(arrangement.objects)}
        found |= {f"fixture:{n}": stage.fixtures[FIXTURE_OF[n]] for n in description.fixtures if n in FIXTURE_OF}
        return {name: int(pixels[thing.geoms].sum()) for name, thing in found.items()}
