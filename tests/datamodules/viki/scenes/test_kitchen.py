"""Kitchens that could stand: nothing inside each other, everything in the room; objects of the size that is said."""

from itertools import combinations

import numpy as np
import pytest
import yaml

from fulgurite.datamodules.viki.scene_description import NUM_LAYOUTS, NUM_LIGHTS, NUM_STYLES
from fulgurite.datamodules.viki.scenes import solids
from fulgurite.datamodules.viki.scenes.kitchen import (
    BACK,
    DEPTH,
    FIXTURE_OF,
    FIXTURES,
    HALF_WIDTH,
    SURFACES,
    corners,
    layouts,
    lights,
    styles,
)  # fmt: skip
from fulgurite.datamodules.viki.scenes.objects import ENLARGED, known_objects, object_extent, object_looks
from fulgurite.registry import ROOT


def on_the_floor(name, placed):
    """(x low, x high, y low, y high) of a fixture without what hangs on a wall."""
    slabs = [s for s in FIXTURES[name] if s.pos[2] - s.size[2] / 2 < 1.2]
    points = [
        (s.pos[0] + i * s.size[0] / 2, s.pos[1] + j * s.size[1] / 2) for s in slabs for i in (-1, 1) for j in (-1, 1)
    ]
    c, s = np.cos(np.radians(placed.yaw_deg)), np.sin(np.radians(placed.yaw_deg))
    turned = np.array([(c * x - s * y + placed.x, s * x + c * y + placed.y) for x, y in points])
    return (*np.sort(turned[:, 0])[[0, -1]], *np.sort(turned[:, 1])[[0, -1]])


def overlap(one, other):
    """How far two rectangles reach into each other, in metres; negative if they are apart."""
    return min(one[1] - other[0], other[1] - one[0], one[3] - other[2], other[3] - one[2])


def test_there_are_as_many_as_a_description_may_name():
    assert (len(layouts()), len(styles()), len(lights())) == (NUM_LAYOUTS, NUM_STYLES, NUM_LIGHTS)
    assert len({tuple(sorted(style.materials)) for style in styles()}) == 1, "each style colours the same materials"
    assert len({str(layout.fixtures) for layout in layouts()}) == NUM_LAYOUTS


@pytest.mark.parametrize("number", range(NUM_LAYOUTS))
def test_fixtures_stand_in_the_room_and_not_in_each_other(number):
    layout = layouts()[number]
    standing = {n: on_the_floor(n, p) for n, p in layout.fixtures.items() if n not in ("cabinet", "drawer box")}
    for (one, first), (other, second) in combinations(standing.items(), 2):
        assert overlap(first, second) < 0.05, f"{one} stands in {other}"
    for name, (x0, x1, y0, y1) in standing.items():
        assert x0 > -HALF_WIDTH - 0.02 and x1 < HALF_WIDTH + 0.02 and y1 < BACK + 0.05 and y0 > 0, name
        assert overlap((x0, x1, y0, y1), layout.floor) < 0, f"{name} stands on the free floor"
    assert layout.fixtures["cabinet"].y == BACK - DEPTH / 2, "the cabinet hangs on the back wall"


def test_every_place_of_the_vocabulary_has_a_fixture_or_is_the_floor():
    places = yaml.safe_load((ROOT / "datamodules/viki/places.yaml").read_text(encoding="utf-8"))
    assert set(places) - {"floor"} == set(FIXTURE_OF)
    assert set(FIXTURE_OF.values()) <= set(FIXTURES)
    areas = {name for name, facts in places.items() if facts["kind"] == "area" or facts.get("holds")}
    assert areas <= set(SURFACES)


def test_surfaces_turn_with_their_fixture():
    fixture, surface = SURFACES["kitchen island area"]
    (x0, x1), (y0, y1), (z, _) = corners(surface, layouts()[0].fixtures[fixture])
    assert np.allclose((x1 - x0, y1 - y0, z), (0.52, 1.10, 0.90)), "a quarter turn"


@pytest.mark.parametrize("name", sorted(known_objects()))
def test_objects_have_their_size_stand_on_zero_and_are_closed(name):
    facts, looks = known_objects()[name], object_looks(name)
    assert object_extent(name).max() == pytest.approx(facts["size_m"] * ENLARGED.get(facts["kind"], 1.0))
    points = np.concatenate([look.mesh.vertices for look in looks])
    assert points[:, 2].min() == pytest.approx(0, abs=1e-9)
    assert np.abs(points.min(0)[:2] + points.max(0)[:2]).max() < 1e-9, "its middle lies over the origin"
    for look in looks:
        _, welded = np.unique(look.mesh.vertices.round(7), axis=0, return_inverse=True)
        faces = welded.reshape(-1)[look.mesh.faces]
        edges = np.sort(np.concatenate([faces[:, [i, j]] for i, j in ((0, 1), (1, 2), (2, 0))]), axis=1)
        edges = edges[edges[:, 0] != edges[:, 1]]
        assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all(), "each edge has its two triangles"
        assert volume(look.mesh) > 0, "its triangles look outwards"


def test_solids_have_the_volumes_of_geometry():
    assert volume(solids.box(2, 3, 4)) == pytest.approx(24)
    assert volume(solids.ball(2, 2, 2, 40)) == pytest.approx(4 / 3 * np.pi, rel=0.02)
    assert volume(solids.rod((0, 0, 0), (3, 4, 0), 0.1, 40)) == pytest.approx(5 * np.pi * 0.01, rel=0.02)
    ring = solids.bent(solids.arc(1.0, 0, 354, 60), 0.1, 24, closed=True)
    assert volume(ring) == pytest.approx(2 * np.pi**2 * 0.01, rel=0.03)
    assert volume(solids.turned([(1, 0), (1, 2)], 60)) == pytest.approx(2 * np.pi, rel=0.02)
    assert volume(solids.turned_ring([(1, 0), (2, 0), (2, 1), (1, 1)], 80)) == pytest.approx(3 * np.pi, rel=0.02)
    assert volume(solids.shift(solids.turn(solids.stretch(solids.box(1, 1, 1), 2), "y", 30), 5)) == pytest.approx(2)


def volume(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)
