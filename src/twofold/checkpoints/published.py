"""Table of published models: their sources, and the settings that their files do not contain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
        method: name of the method in its paper.
        paper: arXiv number.
        tasks: settings by task.
        licence: licence of the weights as stated on their page; check it there before use.
        size: length in pixels that the authors resize ``edge`` of images to, 0 for no resizing.
        edge: see `ModelSettings`.
        unet: folder of the U-Net in the repository.
        vae: folder of the autoencoder in the repository.
        text: whether the repository has a text encoder.
        base: key of `locate.BASES`; such a base model completes the checkpoint.
        headless: whether the network has no output layer, because a head reads its features.
        lora: name, without suffix, of the file of LoRA weights that the checkpoint consists of.
        head: folder of a DPT head.
        head_activation: activation of that head's output.
        note: hints for users.
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

    @property
    def generates(self) -> bool:
        """Whether the network generates images: true only of Diff-2-in-1, which does not train the U-Net."""
        return self.method == "Diff-2-in-1"

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of the repository that have to be fetched."""
        networks = (self.unet, self.vae, "scheduler", self.head) if not self.lora else ()
        text = ("text_encoder", "tokenizer") if self.text else ()
        return tuple(name for name in (*networks, *text) if name)


def _task(protocol: OneStep | MultiStep, name: str, **settings: object) -> TaskSettings:
    frame = TASKS[name].frame
    # An empty space is that of the task.
    space = name if name in ("depth", "disparity") else ""
    # All but E2E-FT clip each component of a vector before normalising it, which changes its direction slightly.
    clip = "channels" if frame else "mean"
    return TaskSettings.model_validate(
        {"protocol": protocol, "space": space, "frame": frame, "clip": clip, **settings}
    )


# As stated on the models' pages; check there before use.
APACHE, RAIL = "Apache-2.0 (see the model's page)", "CreativeML Open RAIL++-M (see the model's page)"
NON_COMMERCIAL = "code for non-commercial academic use; see the model's page"


def _marigold(
    repo: str, protocol: MultiStep, *targets: str, paper: str = "2312.02145", note: str = "", licence: str = RAIL,
    linear: bool = False,
) -> Published:  # fmt: skip
    settings = {"space": "linear"} if linear else {}
    tasks = {name: _task(protocol, name, output_index=i, **settings) for i, name in enumerate(targets)}
    return Published(f"prs-eth/{repo}", "Marigold", paper, tasks, licence, note=note)


_TRAILING = MultiStep(steps=4, spacing="trailing", final="prev")
_LEADING = MultiStep(steps=10, spacing="leading", final="prev")
_LCM = MultiStep(steps=1, sampler="lcm", final="prev")
_JOURNAL = "2505.09358"


def _e2e(repo: str, space: str) -> Published:
    # The checkpoint contains neither the start from zeros nor the setting that the sampler returns x0.
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
    v1 = version == "v1"
    # v1 was trained with the empty prompt padded to 77 tokens; its depth is min-max normalised per image.
    settings = _task(
        OneStep(timestep=1, train_timesteps="random"), task, pad=v1,
        minmax_normalize=dpt or (v1 and TASKS[task].space == "depth"),
        head="dpt" if dpt else "latent", resize="antialias",
    )  # fmt: skip
    unet = f"unet_{name}{'_dpt_head' if dpt else ''}_{version}"
    first_repository = v1 and name in ("depth", "normal")
    licence = "CC0-1.0 (see the model's page)" if first_repository else NON_COMMERCIAL
    source = "guangkaixu/GenPercept" if first_repository else "guangkaixu/genpercept-models"
    note = _UNKNOWN_X if TASKS[task].frame else ""
    return Published(
        source, "GenPercept", "2403.06090", {task: settings}, licence, unet=unet, text=False, base="sd21",
        headless=dpt, head="dpt_head_identity" if dpt else "", note=note,
    )  # fmt: skip


# Class labels: the sine and cosine of the task (1, 0), which selects annotation instead of reconstruction.
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
    # Time steps 801, 601, ..., 1. The SD 1.4 base predicts epsilon; these weights predict v.
    protocol = MultiStep(
        steps=5, start="image", condition="replace", spacing="leading", final="prev", encode="sample",
        noise=Noise(prediction_type="v"),
    )  # fmt: skip
    clip = "channels" if TASKS[space].frame else "lower"
    tasks = {space: _task(protocol, space, pad=True, clip=clip, resize="bicubic")}
    hints = {"depth": "A depth of 1 is 8 metres", "normals": f"{_UNKNOWN_X[0].upper()}{_UNKNOWN_X[1:]}"}
    return Published(
        "https://github.com/shinying/dmp", "DMP", "2311.18832", tasks, "see the project's page", size=512,
        edge="shortest", base="sd14", lora="pytorch_lora_weights", text=False,
        note="its files are on a cloud drive: pass its folder. The settings are of its *-notext checkpoints; "
        f"the others need a caption by BLIP-2 and guidance 2. {hints[space]}",
    )  # fmt: skip


def _diff2in1(protocol: OneStep, size: int, edge: Edge) -> Published:
    # The released weights predict LUB; they are converted to RUB when they are read.
    settings = _task(protocol, "normals", head="bae", pad=True)
    return Published(
        "https://huggingface.co/ShuhongZheng/diff-2-in-1", "Diff-2-in-1", "2411.05005", {"normals": settings},
        "none stated", size=size, edge=edge, text=False, base="sd15",
        note="fetch its two files by hand (sn_ckpt and bae_ckpt) into one folder, and pass that folder with --method",
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
    # As the released code does: images resized to a square, a sampled latent, and the noise of the first time step.
    "diff2in1-normals-official": _diff2in1(OneStep(timestep=0, encode="sample", add_noise=True), 512, "both"),
}


def find_published(name: str) -> str | None:
    """The key of the model whose name or hub id is ``name``; None if there is none or the repository has several."""
    if name in PUBLISHED:
        return name
    found = [key for key, row in PUBLISHED.items() if row.source == name]
    if not found:  # GenPercept's authors also have a repository per task
        owner, _, last = name.partition("/")
        found = [k for k, row in PUBLISHED.items() if k == last and row.source.partition("/")[0] == owner]
    return found[0] if len(found) == 1 else None


def find_by_folder(name: str) -> str | None:
    """The key of the model whose name, or name of the repository, is that of a folder; None if not exactly one is."""
    if name in PUBLISHED:
        return name
    found = [key for key, row in PUBLISHED.items() if row.source.rsplit("/", 1)[-1] == name]
    return found[0] if len(found) == 1 else None
