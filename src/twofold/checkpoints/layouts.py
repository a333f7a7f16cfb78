"""Putting a published model together from the folders it is kept in."""

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
    """Folders of the parts of one published model.

    Attributes:
        folder: folder of the checkpoint.
        unet: folder of the U-Net; ``vae``, ``text`` (text encoder, tokenizer), ``scheduler``: theirs, None if missing.
        head: folder of the DPT head.
        decoder: run whose fine-tuned decoder replaces the autoencoder's.
        lora: file of LoRA weights.
    """

    folder: Path
    unet: Path
    vae: Path
    text: Path | None
    scheduler: Path | None
    head: Path | None = None
    decoder: Path | None = None
    lora: Path | None = None


def assemble(key: str, folder: Path, options: LoadOptions, base: str = "") -> Assembled:
    """The backbone, settings and heads of the published model ``key`` from ``folder``, and the files read.

    Raises:
        ModelError: a part is missing, does not fit, or belongs to another model. Missing parts are taken from the base
            model only if the published checkpoint does not include them.
    """
    row = PUBLISHED[key]
    if row.method == "Diff-2-in-1":
        net, found, files = diff2in1_folder.assemble(folder, options, base, tuple(row.tasks))
        for task in row.tasks.values():
            check_network(key, net, task.protocol, folder)
        return net, _settings(key, row), found, files
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
        lora = (
            folder
            if folder.is_file()
            else _first(folder, [f"{row.lora}{e}" for e in (".safetensors", ".bin")])
        )
        if lora is None:
            raise ModelError(f"{folder} has no {row.lora}.safetensors or .bin, which {key} consists of")
        home = fetch_base(
            row.base or "sd14",
            ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
            base,
            options.variant,
        )
        return CheckpointPaths(folder, home / "unet", home / "vae", home, home / "scheduler", lora=lora)
    unet = _unet_folder(key, row, folder)
    vae = _first(folder, [row.vae], [folder.parent] if unet == folder else [])
    decoder = unet.parent if (unet.parent / "vae_decoder").is_dir() else None
    head = None
    if row.head:
        head = _first(unet.parent, [row.head, "dpt_head"])
        if head is None:
            raise ModelError(f"{unet.parent} has no folder {row.head} with the head of {key}; fetch it again")
    text = folder if (folder / "text_encoder").is_dir() else None
    if text is None and not row.text:
        text = unet.parent if components.empty_text(unet.parent) is not None else None
    wanted = [p for p, there in (("vae", vae), ("text_encoder", text)) if there is None]
    if wanted and not row.base:
        raise ModelError(f"{folder} has no folder {wanted[0]}; the checkpoint is incomplete, fetch it again")
    if wanted:
        home = fetch_base(row.base, (*wanted, "tokenizer"), base, options.variant)
        vae, text = vae or home / "vae", text or home
    assert vae is not None
    scheduler = folder / "scheduler" if (folder / "scheduler").is_dir() else None
    if scheduler is None and any(_needs_schedule(task) for task in row.tasks.values()):
        raise ModelError(
            f"{folder} has no folder scheduler, with the noise schedule of {key}; fetch it again"
        )
    return CheckpointPaths(folder, unet, vae, text, scheduler, head, decoder)


def _needs_schedule(task: TaskSettings) -> bool:
    return isinstance(task.protocol, MultiStep) and task.protocol.noise is None


def _unet_folder(key: str, row: Published, folder: Path) -> Path:
    """Folder of the network: the repository's subfolder, a run's ``unet``, or the folder itself.

    The original code uses the untrained base if it finds nothing; here that is an error.
    """
    if folder.name == row.unet and _has_network(folder):
        return folder
    if _has_network(folder / row.unet):
        return folder / row.unet
    run = folder / "unet"
    if row.base and _has_network(run):
        # A run of GenPercept's trainer has only this folder; a complete pipeline is the untrained base.
        index = folder / "model_index.json"
        if index.exists() and str(read_json(index).get("_class_name", "")).startswith("StableDiffusion"):
            raise ModelError(
                f"{folder} is a {read_json(index)['_class_name']}, the base that {key} was trained from; pass the "
                "trained checkpoint"
            )
        return run
    raise ModelError(
        f"{folder} has neither {row.unet}/config.json nor unet/config.json, so it does not hold {key}; pass the folder "
        "of that checkpoint"
    )


