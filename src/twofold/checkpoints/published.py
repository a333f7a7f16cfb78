"""Table of published models: their sources, and the settings that their files do not contain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..predict.diffusion import Edge
from ..protocols import MultiStep, Noise, OneStep
from ..tasks import TASKS
from .settings import TaskSettings


@dataclass(frozen=True)
class Published:
    """One published model.

    Attributes:
        source: hub id, or the URL of its files.
        method: its name in its paper.
        paper: arXiv number.
        tasks: settings of each task.
        licence: licence of the weights as stated on their page; check it there before use.
        size: length in pixels that the authors resize ``edge`` of images to, 0 for no resizing.
        edge: see `ModelSettings`.
        unet: folder of the U-Net.
        vae: folder of the autoencoder.
        text: whether the repository has a text encoder.
        base: the family whose components complete an incomplete checkpoint.
        headless: whether the network has no output layer, because a head reads its features.
        lora: file of the low-rank weights that the checkpoint consists of.
        head: folder of a DPT head.
        head_activation: activation of that head's output.
        note: hints for users.
        parts: further folders of the repository that are read.
    """

    source: str
    method: str
    paper: str
    tasks: Mapping[str, TaskSettings]
    licence: str
    size: int = 768
    edge: Edge = "longest"
    unet: str = "unet"
    vae: str = "vae"
    text: bool = True
    base: Literal["", "sd21", "sd14", "sd15"] = ""
    headless: bool = False
    lora: str = ""
    head: str = ""
    head_activation: Literal["identity", "relu", "elu+1"] = "identity"
    note: str = ""
    parts: tuple[str, ...] = field(default=())

    @property
    def generates(self) -> bool:
        """Whether the network still generates images: true of Diff-2-in-1, whose network is frozen."""
        return self.method == "Diff-2-in-1"

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of the repository that are fetched."""
        own = (self.unet, self.vae, "scheduler", self.head) if not self.lora else ()
        text = ("text_encoder", "tokenizer") if self.text else ()
        return tuple(p for p in (*own, *text, *self.parts) if p)


def _task(protocol: OneStep | MultiStep, name: str, **more: object) -> TaskSettings:
    frame = TASKS[name].frame
    # Otherwise the space is the task's.
    space = name if name in ("depth", "disparity") else ""
    # All but E2E-FT clip each component of a vector before normalising it, which changes its direction slightly.
    clip = "channels" if frame else "mean"
    return TaskSettings.model_validate(
        {"protocol": protocol, "space": space, "frame": frame, "clip": clip, **more}
    )


# As stated on the models' pages; check there before use.
APACHE, RAIL = "Apache-2.0 (see the model's page)", "CreativeML Open RAIL++-M (see the model's page)"
NON_COMMERCIAL = "code for non-commercial academic use; see the model's page"


def _marigold(
    repo: str, protocol: MultiStep, *targets: str, paper: str = "2312.02145", note: str = "", licence: str = RAIL,
    linear: bool = False,
) -> Published:  # fmt: skip
    more = {"space": "linear"} if linear else {}
    tasks = {name: _task(protocol, name, output_index=i, **more) for i, name in enumerate(targets)}
    return Published(f"prs-eth/{repo}", "Marigold", paper, tasks, licence, note=note)


_TRAILING = MultiStep(steps=4, spacing="trailing", final="prev")
_LEADING = MultiStep(steps=10, spacing="leading", final="prev")
_LCM = MultiStep(steps=1, sampler="lcm", final="prev")
_JOURNAL = "2505.09358"


def _e2e(repo: str, space: str) -> Published:
    # The checkpoint contains neither the zeros nor that the sampler returns x0.
    protocol = MultiStep(steps=1, start="zeros", spacing="trailing", final="x0", noise=Noise())
    # The authors train with 77 padded tokens and predict with 2, as here.
    frame = "LUB" if TASKS[space].frame else None
    # Its normals are normalised without clipping.
    tasks = {
        space: _task(
            protocol, space, frame=frame, minmax_normalize=frame is None, clip="mean", resize="antialias"
        )
    }
    return Published(f"GonzaloMG/{repo}", "E2E-FT", "2409.11355", tasks, "see the model's page")


