"""A scene as plain arrays: one mesh, one atlas, a few lights, one sky. Nothing here knows the path tracer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twofold.render import pictures
from twofold.render.atlas import Skin, pack
from twofold.render.camera import View
from twofold.render.classes import IDS
from twofold.render.furniture import Part, Piece
from twofold.render.meshes import Array, Mesh, box, join
from twofold.render.models import Catalogue
from twofold.render.textures import Rng, color, texture

LIGHTS = 4
"""Every scene has exactly this many light meshes (unused ones hide far below), so that its structure never
changes."""


@dataclass(frozen=True)
class Surface:
    """The merged mesh: atlas texture coordinates in [0, 1], and per face its instance, roughness and
    metalness.
    """

    mesh: Mesh
    instance: NDArray[np.int64]
    roughness: NDArray[np.float64]
    metallic: NDArray[np.float64]


@dataclass(frozen=True)
class Light:
    """A glowing mesh of one instance. radiance: linear RGB."""

    mesh: Mesh
    instance: int
    radiance: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything that is rendered. `kinds[i]` is the semantic id of instance i; instance 0 is the sky.

    sky: h w 3 linear RGB, equirectangular, row 0 at the zenith. propose(rng): a camera to try.
    """

    family: str
    place: str
    surface: Surface
    atlas: NDArray[np.float32]
    lights: list[Light]
    sky: NDArray[np.float32]
    kinds: NDArray[np.int64]
    propose: Callable[[Rng], View]
    notes: dict[str, str] = field(default_factory=dict)


@dataclass
class Builder:
    """Collects parts and lights of a scene. All randomness comes from `rng`.

    clay: paint everything plain (geometry without texture).
    """

    rng: Rng
    clay: bool = False
    models: Catalogue = field(default_factory=Catalogue)
    kinds: list[int] = field(default_factory=lambda: [IDS["sky"]])
    skins: list[Skin] = field(default_factory=list)
    meshes: list[Mesh] = field(default_factory=list)
    faces: list[tuple[int, int, float, float]] = field(
        default_factory=list
    )  # instance, skin, roughness, metallic
    lights: list[Light] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def instance(self, kind: str) -> int:
        """A new instance of a class."""
        self.kinds.append(IDS[kind])
        return len(self.kinds) - 1

    def skin(self, part: Part) -> int:
        """The picture for a part, drawn now."""
        rng = self.rng
        if part.picture is not None and not self.clay:
            skin = Skin(part.picture, 1.0)
        elif self.clay:
            mood = "light" if rng.random() < 0.5 else "any"
            skin = Skin(np.broadcast_to(color(rng, mood).astype(np.float32), (8, 8, 3)), 1.0)
        elif part.paint == "poster":
            skin = Skin(pictures.poster(rng), 0.0)
        elif part.paint == "spines":
            skin = Skin(pictures.spines(rng), 0.0)
        else:
            t = texture(rng, part.patterns, part.mood)
            skin = Skin(t.picture, t.period)
        self.skins.append(skin)
        return len(self.skins) - 1

    def add_skin(self, picture: NDArray[np.float32], period: float = 0.0) -> int:
        """A picture made elsewhere."""
        self.skins.append(Skin(picture, period))
        return len(self.skins) - 1

    def put(self, part: Part, instance: int, skin: int | None = None) -> int:
        """Add a part to an instance; returns the skin it wears, so that another part may wear it too."""
        rng = self.rng
        skin = self.skin(part) if skin is None else skin
        rough = float(np.clip(rng.beta(3, 1.6), 0.1, 1)) if part.roughness is None else part.roughness
        uv = part.mesh.uv - part.mesh.uv.min(0)
        s = self.skins[skin]
        s.width, s.height = max(s.width, float(uv[:, 0].max())), max(s.height, float(uv[:, 1].max()))
        self.meshes.append(Mesh(part.mesh.vertices, part.mesh.faces, uv, part.mesh.normals))
        self.faces.append((instance, skin, rough, part.metallic))
        return skin

    def place(self, piece: Piece, at: tuple[float, float, float], turn: float = 0.0) -> int:
        """Add a piece of furniture or a thing, turned and standing on `at`; returns its instance."""
        main = self.instance(piece.kind)
        others: dict[str, int] = {}
        skin = None
        for part in piece.parts:
            kind = part.kind or piece.kind
            if kind == piece.kind:
                owner = main
            elif kind in ("book", "vase", "object"):
                owner = others.setdefault(kind, self.instance(kind) if kind not in others else 0)
            else:
                owner = self.instance(kind)
            skin = self.put(part.moved(at, turn), owner, skin if part.paint == "same" else None)
        return main

    def light(self, mesh: Mesh, radiance: Array | tuple[float, float, float], kind: str = "lamp") -> None:
        """Add a glowing mesh; beyond LIGHTS of them they stay dark surfaces."""
        r, g, b = (float(v) for v in radiance)
        owner = self.instance(kind)
        if len(self.lights) < LIGHTS:
            self.lights.append(Light(mesh, owner, (r, g, b)))
        else:
            self.put(Part(mesh, "plain", "light"), owner)

    def finish(
        self, family: str, place: str, sky: NDArray[np.float32], propose: Callable[[Rng], View]
    ) -> Scene:
        """Pack the atlas and merge the meshes."""
        atlas, areas = pack(self.skins)
        pieces = []
        for mesh, (_, skin, _, _) in zip(self.meshes, self.faces, strict=True):
            u, v, w, h = areas[skin]
            s = self.skins[skin]
            scale = np.array([w / max(s.width, 1e-9), h / max(s.height, 1e-9)])
            pieces.append(Mesh(mesh.vertices, mesh.faces, mesh.uv * scale + [u, v], mesh.normals))
        counts = [len(m.faces) for m in self.meshes]
        per_face = [np.repeat([f[k] for f in self.faces], counts) for k in (0, 2, 3)]
        surface = Surface(join(pieces), per_face[0].astype(int), per_face[1], per_face[2])
        lights = list(self.lights)
        while len(lights) < LIGHTS:
            lights.append(Light(box((0.1, 0.1, 0.1), (0, 0, -200.0 - len(lights))), 0, (1e-4, 1e-4, 1e-4)))
        return Scene(family, place, surface, atlas, lights, sky, np.array(self.kinds), propose, self.notes)
