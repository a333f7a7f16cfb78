"""Parts and pieces: what furniture, objects and buildings are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.render.meshes import Array, Mesh

GLAZED = "plain plain cloudy stripes cells marble flowers"


@dataclass(frozen=True)
class Part:
    """A mesh and its texture. `kind` names the class; "" = the class of the whole piece."""

    mesh: Mesh
    patterns: str = ""
    palette: str = "any"
    kind: str = ""
    roughness: float | None = None
    metallic: float = 0.0
    texture_kind: str = ""  # "" pattern, or poster / spines / facade images

    image: NDArray[np.float32] | None = None  # n n 3 linear, one period per unit of texture coordinate

    def moved(self, by: tuple[float, float, float], turn: float = 0.0) -> Part:
        """Turned about z, then shifted."""
        return replace(self, mesh=self.mesh.moved(by, turn))

    def scaled(self, by: float) -> Part:
        """Scaled about the origin; an image stays as large as it is in its own coordinates."""
        mesh = self.mesh.scaled(by)
        return replace(self, mesh=mesh if self.image is None else replace(mesh, uv=self.mesh.uv))


@dataclass(frozen=True)
class Piece:
    """A piece of furniture: parts, footprint (width, depth) and the height of the surface things may stand
    on (or 0).
    """

    kind: str
    parts: list[Part]
    size: tuple[float, float]
    top: float = 0.0


def piece_bounds(piece: Piece) -> tuple[Array, Array]:
    """Lowest and highest corner over all parts."""
    low, high = zip(*(p.mesh.bounds for p in piece.parts), strict=True)
    return np.min(low, 0), np.max(high, 0)
