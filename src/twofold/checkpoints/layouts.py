"""Loads a published model from the folders of its components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..backbones.new import SD21_SCHEDULER
from ..backbones.stable_diffusion import StableDiffusion
from ..heads import Head
from ..heads.dpt import Activation, DPTHead
from ..protocols import MultiStep, OneStep
from . import components, diff2in1_folder
from .components import LoadOptions
from .fit import check_text
from .locate import fetch_base
from .published import PUBLISHED, Published
from .settings import ModelSettings, TaskSettings
from .strict import ModelError, damaged, load_strictly, read_json
from .tokenizer import read_tokenizer
from .weights import weight_files

Assembled = tuple[StableDiffusion, ModelSettings, dict[str, Head], list[Path]]


@dataclass(frozen=True)
class CheckpointPaths:
    """Folders of the components of one published model.

    Attributes:
        unet: folder of the U-Net.
        vae: folder of the autoencoder.
        text: folder that has the folders ``text_encoder`` and ``tokenizer``, or an embedding of the empty prompt.
        scheduler: folder of the scheduler, if any.
        head: folder of the DPT head, if any.
        decoder: folder with a fine-tuned decoder that replaces the autoencoder's, if any.
        lora: file of LoRA weights, if any.
    """

    unet: Path
    vae: Path
    text: Path | None
    scheduler: Path | None
    head: Path | None = None
    decoder: Path | None = None
    lora: Path | None = None


def assemble(key: str, folder: Path, options: LoadOptions, base: str = "") -> Assembled:
    """Load a published model.

    Args:
        key: name of the model in `PUBLISHED`.
        folder: folder of the checkpoint, or its file of LoRA weights.
        options: options of reading weights.
        base: folder or hub id of the base model. It completes the checkpoint only if the published one is incomplete.

    Returns:
        Backbone, settings, heads by task, and the weight files.

    Raises:
        ModelError: a component is missing, does not fit, or belongs to another model.
    """
    row = PUBLISHED[key]
    if row.method == "Diff-2-in-1":
        net, bae_heads, files = diff2in1_folder.assemble(folder, options, base, tuple(row.tasks))
        for task in row.tasks.values():
            check_network(key, net, task.protocol, folder)
        return net, _settings(key, row), bae_heads, files
    paths = _find_paths(key, row, folder, base, options)
    net = _backbone(paths, row, options)
    heads: dict[str, Head] = {}
    if row.head:
        assert paths.head is not None
        # Only the folder's name distinguishes the variant with a final ReLU from the released one.
        activation = "relu" if paths.head.name == "dpt_head" else row.head_activation
        heads = {t: dpt_head(paths.head, activation, options) for t in row.tasks}
    for task in row.tasks.values():
        check_network(key, net, task.protocol, paths.unet)
    return net, _settings(key, row), heads, _files(paths, options.variant)


def _settings(key: str, row: Published) -> ModelSettings:
    return ModelSettings(
        name=key,
        size=row.size,
        edge=row.edge,
        tasks=dict(row.tasks),
        licence=row.licence,
        generates=row.generates,
    )


def _find_paths(key: str, row: Published, folder: Path, base: str, options: LoadOptions) -> CheckpointPaths:
    if row.lora:
        names = [f"{row.lora}{suffix}" for suffix in (".safetensors", ".bin")]
        lora = folder if folder.is_file() else _first_existing([folder], names)
        if lora is None:
            raise ModelError(f"{folder} has no {row.lora}.safetensors or .bin, which {key} consists of")
        subfolders = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
        base_folder = fetch_base(row.base or "sd14", subfolders, base, options.variant)
        return CheckpointPaths(
            base_folder / "unet", base_folder / "vae", base_folder, base_folder / "scheduler", lora=lora
        )
    unet = _unet_folder(key, row, folder)
    vae = _first_existing([folder, folder.parent] if unet == folder else [folder], [row.vae])
    decoder = unet.parent if (unet.parent / "vae_decoder").is_dir() else None
    head = None
    if row.head:
        head = _first_existing([unet.parent], [row.head, "dpt_head"])
        if head is None:
            raise ModelError(f"{unet.parent} has no folder {row.head} with the head of {key}; fetch it again")
    text = folder if (folder / "text_encoder").is_dir() else None
    if text is None and not row.text:
        text = unet.parent if components.empty_text(unet.parent) is not None else None
    missing = [name for name, path in (("vae", vae), ("text_encoder", text)) if path is None]
    if missing and not row.base:
        raise ModelError(f"{folder} has no folder {missing[0]}; the checkpoint is incomplete, fetch it again")
    if missing:
        base_folder = fetch_base(row.base, (*missing, "tokenizer"), base, options.variant)
        vae, text = vae or base_folder / "vae", text or base_folder
    assert vae is not None
    scheduler = folder / "scheduler" if (folder / "scheduler").is_dir() else None
    if scheduler is None and any(_needs_schedule(task) for task in row.tasks.values()):
        raise ModelError(
            f"{folder} has no folder scheduler, with the noise schedule of {key}; fetch it again"
        )
    return CheckpointPaths(unet, vae, text, scheduler, head, decoder)


def _needs_schedule(task: TaskSettings) -> bool:
    """Whether the protocol of a task uses the noise schedule of the checkpoint."""
    return isinstance(task.protocol, MultiStep) and task.protocol.noise is None


def _unet_folder(key: str, row: Published, folder: Path) -> Path:
    """The folder of the U-Net: the repository's subfolder, a training run's ``unet``, or the folder itself.

    If there is none, the original code uses the untrained base model; here that is an error.
    """
    if folder.name == row.unet and _has_network(folder):
        return folder
    if _has_network(folder / row.unet):
        return folder / row.unet
    if row.base and _has_network(folder / "unet"):
        # GenPercept's trainer writes only this folder; a complete pipeline is the untrained base model.
        index = folder / "model_index.json"
        if index.exists() and str(read_json(index).get("_class_name", "")).startswith("StableDiffusion"):
            raise ModelError(
                f"{folder} is a {read_json(index)['_class_name']}, the base that {key} was trained from; pass the "
                "trained checkpoint"
            )
        return folder / "unet"
    raise ModelError(
        f"{folder} has neither {row.unet}/config.json nor unet/config.json, so it is not a checkpoint of {key}; pass "
        "the folder of that checkpoint"
    )


def _has_network(folder: Path) -> bool:
    return (folder / "config.json").exists() or any(folder.glob("diffusion_pytorch_model*.safetensors"))


def _first_existing(folders: list[Path], names: list[str]) -> Path | None:
    paths = (folder / name for folder in folders for name in names if name)
    return next((path for path in paths if path.exists()), None)


def _backbone(paths: CheckpointPaths, row: Published, options: LoadOptions) -> StableDiffusion:
    prompt_embeds, text_encoder, tokenizer = {}, None, None
    assert paths.text is not None
    empty_prompt = components.empty_text(paths.text)
    if empty_prompt is not None:
        prompt_embeds[""] = empty_prompt
    if (paths.text / "text_encoder").is_dir():
        text_encoder = components.text_encoder(paths.text / "text_encoder", options)
        tokenizer = read_tokenizer(paths.text / "tokenizer", text_encoder)
    elif empty_prompt is None:
        raise ModelError(f"{paths.text} has neither a text encoder nor {components.EMPTY_TEXT[0]}")
    scheduler: Mapping[str, Any] = SD21_SCHEDULER
    if paths.scheduler is not None:
        scheduler = components.scheduler(paths.scheduler)
    return StableDiffusion(
        components.unet(paths.unet, options, row.headless, paths.lora, row.method == "GenPercept"),
        components.vae(paths.vae, options, paths.decoder),
        text_encoder,
        tokenizer,
        scheduler,
        prompt_embeds,
    )


def dpt_head(folder: Path, activation: Activation, options: LoadOptions) -> DPTHead:
    """Read GenPercept's DPT head, whose tensors have the same names as in twofold."""
    tensors = options.tensors(folder)
    convs = [tensors[k] for k in sorted(tensors) if k.startswith("neck.convs.")]
    if "neck.convs.0.weight" not in tensors or any(conv.ndim != 4 for conv in convs):
        raise ModelError(
            f"{folder} lacks the tensor neck.convs.0.weight of a convolution; it is not a DPT head"
        )
    channels = tuple(int(conv.shape[1]) for conv in convs)
    unused = any(".layers.0.residual_layer1." in k for k in tensors)
    with damaged(folder, "DPT head"), torch.device("meta"):
        width = int(tensors["neck.convs.0.weight"].shape[0])
        activation = "elu+1" if unused else activation
        head = DPTHead(channels, width, activation=activation, unused_first_residual=unused)
    load_strictly(head, tensors, folder, options.dtype)
    return head


