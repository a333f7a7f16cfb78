"""Optional files: measured panoramas and furniture models. They change the images, so the header
lists them: see `describe`.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.render.models import Catalogue, Model, read_catalogue
from twofold.render.tracer import mitsuba, threads

VARIABLE = "TWOFOLD_ASSETS"
_INDOOR = ("apartment", "hall", "lab", "lobby", "studio", "warehouse", "workshop")


@dataclass(frozen=True)
class Panorama:
    """An equirectangular radiance map on disk."""

    name: str
    path: Path
    sha256: str
    indoor: bool

    def read(self) -> NDArray[np.float32]:
        """h w 3 linear radiance."""
        mi = mitsuba()
        stream = mi.MemoryStream()
        stream.write(_bytes(self.path))
        stream.seek(0)
        # The EXR reader hands work to the thread pool and waits: with a pool of one it would wait for itself.
        with threads(2):
            bitmap = mi.Bitmap(stream)
        x = np.array(bitmap.convert(mi.Bitmap.PixelFormat.RGB, mi.Struct.Type.Float32, False))
        return x.reshape(*x.shape[:2], 3)


@dataclass(frozen=True)
class Assets:
    """The assets of all folders."""

    panoramas: tuple[Panorama, ...] = ()
    models: Catalogue = field(default_factory=Catalogue)
    licences: dict[str, str] = field(default_factory=dict)

    def describe(self) -> list[dict[str, Any]]:
        """Name, digest and licence of every file, for the header of a data set."""
        licence = self.licences.get("panoramas", "")
        skies = [{"name": p.name, "sha256": p.sha256, "licence": licence} for p in self.panoramas]
        return [*skies, *self.models.describe()]


def _bytes(path: Path) -> bytes:
    """The EXR in a file: plain, or as the base64 string of a JavaScript module."""
    raw = path.read_bytes()
    if path.suffix == ".js":
        text = raw.decode()
        start = text.index("base64,") + len("base64,")
        return base64.b64decode(text[start : text.index("'", start)])
    return raw


def find_assets(folders: str | Path | None = None) -> Assets:
    """Assets in `folders` (one, or several joined by os.pathsep), or in $TWOFOLD_ASSETS, or none.

    Understood: `hdri/*.exr` or `hdri/*.exr.js` (the layout of the CC0 npm package @pmndrs/assets), and
    furniture catalogues `*.sh3f` (Sweet Home 3D). ValueError when a named folder has neither.
    """
    panoramas: list[Panorama] = []
    slots: dict[str, tuple[Model, ...]] = {}
    licences: dict[str, str] = {}
    model_licences: dict[str, str] = {}
    for name in str(folders or os.environ.get(VARIABLE) or "").split(os.pathsep):
        if not name:
            continue
        root = Path(name)
        files = sorted([*root.glob("hdri/*.exr"), *root.glob("hdri/*.exr.js")])
        catalogue = read_catalogue(root)
        if not files and not catalogue.slots:
            raise ValueError(
                f"{root} has neither hdri/*.exr, hdri/*.exr.js nor *.sh3f; name another folder, or none"
            )
        for path in files:
            stem = path.name.split(".")[0]
            digest = hashlib.sha256(_bytes(path)).hexdigest()
            panoramas.append(Panorama(stem, path, digest, stem in _INDOOR))
            licences["panoramas"] = _licence(root)
        model_licences |= catalogue.licences
        for slot, models in catalogue.slots.items():
            slots[slot] = (*slots.get(slot, ()), *models)
    return Assets(tuple(panoramas), Catalogue(slots, model_licences), licences)


def _licence(root: Path) -> str:
    """First words of a licence file beside the assets."""
    for path in sorted(root.glob("LICEN*")):
        text = path.read_text(errors="replace")
        return "CC0-1.0" if "CC0" in text else " ".join(text.split())[:80]
    return "unknown"
