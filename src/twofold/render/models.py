"""Optional furniture models: Sweet Home 3D catalogues (*.sh3f), as in Debian's package
sweethome3d-furniture.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.io import atomic_write, sha256_text
from twofold.render.meshes import Array, Mesh
from twofold.render.pieces import Part, Piece
from twofold.render.textures import Rng
from twofold.render.wavefront import MaterialMesh, read_obj

_CACHE_VERSION = 1
LARGEST = 600_000
"""Bytes of an OBJ file above which a model is left out (twice that for a few):
it would cost more than it shows."""
_FEW = ("person", "bed", "sofa", "car")

# Slot by the words of a model's name; the first line that matches counts.
_SLOTS: tuple[tuple[str, str], ...] = (
    (
        r"door|window|stair|shower|socket|plug|switch|escalator|bath$|urinal|bidet|toilet|chimney|hood|upper",
        "",
    ),
    (
        r"ceiling|hanging|pendant|chandelier|wall l|track|fluorescent|porch|"
        r"curtain|blind|dispenser|towel rack",
        "",
    ),
    (
        r"bunk|mezzanine|baby|crib|hammock|beach|deck chair|pool l|relax|swing|high chair|child.*(hut|game)",
        "",
    ),
    (r"lying|sitting|sit ", ""),
    (r"class seat|tablet", ""),
    (r"armchair|puff", "armchair"),
    (r"chair|stool", "chair"),
    (r"sofa|couch|futon couch|day bed", "sofa"),
    (r"piano bench|ottoman", "chair"),
    (r"\bbed\b", "bed"),
    (r"bedside", "cabinet"),
    (r"coffee table|tv stand|rattan table", "coffee_table"),
    (r"desk lamp|little lamp|table lamp|^lamp", "small"),
    (r"table tennis|pool table|football table|table fan|bat$", ""),
    (r"desk|technical", "desk"),
    (r"table", "dining_table"),
    (r"bookcase|shelves|bookshelf", "shelf"),
    (
        r"cabinet|cupboard|wardrobe|dresser|drawer|sideboard|chest|"
        r"fridge|refrigerator|washing|oven|stove|vanity|safe|island",
        "cabinet",
    ),
    (r"^(fe)?male|mannequin|^boy|^girl", "person"),
    (r"ford|sedan|beetle|seat leon|\bcar$", "car"),
    (r"plant|ficus|bamboo|yucca|lily|tulip|flowers|spathi|orchid|cactus|cypress", "plant"),
)
_KINDS = {
    "office_chair": "chair", "armchair": "chair", "chair": "chair", "sofa": "sofa", "bed": "bed",
    "coffee_table": "table", "desk": "table", "dining_table": "table", "shelf": "shelf", "cabinet": "cabinet",
    "person": "person", "car": "car", "plant": "plant",
}  # fmt: skip
_SMALL_KINDS = (
    (r"bottle|wine|flacon|milk|medicine b", "bottle"), (r"bowl|tray|plate", "bowl"),
    (r"cup|mug|glass", "cup"), (r"vase|jar|pottery|pot$", "vase"), (r"book", "book"), (r"box|gift", "box"),
    (r"lamp|candle|lantern", "lamp"),
    (r"tv|imac|laptop|ibook|screen|monitor", "screen"), (r"ball", "ball"),
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """An entry of a catalogue. size: width, depth, height in metres. top:
    where things may stand, 0 = nowhere.
    """

    archive: Path
    path: str
    name: str
    creator: str
    slot: str
    kind: str
    size: tuple[float, float, float]
    top: float
    turn: tuple[float, ...]

    def piece(self, rng: Rng) -> Piece:
        """The model as a piece of furniture, its materials kept, tinted, or replaced by procedural
        patterns.
        """
        parts = []
        keep = rng.random() < 0.55
        for material in _read_model(self):
            parts.append(_textured_part(rng, material, keep))
        return Piece(self.kind, parts, self.size[:2], self.top)


@dataclass(frozen=True)
class Catalogue:
    """All usable models, by slot."""

    slots: dict[str, tuple[Model, ...]] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)

    def pick(self, rng: Rng, slot: str, chance: float = 0.6) -> Piece | None:
        """A model for a slot with some probability. Uses no random number where there is none."""
        models = self.slots.get(slot, ())
        if not models or rng.random() > chance:
            return None
        return models[int(rng.integers(len(models)))].piece(rng)

    def describe(self) -> list[dict[str, Any]]:
        """Archive, digest, licence and the creators to be named, for the header of a data set."""
        archives: dict[Path, set[str]] = {}
        for models in self.slots.values():
            for m in models:
                archives.setdefault(m.archive, set()).add(m.creator)
        return [
            {
                "name": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "licence": self.licences[path.name],
                "creators": sorted(c for c in creators if c),
            }
            for path, creators in sorted(archives.items())
        ]


def _textured_part(rng: Rng, material: MaterialMesh, keep: bool) -> Part:
    """A material as a part: its own image or colour (a little off), or a pattern by projection along the
    main axes.
    """
    if keep or rng.random() < 0.3:
        if material.image is not None:
            image = (material.image / 255.0) ** 2.2 * rng.uniform(0.7, 1.2)
            return Part(material.mesh, image=np.clip(image, 0.02, 0.92).astype(np.float32)[::-1])
        shade = np.clip(np.asarray(material.color) ** 2.2 * rng.uniform(0.7, 1.2, 3), 0.02, 0.9)
        return Part(material.mesh, image=np.broadcast_to(shade, (8, 8, 3)).astype(np.float32))
    return Part(
        replace(material.mesh, uv=_projected(material.mesh)),
        "plain plain plain wood wood fabric cloudy stripes",
    )


def _projected(mesh: Mesh) -> Array:
    """Texture coordinates in metres: each face projected along its dominant axis."""
    face = np.abs(mesh.normals[mesh.faces].mean(1)).argmax(1)
    axes = np.array([[1, 2], [0, 2], [0, 1]])[face]
    uv = np.zeros((len(mesh.vertices), 2))
    for k in range(3):
        corner = mesh.faces[:, k]
        uv[corner] = np.take_along_axis(mesh.vertices[corner], axes, 1)
    return uv


def read_catalogue(folder: Path) -> Catalogue:
    """All models of the *.sh3f files in `folder` (each a zip with PluginFurnitureCatalog.properties)."""
    slots: dict[str, list[Model]] = {}
    licences = {}
    for path in sorted(folder.glob("*.sh3f")):
        with zipfile.ZipFile(path) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin1")
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        found = re.search(r"^license=(.*)$", text, re.MULTILINE)
        licences[path.name] = " ".join(found.group(1).split()) if found else "unknown"
        entries: dict[int, dict[str, str]] = {}
        for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.MULTILINE):
            entries.setdefault(int(number), {})[key] = value.strip()
        for _, entry in sorted(entries.items()):
            model = _model(path, entry)
            if model and sizes.get(model.path, 10 * LARGEST) <= LARGEST * (1 + (model.slot in _FEW)):
                slots.setdefault(model.slot, []).append(model)
    return Catalogue({k: tuple(v) for k, v in slots.items()}, licences)


def _model(archive: Path, entry: dict[str, str]) -> Model | None:
    """A catalogue entry as a model; None when it is of no use here."""
    if not {"name", "model", "width", "depth", "height"} <= set(entry) or entry.get("doorOrWindow") == "true":
        return None
    if not entry["model"].endswith(".obj"):
        return None
    name = entry["name"].lower()
    size = tuple(float(entry[k]) / 100 for k in ("width", "depth", "height"))
    slot = next((slot for words, slot in _SLOTS if re.search(words, name)), None)
    if slot == "chair" and entry.get("category") == "Office":
        slot = "office_chair"
    if slot is None and max(size) < 0.45 and min(size) > 0.01:
        slot = "small"
    if slot == "plant" and size[2] < 0.45:
        slot = "small"
    if not slot or (slot not in ("small", "car") and max(size) > 3.2):
        return None
    kind = _KINDS.get(slot) or next(
        (kind for words, kind in _SMALL_KINDS if re.search(words, name)), "object"
    )
    kind = "plant" if slot == "small" and re.search(_SLOTS[-1][0], name) else kind
    top = float(entry["dropOnTopElevation"]) / 100 if "dropOnTopElevation" in entry else size[2]
    top = top if kind in ("table", "cabinet") and 0.2 < top < 1.2 else 0.0
    turn = tuple(float(w) for w in entry.get("modelRotation", "").split())
    path = entry["model"].lstrip("/")
    return Model(
        archive, path, name, entry.get("creator", ""), slot, kind, (size[0], size[1], size[2]), top, turn
    )


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "twofold" / "models"


@lru_cache(maxsize=64)
def _read_model(model: Model) -> list[MaterialMesh]:
    """The model's materials in metres, z up, front toward -y, standing on the origin;
    parsed once and kept on disk.
    """
    source = f"{model.archive.name}|{model.archive.stat().st_size}|{model.path}"
    key = f"{_CACHE_VERSION}|{source}|{model.size}|{model.turn}"
    path = _cache_folder() / f"{sha256_text(key)[:32]}.npz"
    if path.exists():
        return _load(path)
    with zipfile.ZipFile(model.archive) as archive:
        materials = _stand(read_obj(archive, model.path), model)
    arrays: dict[str, NDArray] = {}
    for k, c in enumerate(materials):
        mesh = c.mesh
        arrays |= {
            f"v{k}": mesh.vertices,
            f"f{k}": mesh.faces,
            f"t{k}": mesh.uv,
            f"n{k}": mesh.normals,
            f"c{k}": np.array(c.color),
        }
        if c.image is not None:
            arrays[f"p{k}"] = c.image
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return materials


def _load(path: Path) -> list[MaterialMesh]:
    """Coats from the cache."""
    with np.load(path, allow_pickle=False) as d:
        names = set(d.files)
        return [
            MaterialMesh(
                Mesh(d[f"v{k}"], d[f"f{k}"], d[f"t{k}"], d[f"n{k}"]),
                tuple(d[f"c{k}"].tolist()),
                d[f"p{k}"] if f"p{k}" in names else None,
            )
            for k in range(sum(n.startswith("v") for n in names))
        ]


def _stand(materials: list[MaterialMesh], model: Model) -> list[MaterialMesh]:
    """From the catalogue's frame (y up, z front, any unit) to the scene frame, scaled to the catalogue's size."""
    r = np.array(model.turn).reshape(3, 3) if len(model.turn) == 9 else np.eye(3)
    # x right stays, front +z becomes -y, up +y becomes +z: a rotation, so windings stay.
    r = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ r
    turned = [c.mesh.rotated(r) for c in materials]
    low = np.min([m.vertices.min(0) for m in turned], 0)
    high = np.max([m.vertices.max(0) for m in turned], 0)
    scale = np.asarray(model.size) / np.maximum(high - low, 1e-9)
    out = []
    for material, mesh in zip(materials, turned, strict=True):
        v = (mesh.vertices - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]) * scale
        n = mesh.normals / scale
        n /= np.linalg.norm(n, axis=1, keepdims=True) + 1e-30
        out.append(replace(material, mesh=Mesh(v, mesh.faces, mesh.uv, n)))
    return out