def check_network(key: str, net: StableDiffusion, protocol: OneStep | MultiStep, unet: Path) -> None:
    """Check that input and output channels, class labels and text width of a network fit a protocol.

    Args:
        key: name of the model, for messages.
        net: the backbone.
        protocol: protocol of a task of the model.
        unet: folder of the U-Net, for messages.

    Raises:
        ModelError: one of them does not fit. In some of these cases diffusers would compute a wrong result.
    """
    config, latent = net.unet.config, net.latent_channels
    hint = "is it another model?"
    inputs, outputs = protocol.channels(latent), protocol.num_outputs * latent
    if inputs != net.input_channels:
        raise ModelError(f"{unet} takes {net.input_channels} channels, {key} needs {inputs}; {hint}")
    if outputs != int(config["out_channels"]):
        raise ModelError(f"{unet} outputs {config['out_channels']} channels, {key} needs {outputs}; {hint}")
    expected = None if protocol.class_labels is None else len(protocol.class_labels)
    found = config.get("projection_class_embeddings_input_dim") if config.get("class_embed_type") else None
    if expected != found:
        raise ModelError(f"{unet} takes {found or 'no'} class labels, {key} has {expected or 'none'}; {hint}")
    check_text(net, unet)


def _files(paths: CheckpointPaths, variant: str) -> list[Path]:
    """The weight files of a model, in a fixed order."""
    folders = [paths.unet, paths.vae, *([paths.head] if paths.head else [])]
    if paths.decoder:
        folders += [paths.decoder / "vae_decoder", paths.decoder / "vae_post_quant_conv"]
    if paths.text and (paths.text / "text_encoder").is_dir():
        folders.append(paths.text / "text_encoder")
    files = [file for folder in folders for file in weight_files(folder, variant)]
    return files + ([paths.lora] if paths.lora else [])
