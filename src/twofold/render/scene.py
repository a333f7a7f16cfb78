"""A scene as plain arrays: one mesh, one atlas, a few lights, one sky. Independent of the path tracer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twofold.render import image_textures
from twofold.render.atlas import AtlasTile, pack
from twofold.render.camera import View
from twofold.render.classes import IDS
from twofold.render.meshes import Array, Mesh, box, join
from twofold.render.models import Catalogue
from twofold.render.pieces import Part, Piece
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

    untextured: plain colours only (geometry without texture).
    """

    rng: Rng
    untextured: bool = False
    models: Catalogue = field(default_factory=Catalogue)
    kinds: list[int] = field(default_factory=lambda: [IDS["sky"]])
    atlas_tiles: list[AtlasTile] = field(default_factory=list)
    meshes: list[Mesh] = field(default_factory=list)
    faces: list[tuple[int, int, float, float]] = field(
        default_factory=list
    )  # instance, atlas_tile, roughness, metallic
    lights: list[Light] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def add_instance(self, kind: str) -> int:
        """A new instance of a class."""
        self.kinds.append(IDS[kind])
        return len(self.kinds) - 1

    def make_atlas_tile(self, part: Part) -> int:
        """The tile of a part, with a random texture."""
        rng = self.rng
        if part.image is not None and not self.untextured:
            atlas_tile = AtlasTile(part.image, 1.0)
        elif self.untextured:
            palette = "light" if rng.random() < 0.5 else "any"
            atlas_tile = AtlasTile(np.broadcast_to(color(rng, palette).astype(np.float32), (8, 8, 3)), 1.0)
        elif part.texture_kind == "poster":
            atlas_tile = AtlasTile(image_textures.poster(rng), 0.0)
        elif part.texture_kind == "spines":
            atlas_tile = AtlasTile(image_textures.spines(rng), 0.0)
        else:
            t = texture(rng, part.patterns, part.palette)
            atlas_tile = AtlasTile(t.image, t.period)
        self.atlas_tiles.append(atlas_tile)
        return len(self.atlas_tiles) - 1

    def add_atlas_tile(self, image: NDArray[np.float32], period: float = 0.0) -> int:
        """An image that is passed in."""
        self.atlas_tiles.append(AtlasTile(image, period))
        return len(self.atlas_tiles) - 1

    def add_part(self, part: Part, instance: int, atlas_tile: int | None = None) -> int:
        """Add a part to an instance; returns its atlas tile, so that another part may share it."""
        rng = self.rng
        atlas_tile = self.make_atlas_tile(part) if atlas_tile is None else atlas_tile
        rough = float(np.clip(rng.beta(3, 1.6), 0.1, 1)) if part.roughness is None else part.roughness
        uv = part.mesh.uv - part.mesh.uv.min(0)
        s = self.atlas_tiles[atlas_tile]
        s.width, s.height = max(s.width, float(uv[:, 0].max())), max(s.height, float(uv[:, 1].max()))
        self.meshes.append(Mesh(part.mesh.vertices, part.mesh.faces, uv, part.mesh.normals))
        self.faces.append((instance, atlas_tile, rough, part.metallic))
        return atlas_tile

    def add_piece(self, piece: Piece, at: tuple[float, float, float], turn: float = 0.0) -> int:
        """Add a piece of furniture or a thing, turned and standing on `at`; returns its instance."""
        main = self.add_instance(piece.kind)
        others: dict[str, int] = {}
        atlas_tile = None
        for part in piece.parts:
            kind = part.kind or piece.kind
            if kind == piece.kind:
                owner = main
            elif kind in ("book", "vase", "object"):
                owner = others.setdefault(kind, self.add_instance(kind) if kind not in others else 0)
            else:
                owner = self.add_instance(kind)
            atlas_tile = self.add_part(
                part.moved(at, turn), owner, atlas_tile if part.texture_kind == "same" else None
            )
        return main

    def add_light(self, mesh: Mesh, radiance: Array | tuple[float, float, float], kind: str = "lamp") -> None:
        """Add a glowing mesh; beyond LIGHTS of them they stay dark surfaces."""
        r, g, b = (float(v) for v in radiance)
        owner = self.add_instance(kind)
        if len(self.lights) < LIGHTS:
            self.lights.append(Light(mesh, owner, (r, g, b)))
        else:
            self.add_part(Part(mesh, "plain", "light"), owner)

    def finish(
        self, family: str, place: str, sky: NDArray[np.float32], propose: Callable[[Rng], View]
    ) -> Scene:
        """Pack the atlas and merge the meshes."""
        atlas, areas = pack(self.atlas_tiles)
        pieces = []
        for mesh, (_, atlas_tile, _, _) in zip(self.meshes, self.faces, strict=True):
            u, v, w, h = areas[atlas_tile]
            s = self.atlas_tiles[atlas_tile]
            scale = np.array([w / max(s.width, 1e-9), h / max(s.height, 1e-9)])
            pieces.append(Mesh(mesh.vertices, mesh.faces, mesh.uv * scale + [u, v], mesh.normals))
        counts = [len(m.faces) for m in self.meshes]
        per_face = [np.repeat([f[k] for f in self.faces], counts) for k in (0, 2, 3)]
        surface = Surface(join(pieces), per_face[0].astype(int), per_face[1], per_face[2])
        lights = list(self.lights)
        while len(lights) < LIGHTS:
            lights.append(Light(box((0.1, 0.1, 0.1), (0, 0, -200.0 - len(lights))), 0, (1e-4, 1e-4, 1e-4)))
        return Scene(family, place, surface, atlas, lights, sky, np.array(self.kinds), propose, self.notes)