_UNKNOWN_X = "the sign of x of its normals is not documented; check it on one image"
_GENPERCEPT_TASKS = {
    "depth": "depth",
    "disparity": "disparity",
    "normal": "normals",
    "dis": "mask",
    "matting": "matting",
    "seg": "segmentation",
}


def _genpercept(name: str, version: str = "v2", dpt: bool = False) -> Published:
    task = _GENPERCEPT_TASKS[name]
    old = version == "v1"
    # v1 was trained with the empty prompt padded to 77 tokens; its depth is min-max normalised per image.
    how = _task(
        OneStep(timestep=1, train_timesteps="random"), task, pad=old,
        minmax_normalize=dpt or (old and TASKS[task].space == "depth"),
        head="dpt" if dpt else "latent", resize="antialias",
    )  # fmt: skip
    unet = f"unet_{name}{'_dpt_head' if dpt else ''}_{version}"
    first_home = old and name in ("depth", "normal")
    licence = "CC0-1.0 (see the model's page)" if first_home else NON_COMMERCIAL
    source = "guangkaixu/GenPercept" if first_home else "guangkaixu/genpercept-models"
    note = _UNKNOWN_X if TASKS[task].frame else ""
    return Published(
        source, "GenPercept", "2403.06090", {task: how}, licence, unet=unet, text=False, base="sd21", headless=dpt,
        head="dpt_head_identity" if dpt else "", note=note,
    )  # fmt: skip


# The sine and cosine of (1, 0): "annotate", not "reconstruct".
_ANNOTATE = (math.sin(1), math.sin(0), math.cos(1), math.cos(0))


def _lotus(repo: str, space: str, generative: bool) -> Published:
    protocol = OneStep(
        timestep=999, prediction_type="x0", condition="concat" if generative else "replace", start="gaussian",
        encode="sample", class_labels=_ANNOTATE,
    )  # fmt: skip
    frame = "LUB" if TASKS[space].frame else None
    tasks = {space: _task(protocol, space, frame=frame, clip="channels", resize="nearest")}
    return Published(f"jingheya/{repo}", "Lotus", "2409.18124", tasks, "Apache-2.0")


def _dmp(space: str) -> Published:
    # Time steps 801, 601, ..., 1; the SD 1.4 base predicts noise, this predicts v.
    protocol = MultiStep(
        steps=5, start="image", condition="replace", spacing="leading", final="prev", encode="sample",
        noise=Noise(prediction_type="v"),
    )  # fmt: skip
    clip = "channels" if TASKS[space].frame else "lower"
    tasks = {space: _task(protocol, space, pad=True, clip=clip, resize="bicubic")}
    facts = {
        "depth": "its 1 is 8 metres",
        "normals": _UNKNOWN_X,
    }
    return Published(
        "https://github.com/shinying/dmp", "DMP", "2311.18832", tasks, "see the project's page", size=512,
        edge="shortest", base="sd14", lora="pytorch_lora_weights", text=False,
        note="its files are on a cloud drive: pass its folder. The settings are of its *-notext checkpoints; "
        f"the others need a caption by BLIP-2 and guidance 2. {facts[space][0].upper()}{facts[space][1:]}",
    )  # fmt: skip


def _diff2in1(protocol: OneStep, size: int, edge: Edge) -> Published:
    # Its files predict LUB; the weights are converted to RUB when they are read.
    settings = _task(protocol, "normals", head="bae", pad=True)
    return Published(
        "https://huggingface.co/ShuhongZheng/diff-2-in-1", "Diff-2-in-1", "2411.05005", {"normals": settings},
        "none stated", size=size, edge=edge, text=False, base="sd15",
        note="fetch its two files by hand (sn_ckpt and bae_ckpt) into one folder, and give that folder with --method",
    )  # fmt: skip


