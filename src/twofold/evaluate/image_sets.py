"""FID and KID between a set of real and a set of generated images, with a record of all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import FolderError
from ..image import ImageError
from ..io import atomic_write, parse_object, quoted, to_json
from ..metrics import Features, fid, kid, kid_of_subsets
from .feature_network import FeatureNetwork
from .protocol import EvaluationError
from .report import versions

SCHEMA = "twofold-image-sets/1"
# Number of subsets and images in each for KID, as published.
SUBSETS, SUBSET_SIZE = 100, 1000

Result = dict[str, Any]


@dataclass(frozen=True)
class ImageSource:
    """An image that is read on demand: its name, and a function that reads it as ``3 h w`` in [0, 1]."""

    name: str
    read: Callable[[], Tensor]


@dataclass
class ImageSet:
    """A set of images that is read once, when its features are computed.

    Attributes:
        path: the path that the user passed.
        sources: the images.
        failed: (name, error) of each image that could not be read; these images are excluded.
        count: number of images that were read.
    """

    path: str
    sources: Iterable[ImageSource]
    failed: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    _hashes: list[str] = field(default_factory=list)

    def features(self, network: FeatureNetwork, batch: int = 8) -> Features:
        """Compute the features of every readable image.

        Raises:
            EvaluationError: fewer than two images can be read.
        """

        def batches() -> Iterator[Tensor]:
            images: list[Tensor] = []
            for image in self._read():
                images.append(network.prepare(image))
                if len(images) == batch:
                    yield torch.stack(images)
                    images = []
            if images:
                yield torch.stack(images)

        try:
            features = Features.of(batches(), network.compute)
        except ValueError as error:
            if self.count:
                raise
            raise EvaluationError(
                f"{quoted(self.path)} has no readable image; pass a folder of images"
            ) from error
        if self.count < 2:
            raise EvaluationError(
                f"{quoted(self.path)} has 1 image, and a covariance needs at least 2; pass more images"
            )
        return features

    def _read(self) -> Iterator[Tensor]:
        for source in self.sources:
            try:
                image = source.read()
            except (ImageError, FolderError, OSError) as error:
                self.failed.append((source.name, str(error)))
                continue
            self.count += 1
            levels = (image * 255).round().to(torch.uint8)
            size = str(tuple(levels.shape)).encode()
            self._hashes.append(hashlib.sha256(size + levels.numpy().tobytes()).hexdigest())
            yield image

    @property
    def metadata(self) -> dict[str, Any]:
        """Path, counts, and a sha256 over the 8-bit pixels of all images that does not depend on their order."""
        digest = hashlib.sha256("".join(sorted(self._hashes)).encode()).hexdigest()
        return {"path": self.path, "images": self.count, "failed": len(self.failed), "sha256": digest}


def image_set_distances(
    real: ImageSet, generated: ImageSet, network: FeatureNetwork, seed: int = 0, batch: int = 8
) -> Result:
    """FID and KID of two sets in the features of ``network``, as a JSON object with all that they depend on.

    Args:
        real: the images of the data.
        generated: the images to compare with them.
        network: the network that computes the features.
        seed: seed of the random subsets of KID.
        batch: batch size, which affects only the speed.

    Raises:
        EvaluationError: a set has fewer than two images.
    """
    first, second = (images.features(network, batch) for images in (real, generated))
    size = min(SUBSET_SIZE, real.count, generated.count)
    mean, deviation = kid_of_subsets(first, second, SUBSETS, size, seed)
    return {
        "schema": SCHEMA,
        "network": network.metadata,
        "real": real.metadata,
        "generated": generated.metadata,
        "seed": seed,
        "fid": fid(first.moments, second.moments),
        "kid": kid(first, second),
        "kid_subsets": {"mean": mean, "std": deviation, "subsets": SUBSETS, "size": size},
        "versions": versions(),
    }


def distance_warnings(result: Mapping[str, Any]) -> list[str]:
    """A warning if FID is biased because there are few images."""
    dimensions = result["network"]["dimensions"]
    fewest = min(result[k]["images"] for k in ("real", "generated"))
    if fewest > dimensions:
        return []
    return [
        f"{fewest} images and {dimensions} features: FID is biased upwards, compare it only between equal numbers "
        "of images; KID is not biased"
    ]


def check_comparable(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Check that distances are comparable, and return warnings about those of other numbers of images.

    Raises:
        EvaluationError: the results have different networks, layers, sizes or real images.
    """
    first, warnings = results[0], []
    for number, other in enumerate(results[1:], 2):
        for key, value in first["network"].items():
            if key != "name" and other["network"].get(key) != value:
                raise EvaluationError(
                    f"result {number} is of another feature network ({key} {other['network'].get(key)!r} instead of "
                    f"{value!r}); distances of different networks are not comparable: compute both with one network"
                )
        if other["real"]["sha256"] != first["real"]["sha256"]:
            raise EvaluationError(
                f"result {number} is of other real images ({quoted(other['real']['path'])} instead of "
                f"{quoted(first['real']['path'])}); compute both with the same images"
            )
        if other["generated"]["images"] != first["generated"]["images"]:
            warnings.append(
                f"result {number} is of {other['generated']['images']} generated images, the first of "
                f"{first['generated']['images']}: FID is not comparable, KID is"
            )
    return warnings


def write_distances(path: Path, result: Result) -> None:
    """Write a result as a JSON file, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(
            json.dumps(json.loads(to_json(result)), indent=1, ensure_ascii=False) + "\n", "utf-8"
        )


def read_distances(path: Path) -> Result:
    """Read a result of `write_distances`.

    Raises:
        EvaluationError: the file cannot be read or is not a result.
    """
    try:
        result = parse_object(path.read_text("utf-8"), str(path))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{quoted(str(path))} cannot be read: {error}") from error
    if result.get("schema") != SCHEMA or not _is_result(result):
        raise EvaluationError(f"{quoted(str(path))} is not a result of 'twofold metrics fid --out'")
    return result


def _is_result(value: Mapping[str, Any]) -> bool:
    """Whether the entries that comparisons read exist and have the right types."""
    network, sets = value.get("network"), (value.get("real"), value.get("generated"))
    return (
        isinstance(network, dict)
        and isinstance(network.get("dimensions"), int)
        and all(isinstance(value.get(name), float | int) for name in ("fid", "kid"))
        and all(
            isinstance(s, dict)
            and isinstance(s.get("images"), int)
            and all(isinstance(s.get(key), str) for key in ("path", "sha256"))
            for s in sets
        )
    )
