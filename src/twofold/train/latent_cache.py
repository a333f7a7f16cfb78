"""Encoded samples on disk: a frozen encoder need not be asked twice. One file a sample, whole or absent.

Both mirror images are kept, because an encoder is not exactly equivariant to mirroring.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.folder import Folder
from ..data.layout import row_paths
from ..generate import weights_digest
from ..image.stored import MEMBER
from ..io import atomic_write, escape, sha256_text
from ..tasks import Task
from .encoder import LEVELS, Encoded, Encoder, Part, batch_size, resize_and_crop
from .state import DamagedFileError
from .validation import load_sample

# Folder of all stores, beside the runs; and of the names inside a file, so that other files are not read as these.
LATENTS, LAYOUT = "latents", 2


class LatentCache:
    """What an `Encoder` makes of a folder's samples, kept under ``cache`` by everything it depends on.

    Args:
        encoder: to ask where there is no file yet.
        folder: of the samples.
        size: they are brought to.
        resample: how.
        cache: folder of all stores.
        spelled: what else the tasks depend on, such as a compat switch.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: Folder,
        size: tuple[int, int],
        resample: str,
        cache: Path,
        spelled: str,
    ) -> None:
        self.encoder, self.folder, self.size, self.resample = encoder, folder, size, resample
        depends = [
            LAYOUT,
            weights_digest(encoder.backbone.vae) if encoder.backbone else "", str(folder.root), size, resample,
            sorted((k, t.name, t.target, t.out_channels) for k, t in encoder.tasks.items()),
            encoder.latent, encoder.pixels, encoder.pictures, spelled,
        ]  # fmt: skip
        self.root = cache / f"{folder.root.name}-{_short(json.dumps(depends))}"

    @property
    def both(self) -> bool:
        """Whether mirror images of canvases are kept as well: resizing to the nearest pixel follows mirroring there."""
        return self.encoder.released is not None

    def prepare(self, i: int) -> list[Encoded] | None:
        """Sample ``i`` and its mirror image, for `write`; None where they are here already.

        Raises:
            ValueError: the sample cannot be read, or nothing can be learned from it.
        """
        if self._path(i).exists():
            return None
        sample = resize_and_crop(load_sample(self.folder, i), self.size, self.encoder.stride, self.resample)
        return [self.encoder.prepare(sample, mirrored) for mirrored in (False, True)]

    def write(self, prepared: Iterable[tuple[int, list[Encoded] | None]]) -> None:
        """Encode samples and write a file for each, in batches of images of one shape.

        A kill loses those of at most two batches of each shape; the others are not encoded again.

        Raises:
            DiskFullError: there is no space for one.
        """
        waiting: dict[torch.Size, dict[int, list[Encoded]]] = {}
        for i, sides in prepared:
            if sides is None:
                continue
            shape = sides[0].image.shape
            group = waiting.setdefault(shape, {})
            group[i] = sides
            canvases = sum(1 + len(one.parts) for both in group.values() for one in both)
            if canvases >= 2 * batch_size(shape[-2], shape[-1]):
                self._encode(waiting.pop(shape))
        for group in waiting.values():
            self._encode(group)

    def _encode(self, group: Mapping[int, list[Encoded]]) -> None:
        encoded = iter(self.encoder.encode([one for sides in group.values() for one in sides]))
        self.root.mkdir(parents=True, exist_ok=True)
        for i in group:
            packed: dict[str, Tensor] = {}
            for side, one in enumerate((next(encoded), next(encoded))):
                packed |= _packed(one, side, self.encoder.tasks, self.both)
            with atomic_write(self._path(i)) as temporary:
                save_file(packed, temporary, {"caption": group[i][0].caption})

    def read(self, i: int, mirrored: bool) -> Encoded:
        """Sample ``i``, as it is or mirrored.

        Raises:
            DamagedFileError: its file is damaged, or is not there any more.
        """
        path = self._path(i)
        if not path.exists():
            raise DamagedFileError(
                f"{path}, the latents of {self.folder.ids[i]}, is not there: it was deleted, or a file of the sample "
                "was changed, after the run began; run the same command again"
            )
        try:
            found = load_file(path)
            return _unpacked(found, int(mirrored), self.encoder.tasks, self._caption(i), self.both)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise DamagedFileError(
                f"{path}, the latents of {self.folder.ids[i]}, is damaged ({escape(error)}); delete it and run the "
                "same command again: the sample is encoded again"
            ) from error

    def _caption(self, i: int) -> str:
        row = self.folder.rows[i]
        return str(row.get("text") or row.get("caption") or "")

    def _path(self, i: int) -> Path:
        """Named by what manifest and header say of the sample, and by when its files were last changed."""
        row, header = self.folder.rows[i], self.folder.header
        targets = {t: header.get("targets", {}).get(t) for t in self.folder.targets or ()}
        said = [row, targets, *(header.get(k) for k in ("image", "crop", "squeeze"))]
        files = [self.folder.files / path.split(MEMBER, 1)[0] for path in row_paths(row)]
        stats = [(s.st_mtime_ns, s.st_size) for s in (f.stat() for f in files if f.exists())]
        return self.root / f"{_short(json.dumps([said, stats], sort_keys=True))}.safetensors"


def _short(text: str) -> str:
    return sha256_text(text)[:20]


def _packed(encoded: Encoded, side: int, tasks: Mapping[str, Task], both: bool) -> dict[str, Tensor]:
    """Tensors by name; canvases in two bytes, and on side 0 only unless mirroring changes them otherwise (``both``)."""
    out = {f"{side}/image": encoded.image}
    if encoded.picture is not None and (both or side == 0):
        out[f"{side}/picture"] = encoded.picture
    for name, part in encoded.parts.items():
        if part.target is not None and part.mask is not None:
            out |= {f"{side}/{name}/target": part.target, f"{side}/{name}/mask": part.mask}
        if part.canvas is not None and part.known is not None and (both or side == 0):
            small = _small(part.canvas, tasks[name].is_image)
            out |= {f"{side}/{name}/canvas": small, f"{side}/{name}/known": part.known}
    return {k: v.contiguous() for k, v in out.items()}


def _small(canvas: Tensor, is_image: bool) -> Tensor:
    """Two bytes a number where that loses nothing, and one channel of a picture whose three are equal."""
    if is_image and torch.equal(canvas[0], canvas[1]) and torch.equal(canvas[0], canvas[2]):
        canvas = canvas[:1]
    steps = (canvas * LEVELS).round()
    fits = float(steps.abs().max()) <= LEVELS and torch.equal(steps / LEVELS, canvas)
    return steps.short() if fits else canvas


def _unpacked(
    found: dict[str, Tensor], side: int, tasks: Mapping[str, Task], caption: str, both: bool
) -> Encoded:
    kept = side if both else 0
    parts, picture = {}, found.get(f"{kept}/picture")
    for name, task in tasks.items():
        target, mask = found.get(f"{side}/{name}/target"), found.get(f"{side}/{name}/mask")
        canvas, known = found.get(f"{kept}/{name}/canvas"), found.get(f"{kept}/{name}/known")
        if target is None and canvas is None:
            continue
        if canvas is not None and known is not None:
            canvas = canvas.float() / LEVELS if canvas.dtype == torch.short else canvas
            canvas = canvas.expand(3, -1, -1) if task.is_image and len(canvas) == 1 else canvas
            if side != kept:
                canvas, known = task.flip(canvas), known.flip(-1)
        parts[name] = Part(target, mask, canvas, known)
    if picture is not None and side != kept:
        picture = picture.flip(-1)
    return Encoded(found[f"{side}/image"], caption, parts, picture)
