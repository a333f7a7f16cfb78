"""The renderer: labels are exact, images are reproducible, captions are true, and a killed job can be
resumed."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("mitsuba", reason="the extra `render` is not installed")

from test_disk_full import outcome
from twofold.data import Folder, FolderError, FolderWriter
from twofold.geometry import normals_from_depth
from twofold.io import DiskFullError
from twofold.render import RENDERER_VERSION, render, render_one
from twofold.render.assets import Assets, find_assets
from twofold.render.atlas import SIDE, AtlasTile, pack
from twofold.render.camera import View, penalty
from twofold.render.caption import caption, visible
from twofold.render.classes import CLASSES, FOREGROUND, IDS, SKY
from twofold.render.generate import build_scene, choose_view
from twofold.render.job import header
from twofold.render.llvm import find_llvm
from twofold.render.meshes import ball, box, capsule, cylinder, lathe, rounded, torus, tube
from twofold.render.pieces import Part
from twofold.render.scene import LIGHTS, Builder
from twofold.render.tracer import Tracer, mitsuba
from twofold.render.wavefront import creased

NONE = Assets()
WIDTH, HEIGHT, SPP = 64, 48, 2
SLOW_TRACER = find_llvm() is None
pytestmark = pytest.mark.skipif(
    SLOW_TRACER, reason="no libLLVM >= 16: the scalar tracer is too slow for tests"
)


@pytest.fixture(scope="module")
def samples():
    """A few images of all families."""
    return [render_one(11, index, WIDTH, HEIGHT, SPP, NONE) for index in range(6)]


def wall_scene(*parts: Part):
    """A scene of our own: the parts, a grey sky, no lights."""
    b = Builder(np.random.default_rng(0))
    for part in parts:
        b.add_part(part, b.add_instance(part.kind or "box"))
    sky = np.full((16, 32, 3), 0.5, np.float32)
    return b.finish("object", "still life", sky, lambda rng: View((0, -2, 1), (0, 0, 1), 60))


VIEW = View((0.0, -2.0, 1.0), (0.0, 0.0, 1.0), 60.0)


def test_a_wall_is_at_its_distance_and_faces_the_camera():
    wall = Part(box((20, 0.2, 20), (0, 0.1, -9)), kind="wall")
    labels = Tracer(wall_scene(wall)).labels(VIEW, WIDTH, HEIGHT)
    assert np.allclose(labels.depth, 2.0, atol=1e-5)
    assert np.allclose(labels.normals, [0, 0, 1], atol=1e-5)
    assert (labels.instance == 1).all() and not labels.backface.any()


def test_the_floor_faces_up_and_right_walls_face_left():
    floor, right = (
        Part(box((9, 9, 1), (0, 0, -1)), kind="floor"),
        Part(box((1, 9, 9), (1.5, 0, -1)), kind="wall"),
    )
    labels = Tracer(wall_scene(floor, right)).labels(VIEW, WIDTH, HEIGHT)
    assert np.allclose(labels.normals[labels.instance == 1], [0, 1, 0], atol=1e-5)
    assert np.allclose(labels.normals[labels.instance == 2], [-1, 0, 0], atol=1e-5)
    assert np.isinf(labels.depth[labels.instance == 0]).all()


def test_a_roll_rotates_the_image_and_keeps_depth():
    wall = Part(box((20, 0.2, 20), (0, 0.1, -9)), kind="wall")
    labels = Tracer(wall_scene(wall)).labels(replace(VIEW, roll=0.3), WIDTH, HEIGHT)
    assert np.allclose(labels.depth, 2.0, atol=1e-5) and np.allclose(labels.normals, [0, 0, 1], atol=1e-5)


def test_labels_and_images_use_the_same_rays():
    mi = mitsuba()
    scene = wall_scene(Part(box((0.5, 0.2, 0.5), (0.4, 0, 0.9)), kind="box"))
    tracer = Tracer(scene)
    labels = tracer.labels(replace(VIEW, roll=0.2), 96, 72)
    light = tracer.render_image(replace(VIEW, roll=0.2), 96, 72, 64, 1, labels)
    dark = np.abs(light.mean(-1) - 0.5) > 0.08  # the sky is 0.5 everywhere; the box is darker
    box_pixels = labels.instance == 1
    assert mi.variant() != ""
    assert (dark != box_pixels).mean() < 0.02


def test_a_view_from_inside_an_object_is_penalized():
    inside = Tracer(wall_scene(Part(box((6, 6, 6), (0, 0, -2)), kind="building")))
    labels = inside.labels(VIEW, WIDTH, HEIGHT)
    assert labels.backface.all()
    assert np.allclose((labels.normals * [0, 0, 1]).sum(-1)[HEIGHT // 2, WIDTH // 2], 1, atol=1e-4)
    assert (
        penalty(labels.depth, labels.instance, np.array([0, IDS["building"]]), labels.backface, "outdoor")
        >= 1
    )


def test_samples_have_the_documented_units(samples):
    for s in samples:
        depth, normals, ok = s.targets["depth"], s.targets["normals"], s.valid["depth"]
        assert s.image.dtype == torch.float32 and s.image.min() >= 0 and s.image.max() <= 1
        assert torch.isinf(depth[~ok]).all() and (depth[ok] > 0.05).all() and (depth[ok] < 131).all()
        length = normals.norm(dim=0, keepdim=True)
        assert torch.allclose(length[ok], torch.ones(1), atol=1e-4) and (length[~ok] == 0).all()
        assert s.camera is not None and (s.camera.width, s.camera.height) == (WIDTH, HEIGHT)
        assert s.origin.kind == "rendered" and s.origin.generator["renderer"] == RENDERER_VERSION


def test_normals_face_the_camera(samples):
    for s in samples:
        rays = (
            s.camera.rays() * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)[:, None, None]
        )  # RDF to RUB
        rays = rays / rays.norm(dim=0, keepdim=True)
        assert ((s.targets["normals"].double() * rays).sum(0)[s.valid["normals"][0]] < 1e-4).all()


def test_normals_agree_with_depth_where_it_is_smooth(samples):
    agreed = []
    for s in samples:
        depth = s.targets["depth"]
        estimate, known = normals_from_depth(torch.where(s.valid["depth"], depth, torch.zeros(1)), s.camera)
        same = s.targets["instance"]
        flat = known & s.valid["depth"]
        for dim in (-1, -2):
            for step in (1, -1):
                flat &= torch.roll(same, step, dim) == same
                flat &= (torch.roll(s.targets["normals"], step, dim) - s.targets["normals"]).norm(
                    dim=0, keepdim=True
                ) < 0.02
        cosine = (estimate * s.targets["normals"]).sum(0, keepdim=True)
        agreed.append(cosine[flat])
    cosine = torch.cat(agreed)
    assert len(cosine) > 1000
    assert cosine.median() > 0.999 and (cosine > 0.98).float().mean() > 0.93


def test_masks_and_classes_are_consistent(samples):
    for s in samples:
        semantic = s.targets["semantic"].long()
        assert ((semantic == SKY) == (s.targets["instance"] == 0)).all()
        assert ((semantic == SKY) == ~s.valid["depth"]).all()
        assert torch.equal(s.targets["mask"].bool(), torch.tensor(FOREGROUND)[semantic])
        for instance in s.targets["instance"].unique():
            assert len(semantic[s.targets["instance"] == instance].unique()) == 1


def test_captions_name_visible_classes(samples):
    nouns = {k.name for k in CLASSES} | {k.plural for k in CLASSES}
    names = {k.plural: k.name for k in CLASSES} | {k.name: k.name for k in CLASSES}
    for s in samples:
        there = {CLASSES[int(k)].name for k in s.targets["semantic"].unique()}
        words = {w.strip(",:") for w in str(s.caption).split(" with ")[-1].split()}
        assert s.caption
        assert {names[w] for w in words & nouns} <= there, s.caption


def test_a_caption_counts():
    instance = np.repeat([1, 2, 3, 4], 100).reshape(20, 20)
    kinds = np.array([SKY, IDS["chair"], IDS["chair"], IDS["table"], IDS["floor"]])
    assert visible(instance, kinds) == {"chair": 2, "table": 1, "floor": 1}
    assert caption("office", instance, kinds, 0.4, "") == "an office with two chairs and a table"
    assert (
        caption("living room", instance, kinds, 0.7, "") == "a bright living room with two chairs and a table"
    )


def test_the_same_scene_in_another_process(samples):
    code = (
        "import hashlib, sys; from twofold.render import render_one;"
        "from twofold.render.assets import Assets;"
        f"s = render_one(11, 3, {WIDTH}, {HEIGHT}, {SPP}, Assets());"
        "maps = [s.targets[k].numpy().tobytes() for k in sorted(s.targets)];"
        "h = hashlib.sha256(s.image.numpy().tobytes() + b''.join(maps));"
        "sys.stdout.write(h.hexdigest() + str(s.caption))"
    )

    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    ).stdout
    s = samples[3]
    digest = hashlib.sha256(
        s.image.numpy().tobytes() + b"".join(s.targets[k].numpy().tobytes() for k in sorted(s.targets))
    )
    assert there == digest.hexdigest() + str(s.caption)


def test_chosen_views_have_no_penalty():
    framed = choose_view(11, 1, NONE)
    labels = framed.tracer.labels(framed.view, 48, 36)
    assert (
        penalty(labels.depth, labels.instance, framed.scene.kinds, labels.backface, framed.scene.family) == 0
    )


def test_scenes_have_one_structure():
    scenes = [build_scene(12, index, 0, NONE) for index in range(4)]
    assert {s.atlas.shape for s in scenes} == {(SIDE, SIDE, 3)} and {len(s.lights) for s in scenes} == {
        LIGHTS
    }
    for s in scenes:
        uv = s.surface.mesh.uv
        assert uv.min() >= 0 and uv.max() <= 1 and s.surface.instance.max() < len(s.kinds)


def test_a_resumed_job_gives_the_files_of_one_process(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    here = FolderWriter(whole, header(21, 32, 24, 1, find_assets()))
    for index in range(3):
        here.write(render_one(21, index, 32, 24, 1))
    here.finish()
    job = render(3, 21, broken, 32, 24, workers=1, spp=1)
    next(job)
    job.close()
    assert 0 < len(list(render(3, 21, broken, 32, 24, workers=2, spp=1))) < 3
    assert (broken / "contact_sheet.png").is_file() and len(Folder(broken)) == 3
    for path in whole.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (broken / path.relative_to(whole)).read_bytes(), path
    assert list(render(3, 21, broken, 32, 24, spp=1)) == []
    with pytest.raises(FolderError):
        list(render(3, 22, broken, 32, 24, spp=1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
@pytest.mark.parametrize(
    ("limit", "name"), [(1_000, "dataset.json"), (2_000, ".npy")], ids=["start", "worker"]
)
def test_a_full_disk_ends_the_job_with_the_file_and_the_disk(limit, name, tmp_path):
    def work() -> str:
        try:
            list(render(1, 21, tmp_path / "scenes", 32, 24, spp=1))
        except DiskFullError as error:
            return f"{error.errno} {error.filename} {error}"
        return "no error"

    found = outcome(work, limit)  # the worker inherits it
    assert found.startswith(f"{errno.EFBIG} {tmp_path / 'scenes'}") and "(disk /" in found, found
    assert f"{name} cannot be written" in found, found
    assert not [p for p in (tmp_path / "scenes").rglob("*") if p.name.startswith(".tmp-")]


@pytest.mark.parametrize(
    "mesh",
    [
        box((1, 2, 3)), ball(0.5), cylinder(0.3, 1), lathe([0, 1, 0.5, 0], [0, 0, 1, 1]), rounded((1, 2, 0.5)),
        torus(1, 0.2), tube([(0, 0, 0), (0, 0, 1), (1, 0, 1)], 0.1), capsule((0, 0, 0), (0, 1, 1), 0.2),
    ],
)  # fmt: skip
def test_solids_are_closed_and_wound_outward(mesh):
    v = mesh.vertices[mesh.faces]
    area = np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])
    assert np.abs(area.sum(0)).max() < 0.02 * np.abs(area).sum(), (
        "the area vectors of a closed surface cancel"
    )
    assert (v[:, 0] * area).sum() > 0, "the volume is positive"
    agree = (area * mesh.normals[mesh.faces].sum(1)).sum(1)
    assert (agree > -1e-9).mean() > 0.98
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-3)


def test_creases_stay_sharp_and_curves_smooth():
    sharp = box((1, 1, 1))
    hard = creased(sharp.vertices, sharp.faces, np.zeros((12, 3, 2)))
    assert np.allclose(np.abs(hard.normals).max(1), 1)
    round_ = ball(1.0)
    soft = creased(round_.vertices, round_.faces, np.zeros((len(round_.faces), 3, 2)))
    radial = soft.vertices - [0, 0, 1]
    assert ((soft.normals * radial).sum(1) > 0.98).mean() > 0.98


def test_atlas_tiles_do_not_overlap():
    atlas_tiles = [
        AtlasTile(np.full((8, 8, 3), 0.1 * (k + 1), np.float32), 1.0, 1.0 + k, 0.5) for k in range(8)
    ]
    atlas, areas = pack(atlas_tiles)
    for k, (u, v, w, h) in enumerate(areas):
        tile = atlas[round(v * SIDE) : round((v + h) * SIDE), round(u * SIDE) : round((u + w) * SIDE)]
        assert np.allclose(tile, 0.1 * (k + 1), atol=1e-5)


def test_assets_are_named_or_refused(tmp_path):
    assert find_assets(None).describe() == [] or find_assets(None).panoramas or find_assets(None).models.slots
    with pytest.raises(ValueError, match="neither"):
        find_assets(tmp_path)


# Scene families, classes by instance, and faces by instance of twelve scenes: they depend on integers and on numpy's
# random generator only, so they are the same on every machine. A change needs a new RENDERER_VERSION.
SCENES = "fb20fb7e36dc7df7"


def test_scenes_of_a_seed_stay_what_they_are():
    found = hashlib.sha256()
    for index in range(12):
        scene = build_scene(5, index, assets=NONE)
        found.update(f"{scene.family}, {scene.place}".encode())
        for ids in (scene.kinds, np.bincount(scene.surface.instance)):
            found.update(ids.astype("<i8").tobytes())
    assert (RENDERER_VERSION, found.hexdigest()[:16]) == (3, SCENES)
