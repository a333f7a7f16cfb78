"""Reads and writes twofold's checkpoints: diffusers' component folders and ``twofold.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..backbones.stable_diffusion import StableDiffusion, save_components
from ..heads import Head
from ..io import atomic_folder, first_line
from . import components
from .card import model_card
from .components import LoadOptions
from .fit import check_head, check_text
from .heads import open_heads, save_heads
from .image_encoder import FOLDER as IMAGE_ENCODER, open_image_adapter, save_image_adapter
from .settings import ModelSettings
from .strict import ModelError, Tensors, damaged, read_json, wrong_value
from .tokenizer import read_tokenizer
from .weights import read_file, weight_files

SETTINGS, PROMPT_EMBEDS = "twofold.json", "texts.safetensors"
# The settings of a user-defined network.
NETWORK = "network.json"
EMBEDDED = Path(__file__).parents[1] / "backbones" / "embedded"

Opened = tuple[StableDiffusion, ModelSettings, dict[str, Head], list[Path]]


def open_model_folder(folder: Path, options: LoadOptions) -> Opened:
    """Backbone, settings, heads and the weight files of a folder that `save_model` wrote.

    Raises:
        ModelError: a file is missing or damaged, or components are incompatible.
    """
    settings = _settings(folder)
    scheduler = components.scheduler(folder / "scheduler")
    prompt_embeds = _prompt_embeds(folder)
    text_encoder, tokenizer = None, None
    if not prompt_embeds or (folder / "text_encoder").is_dir():
        text_encoder = components.text_encoder(folder / "text_encoder", options)
        tokenizer = read_tokenizer(folder / "tokenizer", text_encoder)
    kinds = {t: task.head for t, task in settings.tasks.items() if task.head != "latent"}
    net = StableDiffusion(
        components.unet(folder / "unet", options, settings.headless),
        components.vae(folder / "vae", options),
        text_encoder,
        tokenizer,
        scheduler,
        prompt_embeds,
    )
    check_text(net, folder / "unet")
    if settings.image_encoder:
        net.image_adapter = open_image_adapter(folder / IMAGE_ENCODER, options)
    heads = open_heads(folder / "heads", kinds, options)
    for task, head in heads.items():
        check_head(head, net, folder / "heads" / task)
    return net, settings, heads, model_weight_files(folder)


def model_weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder that `save_model` wrote, in a fixed order."""
    heads = sorted(p for p in (folder / "heads").glob("*") if p.is_dir())
    networks = (folder / name for name in ("unet", "vae", "text_encoder", IMAGE_ENCODER))
    return [f for path in [*filter(Path.is_dir, networks), *heads] for f in weight_files(path)]


def save_model(
    backbone: StableDiffusion,
    settings: ModelSettings,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    heads: Mapping[str, Head] | None = None,
) -> None:
    """Write a checkpoint folder atomically.

    Args:
        backbone: the backbone.
        settings: the settings; entries that follow from the backbone are set here.
        folder: the folder, which must not exist.
        dtype: dtype of the stored weights.
        heads: heads by task.

    Raises:
        FileExistsError: the folder exists; a checkpoint is never overwritten.
        ModelError: the backbone has a text encoder and no tokenizer.
        DiskFullError: there is no space for it.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a checkpoint is not overwritten, choose another folder")
    if backbone.text_encoder is not None and backbone.tokenizer is None:
        raise ModelError(
            "this model has no tokenizer, because it was read from a single file, so its checkpoint could not be read; "
            "open it with --base, a Stable Diffusion folder that has one"
        )
    adapter = backbone.image_adapter
    headless = isinstance(backbone.unet.conv_out, nn.Identity)
    settings = settings.model_copy(
        update={
            "code_version": code_version(),
            "headless": headless,
            "image_encoder": "" if adapter is None else adapter.encoder.name,
        }
    )
    with atomic_folder(folder) as partial:
        save_components(backbone, partial, dtype)
        save_heads(heads or {}, partial / "heads", dtype)
        if adapter is not None:
            save_image_adapter(adapter, partial / IMAGE_ENCODER, dtype)
        if backbone.prompt_embeds:
            _save_prompt_embeds(backbone.prompt_embeds, partial / PROMPT_EMBEDS)
        (partial / SETTINGS).write_text(settings.model_dump_json(indent=2, by_alias=True) + "\n")
        (partial / "README.md").write_text(model_card(settings))


def push_model(folder: Path, repo: str) -> str:
    """Upload a checkpoint folder with its card to the hub repository ``repo``, and return the URL of the commit.

    Raises:
        ModelError: the folder is not in twofold's layout, or the upload fails.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    _settings(folder)
    try:
        api = HfApi()
        api.create_repo(repo, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message="twofold checkpoint"))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = first_line(error)
        raise ModelError(
            f"could not upload {folder} to {repo} ({reason}); log in with 'hf auth login'"
        ) from error


def code_version() -> str:
    """The installed version of twofold."""
    try:
        return version("twofold")
    except PackageNotFoundError:
        return "0+source"


def _settings(folder: Path) -> ModelSettings:
    raw = read_json(folder / SETTINGS)
    try:
        return ModelSettings.model_validate(raw)
    except ValidationError as error:
        raise ModelError(f"{folder / SETTINGS}: {wrong_value(error)}") from error


def _save_prompt_embeds(prompt_embeds: Mapping[str, Tensor], path: Path) -> None:
    tensors = {str(i): v.float().contiguous() for i, v in enumerate(prompt_embeds.values())}
    save_file(tensors, path, metadata={"prompts": json.dumps(list(prompt_embeds))})


def _prompt_embeds(folder: Path) -> dict[str, Tensor]:
    """The stored prompt embeddings by prompt; {} if the folder has none."""
    path = folder / PROMPT_EMBEDS
    if not path.exists():
        return {}
    tensors: Tensors = read_file(path)
    with damaged(path, "file of embedded prompts"), safe_open(path, framework="pt") as file:
        prompts = json.loads((file.metadata() or {})["prompts"])
    if not isinstance(prompts, list) or set(tensors) != {str(i) for i in range(len(prompts))}:
        raise ModelError(f"{path}: its list of prompts does not match its tensors; fetch it again")
    for prompt, tensor in zip(prompts, (tensors[str(i)] for i in range(len(prompts))), strict=True):
        if (
            not isinstance(prompt, str)
            or tensor.ndim != 2
            or not tensor.is_floating_point()
            or not tensor.numel()
        ):
            raise ModelError(
                f"{path}: the embedding of {prompt!r} is {tensor.dtype} {tuple(tensor.shape)}; expected floating-point "
                "numbers of a shape (tokens, width)"
            )
    return {prompt: tensors[str(i)] for i, prompt in enumerate(prompts)}
