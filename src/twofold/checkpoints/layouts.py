"""Putting a published model together from the folders it is kept in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..backbones.new import SD21_SCHEDULER
from ..backbones.stable_diffusion import StableDiffusion
from ..heads.dpt import DPTHead, Ending
from ..protocol import MultiStep
from . import components
from .components import How
from .locate import fetch_base
from .published import PUBLISHED, Published
from .settings import ModelSettings, TaskSettings
from .strict import ModelError, load_strictly, read_json, weight_files

Assembled = tuple[StableDiffusion, ModelSettings, dict[str, nn.Module], list[Path]]

# GenPercept's fusion layers deepest first, each a quarter of the neck.
_TAPS = (320, 640, 1280, 1280)


@dataclass(frozen=True)
class Place:
    """Where the parts of one published model lie.

    Attributes:
        folder: of the checkpoint.
        unet: its folder; ``vae``, ``text`` (text encoder and tokenizer), ``scheduler``: theirs, None where missing.
        head: folder of the DPT head.
        decoder: run whose fine-tuned decoder replaces the autoencoder's.
        lora: file of low-rank weights.
    """

    folder: Path
    unet: Path
    vae: Path
    text: Path | None
    scheduler: Path | None
    head: Path | None = None
    decoder: Path | None = None
    lora: Path | None = None


def assemble(key: str, folder: Path, how: How, base: str = "") -> Assembled:
    """The backbone, settings and heads of the published model ``key`` out of ``folder``, and the files read.

    Raises:
        ModelError: a part is missing, does not fit, or belongs to another model. Nothing is taken from the base that
            the checkpoint should have had itself.
    """
    row = PUBLISHED[key]
    place = _place(key, row, folder, base, how)
    net = _backbone(place, row, how)
    heads: dict[str, nn.Module] = {}
    tasks = dict(row.tasks)
    if row.head:
        assert place.head is not None
        heads = {t: dpt_head(place.head, row.head_ending, how) for t in tasks}
    for how_asked in tasks.values():
        _check_channels(key, net, how_asked, place.unet)
    settings = ModelSettings(name=key, size=row.size, tasks=tasks, licence=row.licence, trained_on=())
    return net, settings, heads, _files(place, how.variant)


def _place(key: str, row: Published, folder: Path, base: str, how: How) -> Place:
    if row.lora:
        lora = _first(folder, [f"{row.lora}{end}" for end in (".safetensors", ".bin")])
        if lora is None:
            raise ModelError(f"{folder} has no {row.lora}.safetensors or .bin, which {key} consists of")
        home = fetch_base(
            row.base or "sd14", ("unet", "vae", "text_encoder", "tokenizer", "scheduler"), base, how.variant
        )
        return Place(folder, home / "unet", home / "vae", home, home / "scheduler", lora=lora)
    unet = _unet_folder(key, row, folder)
    vae = _first(folder, [row.vae], [folder.parent] if unet == folder else [])
    decoder = unet.parent if (unet.parent / "vae_decoder").is_dir() else None
    head = None
    if row.head:
        head = _first(unet.parent, [row.head, "dpt_head"])
        if head is None:
            raise ModelError(f"{unet.parent} has no folder {row.head}, which {key} is read out with")
    text = folder if (folder / "text_encoder").is_dir() else None
    if text is None and not row.text:
        text = unet.parent if components.empty_text(unet.parent) is not None else None
    wanted = [p for p, there in (("vae", vae), ("text_encoder", text)) if there is None]
    if wanted and not row.base:
        raise ModelError(f"{folder} has no folder {wanted[0]}; the checkpoint is incomplete, fetch it again")
    if wanted:
        home = fetch_base(row.base, (*wanted, "tokenizer"), base, how.variant)
        vae, text = vae or home / "vae", text or home
    assert vae is not None
    scheduler = folder / "scheduler"
    return Place(folder, unet, vae, text, scheduler if scheduler.is_dir() else None, head, decoder)


def _unet_folder(key: str, row: Published, folder: Path) -> Path:
    """Where the network is: the repository's folder, a run's ``unet``, or the folder itself.

    The original code takes the untrained base where it finds nothing; here that is an error.
    """
    if folder.name == row.unet and (folder / "config.json").exists():
        return folder
    for name in dict.fromkeys((row.unet, "unet")):
        if (folder / name / "config.json").exists():
            return folder / name
    raise ModelError(
        f"{folder} has neither {row.unet}/config.json nor unet/config.json, so it does not hold {key}; nothing else "
        "is used in its place"
    )


def _first(folder: Path, names: list[str], more: list[Path] | None = None) -> Path | None:
    for place in [folder, *(more or [])]:
        for name in names:
            if name and (place / name).exists():
                return place / name
    return None


def _backbone(place: Place, row: Published, how: How) -> StableDiffusion:
    texts, encoder, tokens = {}, None, None
    assert place.text is not None
    known = components.empty_text(place.text)
    if known is not None:
        texts[""] = known
    if (place.text / "text_encoder").is_dir():
        encoder = components.text_encoder(place.text / "text_encoder", how)
        tokens = components.tokenizer(place.text / "tokenizer")
    elif known is None:
        raise ModelError(f"{place.text} has neither a text encoder nor {components.EMPTY_TEXT[0]}")
    scheduler: Mapping[str, Any] = SD21_SCHEDULER
    if place.scheduler is not None:
        scheduler = read_json(place.scheduler / "scheduler_config.json")
    return StableDiffusion(
        components.unet(place.unet, how, row.headless, place.lora),
        components.vae(place.vae, how, place.decoder),
        encoder,
        tokens,
        scheduler,
        texts,
    )


def dpt_head(folder: Path, ending: Ending, how: How) -> DPTHead:
    """GenPercept's DPT head, whose file names what ours names."""
    tensors = how.tensors(folder)
    first = tensors.get("neck.convs.0.weight")
    if first is None:
        raise ModelError(f"{folder} lacks the tensor neck.convs.0.weight; it holds no DPT head")
    taps = [tensors[k].shape[1] for k in sorted(tensors) if k.startswith("neck.convs.")]
    old = any(".layers.0.residual_layer1." in k for k in tensors)
    head = DPTHead(
        tuple(taps), int(first.shape[0]), ending="elu+1" if old else ending, unused_first_residual=old
    )
    load_strictly(head, tensors, folder, how.dtype)
    return head


