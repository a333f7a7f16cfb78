"""Cache of encoded samples on disk, one file per sample, written atomically.

It has the latents of an image and of its mirror image, because an autoencoder is not exactly equivariant to mirroring.
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
from .encoder import LEVELS, Encoded, EncodedTarget, Encoder, batch_size, resize_and_crop
from .state import DamagedFileError
from .validation import load_sample

# Folder of all caches, beside the runs; and the version of a file's layout.
LATENTS, LAYOUT = "latents", 2


class LatentCache:
    """A cache of the encoded samples of a folder, under a name that is a hash of everything they depend on.

    Args:
        encoder: encodes samples that have no file yet.
        folder: of the samples.
        size: height and width for `resize_and_crop`.
        resample: likewise.
        cache: folder of all caches.
        spelled: further settings that tasks depend on, such as a compat switch.
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
            encoder.latent, encoder.pixels, encoder.keep_image, spelled,
        ]  # fmt: skip
        self.root = cache / f"{folder.root.name}-{_short(json.dumps(depends))}"

    @property
    def both(self) -> bool:
        """Whether mirrored targets are cached too: nearest-pixel resizing after mirroring is not its mirror image."""
        return self.encoder.released is not None

    def prepare(self, i: int) -> list[Encoded] | None:
        """Sample ``i`` and its mirror image, for `write`; None if they are cached already.

        Raises:
            ValueError: the sample cannot be read or used.
        """
        if self._path(i).exists():
            return None
        sample = resize_and_crop(load_sample(self.folder, i), self.size, self.encoder.stride, self.resample)
        return [self.encoder.prepare(sample, mirrored) for mirrored in (False, True)]

    def write(self, prepared: Iterable[tuple[int, list[Encoded] | None]]) -> None:
        """Encode samples in batches of one shape, and write a file for each.

        A kill loses at most two batches of each shape; the others are not encoded again.

        Raises:
            DiskFullError: there is no space for a file.
        """
        waiting: dict[torch.Size, dict[int, list[Encoded]]] = {}
        for i, sides in prepared:
            if sides is None:
                continue
            shape = sides[0].image.shape
            group = waiting.setdefault(shape, {})
            group[i] = sides
            canvases = sum(1 + len(one.targets) for both in group.values() for one in both)
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
        """Sample ``i``, mirrored or not.

        Raises:
            DamagedFileError: its file is damaged or missing.
        """
        path = self._path(i)
        if not path.exists():
            raise DamagedFileError(
                f"{path}, the latents of {self.folder.ids[i]}, does not exist: it was deleted, or a file of the sample "
                "was changed, after the run started; run the same command again"
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
        """The file of sample ``i``, named by a hash of its row, the header, and size and time of its files."""
        row, header = self.folder.rows[i], self.folder.header
        targets = {t: header.get("targets", {}).get(t) for t in self.folder.targets or ()}
        described = [row, targets, *(header.get(k) for k in ("image", "crop", "squeeze"))]
        files = [self.folder.files / path.split(MEMBER, 1)[0] for path in row_paths(row)]
        stats = [(s.st_mtime_ns, s.st_size) for s in (f.stat() for f in files if f.exists())]
        return self.root / f"{_short(json.dumps([described, stats], sort_keys=True))}.safetensors"


def _short(text: str) -> str:
    return sha256_text(text)[:20]


def _packed(encoded: Encoded, side: int, tasks: Mapping[str, Task], both: bool) -> dict[str, Tensor]:
    """The tensors of a file for ``side`` (0, or 1 mirrored); targets of side 1 only with ``both``."""
    out = {f"{side}/image": encoded.image}
    if encoded.image_uint8 is not None and (both or side == 0):
        out[f"{side}/picture"] = encoded.image_uint8
    for name, label in encoded.targets.items():
        if label.target is not None and label.mask is not None:
            out |= {f"{side}/{name}/target": label.target, f"{side}/{name}/mask": label.mask}
        if label.canvas is not None and label.known is not None and (both or side == 0):
            small = _small(label.canvas, tasks[name].is_image)
            out |= {f"{side}/{name}/canvas": small, f"{side}/{name}/known": label.known}
    return {k: v.contiguous() for k, v in out.items()}


def _small(canvas: Tensor, is_image: bool) -> Tensor:
    """An encoded target in two bytes per value if that is lossless, and in one channel if three are equal."""
    if is_image and torch.equal(canvas[0], canvas[1]) and torch.equal(canvas[0], canvas[2]):
        canvas = canvas[:1]
    steps = (canvas * LEVELS).round()
    fits = float(steps.abs().max()) <= LEVELS and torch.equal(steps / LEVELS, canvas)
    return steps.short() if fits else canvas


def _unpacked(
    found: dict[str, Tensor], side: int, tasks: Mapping[str, Task], caption: str, both: bool
) -> Encoded:
    kept = side if both else 0
    targets, image_uint8 = {}, found.get(f"{kept}/picture")
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
        targets[name] = EncodedTarget(target, mask, canvas, known)
    if image_uint8 is not None and side != kept:
        image_uint8 = image_uint8.flip(-1)
    return Encoded(found[f"{side}/image"], caption, targets, image_uint8)
