"""Resolves the name of a model: a folder or file in a known layout, a published model, a hub id, or code."""

from __future__ import annotations

from pathlib import Path

from ..backbones import make_backbone
from ..backbones.stable_diffusion import StableDiffusion
from ..named_code import names_code
from ..suggest import did_you_mean
from . import components
from .components import LoadOptions
from .diff2in1_folder import is_diff2in1_dir
from .layouts import assemble, check_network
from .ldm import read_ldm
from .locate import fetch, looks_like_hub_id
from .marigold import read_marigold_settings
from .model_folder import EMBEDDED, NETWORK, SETTINGS, Opened, open_model_folder
from .published import PUBLISHED, find_by_folder, find_published
from .settings import ModelSettings
from .strict import ModelError, read_json
from .tokenizer import base_tokenizer
from .weights import weight_files

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_SUBFOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "image_encoder")


def open_files(name: str, options: LoadOptions, method: str, base: str, revision: str | None) -> Opened:
    """Open the files of a model.

    Args:
        name: see `model.open_model`.
        options: options of reading weights.
        method: name of the published model, or "".
        base: folder or hub id of the model that completes the checkpoint, or "".
        revision: revision of a hub repository.

    Returns:
        Backbone, settings, heads by task, and the weight files.

    Raises:
        ModelError: no such model, or a damaged checkpoint.
    """
    path = EMBEDDED if name == "embedded" else Path(name)
    if names_code(name) and not path.exists():
        return _user_backbone(name)
    if path.is_file():
        return _file(path, options, method, base)
    if path.is_dir():
        return _folder(path, options, method or find_by_folder(path.resolve().name) or "", base)
    key = find_published(name)
    several = [k for k, row in PUBLISHED.items() if row.source == name]
    if method and (method in several or (looks_like_hub_id(name) and not key)):
        key = method
    if len(several) > 1 and key is None:
        raise ModelError(f"{name} has several models; choose one by its name: {', '.join(several)}")
    if key is not None and PUBLISHED[key].source.startswith("http"):
        raise ModelError(f"{key}: {PUBLISHED[key].note}")
    if key is None and not looks_like_hub_id(name):
        raise ModelError(
            f"no model {name!r}{did_you_mean(name, ('embedded', *PUBLISHED))}: it is neither 'embedded', a published "
            "name (twofold models lists them), a folder, a file, nor a hub id (owner/name)"
        )
    row = PUBLISHED[key] if key else None
    subfolders = (
        *_SUBFOLDERS,
        "heads/*",
        *(row.folders if row else ()),
        "vae_decoder",
        "vae_post_quant_conv",
    )
    repo = name if looks_like_hub_id(name) or row is None else row.source
    folder = fetch(repo, tuple(dict.fromkeys(subfolders)), revision, options.variant)
    return _folder(folder, options, key or "", base, repo)


def _user_backbone(name: str) -> Opened:
    try:
        backbone = make_backbone(name)
    except ValueError as error:
        raise ModelError(str(error)) from error
    if not isinstance(backbone, StableDiffusion):
        raise ModelError(
            f"{name} returns a {type(backbone).__name__}; training, saving and image generation need a "
            "twofold.backbones.stable_diffusion.StableDiffusion. Pass other backbones to DiffusionPredictor"
        )
    return backbone, ModelSettings(name=name, size=0), {}, []


def _folder(folder: Path, options: LoadOptions, key: str, base: str, name: str = "") -> Opened:
    """Open a folder.

    Args:
        folder: the folder.
        options: options of reading weights.
        key: name of the published model, or "". A folder with ``twofold.json`` ignores it.
        base: see `open_files`.
        name: name of the model, or "" for that of the folder.
    """
    if (folder / SETTINGS).exists() or folder == EMBEDDED:
        return open_model_folder(folder, options)
    if (folder / NETWORK).exists():
        raise ModelError(
            f"{folder} is a user-defined network; open it with open_network, or --network file.py:make"
        )
    if key:
        return assemble(key, folder, options, base)
    settings = read_marigold_settings(folder)
    if settings is None and is_diff2in1_dir(folder):
        return assemble("diff2in1-normals", folder, options, base)
    if settings is None:
        if not (folder / "model_index.json").exists():
            raise ModelError(
                f"{folder} has neither {SETTINGS} nor model_index.json, and its name is not a published model's; "
                "pass --method (twofold models lists the choices)"
            )
        settings = _base_settings(folder)
    settings = settings.model_copy(update={"name": name or folder.name})
    files = [f for subfolder in _SUBFOLDERS[:3] for f in weight_files(folder / subfolder, options.variant)]
    net = components.stable_diffusion(folder, options)
    for task in settings.tasks.values():
        check_network(settings.name, net, task.protocol, folder / "unet")
    _check_base(settings, net, folder)
    return net, settings, {}, files


def _check_base(settings: ModelSettings, net: StableDiffusion, where: Path) -> None:
    if not settings.tasks and net.input_channels != net.latent_channels:
        raise ModelError(
            f"{where}: its network takes {net.input_channels} channels, so it is not a Stable Diffusion base; pass "
            "its published name as --method (twofold models lists the choices)"
        )


def _base_settings(folder: Path) -> ModelSettings:
    kind = str(read_json(folder / "model_index.json").get("_class_name", ""))
    # Any other pipeline would run with wrong settings and predict plausible but wrong maps.
    if kind not in ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"):
        raise ModelError(
            f"{folder / 'model_index.json'} names the pipeline {kind!r}; pass the published model as --method (twofold "
            "models lists the choices)"
        )
    return ModelSettings(name=folder.name, size=0)


def _file(path: Path, options: LoadOptions, method: str, base: str) -> Opened:
    if path.suffix not in _SUFFIXES:
        raise ModelError(f"{path} is not a checkpoint; weights end in {', '.join(_SUFFIXES)}")
    if method and PUBLISHED[method].lora:
        return assemble(method, path, options, base)
    if method and (path.parent / "config.json").exists():
        return _folder(path.parent, options, method, base)
    if method:
        raise ModelError(
            f"{path} is one file without a config.json beside it, and {method} consists of folders; pass its folder"
        )
    networks = read_ldm(path, options)
    family = "sd21" if networks["text_encoder"].config.hidden_size == 1024 else "sd15"
    net = StableDiffusion(**{**networks, "tokenizer": base_tokenizer(family, base)})
    settings = ModelSettings(name=path.stem, size=0)
    _check_base(settings, net, path)
    return net, settings, {}, [path]