def _check_channels(key: str, net: StableDiffusion, task: TaskSettings, unet: Path) -> None:
    shown = task.protocol.channels(net.latent_channels)
    if shown != net.input_channels:
        raise ModelError(
            f"{unet} takes {net.input_channels} channels, {key} shows its network {shown}; is it another model?"
        )


def _files(place: Place, variant: str) -> list[Path]:
    parts = [place.unet, place.vae, *([place.head] if place.head else [])]
    files = [f for p in parts for f in weight_files(p, variant)]
    return files + ([place.lora] if place.lora else [])


def marigold_like(folder: Path) -> ModelSettings | None:
    """Settings of a folder that diffusers' Marigold pipelines wrote, as somebody's own fine-tuning does; or None.

    Raises:
        ModelError: it is one, in a way that is not read.
    """
    index = folder / "model_index.json"
    if not index.exists():
        return None
    said = read_json(index)
    kind = str(said.get("_class_name", ""))
    if not (kind.startswith("Marigold") and kind.endswith("Pipeline")):
        return None
    if said.get("use_full_z_range") is False:
        raise ModelError(f"{index}: use_full_z_range=false is a scale of normals that twofold does not read")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    names = _targets(said, kind)
    protocol = _walk(said, scheduler, len(names))
    tasks = {
        name: TaskSettings(protocol=protocol, space=name, part=i, frame="RUB" if name == "normals" else None)
        for i, name in enumerate(names)
    }
    size = int(said.get("default_processing_resolution") or 0)
    return ModelSettings(name=folder.name, size=size, tasks=tasks)


def _targets(said: Mapping[str, Any], kind: str) -> list[str]:
    if kind == "MarigoldNormalsPipeline":
        return ["normals"]
    if kind == "MarigoldIntrinsicsPipeline":
        return list((said.get("target_properties") or {}).get("target_names") or ["albedo", "material"])
    return ["disparity" if said.get("prediction_type") == "disparity" else "depth"]


def _walk(said: Mapping[str, Any], scheduler: Mapping[str, Any], parts: int) -> MultiStep:
    lcm = scheduler.get("_class_name") == "LCMScheduler"
    spacing = "trailing" if lcm else scheduler.get("timestep_spacing", "leading")
    steps = int(said.get("default_denoising_steps") or (1 if lcm else 10))
    return MultiStep(
        steps=steps,
        spacing=spacing,
        offset=int(scheduler.get("steps_offset", 0)),
        sampler="lcm" if lcm else "ddim",
        final="prev",
        parts=parts,
    )