def _has_network(folder: Path) -> bool:
    return (folder / "config.json").exists() or any(folder.glob("diffusion_pytorch_model*.safetensors"))


def _first(folder: Path, names: list[str], more: list[Path] | None = None) -> Path | None:
    for parent in [folder, *(more or [])]:
        for name in names:
            if name and (parent / name).exists():
                return parent / name
    return None


def _backbone(paths: CheckpointPaths, row: Published, options: LoadOptions) -> StableDiffusion:
    texts, encoder, tokens = {}, None, None
    assert paths.text is not None
    known = components.empty_text(paths.text)
    if known is not None:
        texts[""] = known
    if (paths.text / "text_encoder").is_dir():
        encoder = components.text_encoder(paths.text / "text_encoder", options)
        tokens = read_tokenizer(paths.text / "tokenizer", encoder)
    elif known is None:
        raise ModelError(f"{paths.text} has neither a text encoder nor {components.EMPTY_TEXT[0]}")
    scheduler: Mapping[str, Any] = SD21_SCHEDULER
    if paths.scheduler is not None:
        scheduler = components.scheduler(paths.scheduler)
    return StableDiffusion(
        components.unet(paths.unet, options, row.headless, paths.lora, bare=row.method == "GenPercept"),
        components.vae(paths.vae, options, paths.decoder),
        encoder,
        tokens,
        scheduler,
        texts,
    )


def dpt_head(folder: Path, activation: Activation, options: LoadOptions) -> DPTHead:
    """GenPercept's DPT head, whose tensors have the same names as in twofold."""
    tensors = options.tensors(folder)
    convs = [tensors[k] for k in sorted(tensors) if k.startswith("neck.convs.")]
    if "neck.convs.0.weight" not in tensors or any(conv.ndim != 4 for conv in convs):
        raise ModelError(
            f"{folder} lacks the tensor neck.convs.0.weight of a convolution; it holds no DPT head"
        )
    channels = tuple(int(conv.shape[1]) for conv in convs)
    old = any(".layers.0.residual_layer1." in k for k in tensors)
    with damaged(folder, "DPT head"), torch.device("meta"):
        width = int(tensors["neck.convs.0.weight"].shape[0])
        head = DPTHead(channels, width, activation="elu+1" if old else activation, unused_first_residual=old)
    load_strictly(head, tensors, folder, options.dtype)
    return head


def check_network(key: str, net: StableDiffusion, protocol: OneStep | MultiStep, unet: Path) -> None:
    """Check that a network fits a protocol: input and output channels, class labels, width of its text.

    Raises:
        ModelError: it does not; diffusers would run some of these, with a wrong result.
    """
    config, latent = net.unet.config, net.latent_channels
    wrong = "is it another model?"
    inputs, outputs = protocol.channels(latent), protocol.num_outputs * latent
    if inputs != net.input_channels:
        raise ModelError(f"{unet} takes {net.input_channels} channels, {key} needs {inputs}; {wrong}")
    if outputs != int(config["out_channels"]):
        raise ModelError(f"{unet} gives {config['out_channels']} channels, {key} needs {outputs}; {wrong}")
    expected = None if protocol.class_labels is None else len(protocol.class_labels)
    found = config.get("projection_class_embeddings_input_dim") if config.get("class_embed_type") else None
    if expected != found:
        raise ModelError(
            f"{unet} takes {found or 'no'} class labels, {key} gives {expected or 'none'}; {wrong}"
        )
    check_text(net, unet)


def _files(paths: CheckpointPaths, variant: str) -> list[Path]:
    parts = [paths.unet, paths.vae, *([paths.head] if paths.head else [])]
    if paths.decoder:
        parts += [paths.decoder / "vae_decoder", paths.decoder / "vae_post_quant_conv"]
    if paths.text and (paths.text / "text_encoder").is_dir():
        parts.append(paths.text / "text_encoder")
    files = [f for p in parts for f in weight_files(p, variant)]
    return files + ([paths.lora] if paths.lora else [])
