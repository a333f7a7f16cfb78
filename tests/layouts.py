"""Checkpoints in the layouts of the field: every key and shape of the published size, and no numbers.

The files are sparse: their headers say gigabytes, the disk holds kilobytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

import ldm_names
import official
from twofold.backbones import new
from twofold.checkpoints.published import PUBLISHED
from twofold.heads.dpt import DPTHead

Shapes = dict[str, tuple[int, ...]]


def sparse(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A safetensors file of half-precision zeros that takes no room."""
    header, at = {}, 0
    for key, shape in shapes.items():
        size = 2 * int(torch.tensor(shape).prod()) if shape else 2
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def shapes(module: nn.Module) -> Shapes:
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}


def unet(channels: int = 4, second: bool = True, labels: bool = False, out: int = 4) -> UNet2DConditionModel:
    """A full-size U-Net on the meta device."""
    more = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4} if labels else {}
    with torch.device("meta"):
        return UNet2DConditionModel(**{**new.sd_unet_config(channels, second), **more, "out_channels": out})


def vae() -> AutoencoderKL:
    with torch.device("meta"):
        return new.sd21_networks()[1]


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def old_vae(names: Shapes) -> Shapes:
    """The attention of an autoencoder as files of 2022 call it, with 1x1 convolutions."""
    out: Shapes = {}
    for key, shape in names.items():
        for now, before in OLD_NAMES.items():
            if f"mid_block.attentions.0.{now}." in key:
                key = key.replace(f".{now}.", f".{before}.")
                shape = (*shape, 1, 1) if len(shape) == 2 else shape
        out[key] = shape
    return out


def text_encoder(second: bool = True) -> CLIPTextModel:
    config = CLIPTextConfig(
        hidden_size=1024 if second else 768, intermediate_size=4096 if second else 3072,
        num_hidden_layers=23 if second else 12, num_attention_heads=16 if second else 12,
    )  # fmt: skip
    with torch.device("meta"):
        return CLIPTextModel(config)


def write_config(folder: Path, module: nn.Module) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(module, CLIPTextModel):
        text = json.dumps({**module.config.to_dict(), "architectures": ["CLIPTextModel"]})
    else:
        text = json.dumps({**dict(module.config), "_class_name": type(module).__name__})
    (folder / "config.json").write_text(text)


def write_unet(folder: Path, module: nn.Module, headless: bool = False) -> None:
    write_config(folder, module)
    names = shapes(module)
    if headless:
        names = {k: v for k, v in names.items() if not k.startswith(("conv_norm_out.", "conv_out."))}
    sparse(folder / "diffusion_pytorch_model.safetensors", names)


def write_vae(folder: Path, old: bool = False) -> None:
    write_config(folder, vae())
    names = shapes(vae())
    sparse(folder / "diffusion_pytorch_model.safetensors", old_vae(names) if old else names)


def write_text(folder: Path, second: bool = True) -> None:
    """With the names that published files have: a prefix that transformers dropped, and stored positions."""
    module = text_encoder(second)
    write_config(folder / "text_encoder", module)
    names = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in shapes(module).items()}
    names["text_model.embeddings.position_ids"] = (1, 77)
    sparse(folder / "text_encoder" / "model.safetensors", names)
    new.tiny().tokenizer.save_pretrained(folder / "tokenizer")


SCHEDULER = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction", "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False,
}  # fmt: skip


def write_base(folder: Path, second: bool = True) -> Path:
    """A Stable Diffusion folder."""
    write_unet(folder / "unet", unet(second=second))
    write_vae(folder / "vae", old=not second)
    write_text(folder, second)
    write_scheduler(folder)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def write_scheduler(folder: Path, **more: object) -> None:
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, **more}))


def write_published(key: str, root: Path) -> tuple[Path, str]:
    """The folder of a published model, and the base it needs ('' if none)."""
    row = PUBLISHED[key]
    folder = root / key
    if row.method == "Diff-2-in-1":
        return write_diff2in1(folder), ""
    if row.lora:
        base = write_base(root / "base", second=False)
        sparse(folder / f"{row.lora}.safetensors", lora_shapes(unet(second=False)))
        return folder, str(base)
    protocol = next(iter(row.tasks.values())).protocol
    channels = protocol.channels(4)
    module = unet(channels, labels=protocol.class_labels is not None, out=4 * protocol.num_outputs)
    write_unet(folder / row.unet, module, row.headless)
    write_vae(folder / row.vae, old=row.method == "GenPercept")
    if row.head:
        with torch.device("meta"):
            head = DPTHead()
        sparse(folder / row.head / "model.safetensors", shapes(head))
    if row.text:
        write_text(folder)
        write_scheduler(folder, **_scheduler_of(key))
        return folder, ""
    base = root / "base"
    write_text(base)
    return folder, str(base)


def _scheduler_of(key: str) -> dict[str, object]:
    if "lcm" in key:
        return {"_class_name": "LCMScheduler"}
    if key.endswith("v1-1"):
        return {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    return {"timestep_spacing": "leading"}


def lora_shapes(module: nn.Module, rank: int = 4) -> Shapes:
    """Low-rank weights for every attention, by the names of diffusers' old processors."""
    out: Shapes = {}
    for key, shape in shapes(module).items():
        for part, name in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "out")):
            if key.endswith(f".{part}.weight") and ".attn" in key:
                stem = key.removesuffix(f".{part}.weight")
                out[f"{stem}.processor.to_{name}_lora.down.weight"] = (rank, shape[1])
                out[f"{stem}.processor.to_{name}_lora.up.weight"] = (shape[0], rank)
    return out


def write_diff2in1(folder: Path) -> Path:
    """Diff-2-in-1's two files, of tensors that take no room, and Stable Diffusion 1.5 as CompVis' code saves it."""
    folder.mkdir(parents=True)
    for name, table in (
        ("checkpoint_45", official.fusion(dead=True)),
        ("checkpoint_bae_45", official.decoder()),
    ):
        torch.save(
            {
                k: torch.zeros(1, dtype=torch.float16).expand(v) if v else torch.tensor(0)
                for k, v in table.items()
            },
            folder / f"{name}.pth",
        )
    names = {f"model.diffusion_model.{ldm_names.unet(k)}": v for k, v in shapes(unet(second=False)).items()}
    names |= {f"first_stage_model.{ldm_names.vae(k)}": v for k, v in old_vae(shapes(vae())).items()}
    sparse(folder / "model.safetensors", names | ldm_names.text(shapes(text_encoder(second=False)), False))
    return folder