PUBLISHED: dict[str, Published] = {
    "marigold-depth-v1-0": _marigold("marigold-depth-v1-0", _LEADING, "depth", licence=APACHE),
    "marigold-depth-v1-1": _marigold("marigold-depth-v1-1", _TRAILING, "depth", paper=_JOURNAL),
    "marigold-depth-lcm-v1-0": _marigold("marigold-depth-lcm-v1-0", _LCM, "depth"),
    "marigold-normals-v0-1": _marigold("marigold-normals-v0-1", _LEADING, "normals", licence=APACHE),
    "marigold-normals-lcm-v0-1": _marigold("marigold-normals-lcm-v0-1", _LCM, "normals", licence=APACHE),
    "marigold-normals-v1-1": _marigold("marigold-normals-v1-1", _TRAILING, "normals", paper=_JOURNAL),
    "marigold-iid-appearance-v1-1": _marigold(
        "marigold-iid-appearance-v1-1",
        MultiStep(steps=4, final="prev", num_outputs=2),
        "albedo",
        "material",
        paper=_JOURNAL,
        note="material: roughness, metallicity, 0",
    ),
    "marigold-iid-lighting-v1-1": _marigold(
        "marigold-iid-lighting-v1-1",
        MultiStep(steps=4, final="prev", num_outputs=3),
        "albedo",
        "shading",
        "residual",
        paper=_JOURNAL,
        linear=True,
    ),
    **{f"genpercept-{n}": _genpercept(n) for n in _GENPERCEPT_TASKS},
    "genpercept-disparity-dpt-head": _genpercept("disparity", dpt=True),
    **{f"genpercept-{n}-v1": _genpercept(n, "v1") for n in ("depth", "normal", "dis", "matting")},
    "e2e-ft-marigold-depth": _e2e("marigold-e2e-ft-depth", "depth"),
    "e2e-ft-marigold-normals": _e2e("marigold-e2e-ft-normals", "normals"),
    "e2e-ft-sd-depth": _e2e("stable-diffusion-e2e-ft-depth", "depth"),
    "e2e-ft-sd-normals": _e2e("stable-diffusion-e2e-ft-normals", "normals"),
    "lotus-depth-g-v1-0": _lotus("lotus-depth-g-v1-0", "depth", True),
    "lotus-depth-d-v1-0": _lotus("lotus-depth-d-v1-0", "depth", False),
    "lotus-depth-g-v2-0-disparity": _lotus("lotus-depth-g-v2-0-disparity", "disparity", True),
    "lotus-depth-g-v2-1-disparity": _lotus("lotus-depth-g-v2-1-disparity", "disparity", True),
    "lotus-depth-d-v2-0-disparity": _lotus("lotus-depth-d-v2-0-disparity", "disparity", False),
    "lotus-normal-g-v1-0": _lotus("lotus-normal-g-v1-0", "normals", True),
    "lotus-normal-g-v1-1": _lotus("lotus-normal-g-v1-1", "normals", True),
    "lotus-normal-d-v1-0": _lotus("lotus-normal-d-v1-0", "normals", False),
    "lotus-normal-d-v1-1": _lotus("lotus-normal-d-v1-1", "normals", False),
    "dmp-depth": _dmp("depth"),
    "dmp-normals": _dmp("normals"),
    "diff2in1-normals": _diff2in1(OneStep(timestep=0), 640, "longest"),
    # As in its program: resized to a square, a sampled latent, with the noise of the first time step.
    "diff2in1-normals-official": _diff2in1(OneStep(timestep=0, encode="sample", add_noise=True), 512, "both"),
}


def find_published(name: str) -> str | None:
    """The row whose name or hub id is ``name``; None if there is none or the repository holds several."""
    if name in PUBLISHED:
        return name
    found = [key for key, row in PUBLISHED.items() if row.source == name]
    if not found:  # GenPercept's authors also have a repository per task
        owner, _, last = name.partition("/")
        found = [k for k, row in PUBLISHED.items() if k == last and row.source.partition("/")[0] == owner]
    return found[0] if len(found) == 1 else None


def find_by_folder(name: str) -> str | None:
    """The row whose download a folder called ``name`` is; None if there is none."""
    if name in PUBLISHED:
        return name
    found = [key for key, row in PUBLISHED.items() if row.source.rsplit("/", 1)[-1] == name]
    return found[0] if len(found) == 1 else None
