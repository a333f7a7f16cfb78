"""From (seed, index) to a labelled image: build the scene, choose a view, trace, simulate the camera,
write the caption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twofold.render import skies
from twofold.render.assets import Assets, find_assets
from twofold.render.camera import View, penalty
from twofold.render.caption import caption
from twofold.render.classes import FOREGROUND, SKY
from twofold.render.exposure import simulate_camera
from twofold.render.object_scenes import build_object_scene
from twofold.render.outdoor import build_outdoor
from twofold.render.rooms import build_room
from twofold.render.scene import Builder, Scene
from twofold.render.tracer import Labels, Tracer
from twofold.sample import Provenance, Sample

RENDERER_VERSION = 3
"""Part of every header. Increment it with any change to the output of a (seed, index)."""
FAMILIES = {
    "room": (build_room, 0.55),
    "outdoor": (build_outdoor, 0.20),
    "object": (build_object_scene, 0.25),
}
_VIEWS, _SCENES = 14, 4
_PREVIEW = (48, 36)


@dataclass(frozen=True)
class SceneView:
    """A scene and the view chosen for it."""

    scene: Scene
    tracer: Tracer
    view: View
    tries: int


def make_rng(seed: int, index: int, name: str, attempt: int = 0) -> np.random.Generator:
    """An independent source of randomness for one purpose of one scene."""
    return np.random.default_rng([seed, index, attempt, *name.encode()])


def build_scene(seed: int, index: int, attempt: int = 0, assets: Assets | None = None) -> Scene:
    """The scene of (seed, index), in plain arrays."""
    rng = make_rng(seed, index, "scene", attempt)
    family = str(rng.choice(list(FAMILIES), p=[share for _, share in FAMILIES.values()]))
    assets = assets or Assets()
    builder = Builder(rng, untextured=bool(rng.random() < 0.04), models=assets.models)
    place, propose = FAMILIES[family][0](rng, builder)
    sky, word = _sky(make_rng(seed, index, "sky", attempt), family, builder, assets)
    builder.notes["sky"] = word
    return builder.finish(family, place, sky, propose)


def _sky(
    rng: np.random.Generator, family: str, b: Builder, assets: Assets
) -> tuple[NDArray[np.float32], str]:
    """A sky that suits the family; its brightness relative to the lamps is random."""
    choices = [
        p
        for p in assets.panoramas
        if (p.indoor if family == "object" else not p.indoor) or rng.random() < 0.1
    ]
    measured = bool(choices) and rng.random() < {"room": 0.5, "outdoor": 0.4, "object": 0.75}[family]
    if measured:
        sky, word = skies.panorama(rng, choices[int(rng.integers(len(choices)))].read()), ""
    else:
        sky, word = skies.procedural(rng)
    target = {
        "room": rng.uniform(2, 9) if b.lights else 6.0,
        "outdoor": 1.0,
        "object": rng.uniform(0.3, 1.2),
    }[family]
    if family == "room" and b.lights and rng.random() < 0.2:
        target = 0.05  # night
    return sky * np.float32(target / max(skies.level(sky), 1e-3)), word


def choose_view(seed: int, index: int, assets: Assets | None = None) -> SceneView:
    """The first view with penalty 0, from at most _SCENES scenes with _VIEWS views each;
    else the one with the lowest penalty.
    """
    best: tuple[float, SceneView] | None = None
    tries = 0
    for attempt in range(_SCENES):
        scene = build_scene(seed, index, attempt, assets)
        tracer = Tracer(scene)
        rng = make_rng(seed, index, "view", attempt)
        for _ in range(_VIEWS):
            view = scene.propose(rng)
            labels = tracer.labels(view, *_PREVIEW)
            bad = penalty(labels.depth, labels.instance, scene.kinds, labels.backface, scene.family)
            tries += 1
            if best is None or bad < best[0]:
                best = (bad, SceneView(scene, tracer, view, tries))
            if bad == 0:
                return SceneView(scene, tracer, view, tries)
    assert best is not None
    return best[1]


def render_one(
    seed: int, index: int, width: int = 256, height: int = 192, spp: int = 8, assets: Assets | None = None
) -> Sample:
    """The labelled image of (seed, index). Needs the extra `render`.

    The same arguments, versions and assets give the same Sample, bit for bit, in any process and order.
    assets: None uses $TWOFOLD_ASSETS.
    """
    framed = choose_view(seed, index, find_assets() if assets is None else assets)
    labels = framed.tracer.labels(framed.view, width, height)
    radiance = framed.tracer.render_image(
        framed.view, width, height, spp, seed=_trace_seed(seed, index), labels=labels
    )
    image = simulate_camera(radiance, make_rng(seed, index, "camera"))
    return _sample(f"{seed:04d}-{index:06d}", framed, labels, image, {"seed": seed, "index": index})


def _trace_seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index, 7]).generate_state(1)[0] % 2**31)


def _sample(
    id: str, framed: SceneView, labels: Labels, image: NDArray[np.float32], made: dict[str, Any]
) -> Sample:
    """Arrays to a Sample: everything h w (c) becomes c h w."""
    scene = framed.scene
    semantic = scene.kinds[labels.instance]
    hit = torch.from_numpy(semantic != SKY)[None]
    everywhere = torch.ones_like(hit)
    height, width = semantic.shape
    targets = {
        "depth": torch.from_numpy(labels.depth)[None],
        "normals": torch.from_numpy(np.ascontiguousarray(labels.normals.transpose(2, 0, 1))),
        "mask": torch.from_numpy(np.asarray(FOREGROUND, np.float32)[semantic])[None],
        "semantic": torch.from_numpy(semantic.astype(np.float32))[None],
        "instance": torch.from_numpy(labels.instance.astype(np.float32))[None],
    }
    valid = {"depth": hit, "normals": hit, "mask": everywhere, "semantic": everywhere, "instance": everywhere}
    text = caption(scene.place, labels.instance, scene.kinds, float(image.mean()), scene.notes.get("sky", ""))
    return Sample(
        image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        targets=targets,
        valid=valid,
        caption=text,
        id=id,
        camera=framed.view.camera(width, height),
        origin=Provenance("rendered", (), {"renderer": RENDERER_VERSION, "family": scene.family, **made}),
    )
