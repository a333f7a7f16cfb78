"""The known targets by name, each a `TargetSpec`: storage, resizing, mirroring, preview images."""

from .direction import Direction
from .distance import Distance
from .ids import STORAGE, Ids
from .images import ImageTarget, Skeleton
from .points import Points
from .shares import Mask, Share
from .spec import Descriptor as Descriptor, TargetSpec as TargetSpec

_ALL = (
    Distance(
        "depth", 1, "m", "distance along the camera's z axis; +inf is the sky: known to be far, not valid",
        storage={"codec": "png16", "scale": 0.002, "kind": "z", "invalid": [0], "infinite": 65535, "unit": "m"},
    ),
    Direction(
        "normals", 3, "unit vector", "frame RUB: x right, y up, z to the viewer; zero where unknown",
        storage={"codec": "npy", "frame": "RUB", "invalid": "zero", "unit": "vector"},
    ),
    Mask(
        "mask", 1, "0 or 1", "1 is the foreground", is_interpolable=False,
        storage={"codec": "png8", "threshold": 128, "ignore": [128]},
    ),
    Share(
        "matting", 1, "0 to 1", "alpha: the fraction of the pixel that is foreground",
        storage={"codec": "png16", "scale": 1 / 65535},
    ),
    Ids("semantic", 1, "class id", "the classes are listed in the header of the folder", False, STORAGE),
    Ids("instance", 1, "object id", "0 belongs to no object", False, STORAGE),
    Ids("parts", 1, "part id", "the parts are listed in the header of the folder", False),
    Share("trimap", 1, "0, 0.5 or 1", "background, unknown, foreground", is_interpolable=False),
    Share("edge", 1, "0 to 1", "probability of a boundary"),
    ImageTarget("segmentation", description="sRGB: the colour of the pixel's class", is_interpolable=False),
    ImageTarget("albedo", description="sRGB: the reflectance of the surface"),
    ImageTarget(
        "shading", description="linear light on the surface: image = albedo * shading + residual", is_linear=True
    ),
    ImageTarget("residual", description="linear light beside albedo * shading", is_linear=True),
    ImageTarget("material", description="roughness, metalness, 0"),
    # Interpolable: of two sizes of one person the smaller has the narrower peaks, and -1 stays -1.
    Points("keypoints", 17, "0 to 1", "heatmap of each COCO joint, 1 at its position; -1 everywhere if not labelled"),
    Skeleton("skeleton", description="sRGB: joints and limbs of people in fixed colours, on black"),
)  # fmt: skip
TARGETS: dict[str, TargetSpec] = {spec.name: spec for spec in _ALL}


def target_spec(name: str) -> TargetSpec:
    """The specification of a target; for an unknown name one that stores and resizes arbitrary numbers."""
    return TARGETS.get(name) or TargetSpec(name)
