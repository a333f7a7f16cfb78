"""Tasks, heads and trainable parameters of a run, set up before its first step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL
from torch import nn

from ..backbones.stable_diffusion import StableDiffusion
from ..compat.genpercept import genpercept_task
from ..heads import Head, make_head, share_modules
from ..io import check_name
from ..suggest import did_you_mean
from ..tasks import Task, get_task
from .model_config import DenoiserConfig
from .recipe import Recipe


class Denoiser(nn.Module):
    """U-Net, autoencoder, text encoder, image adapter and heads; ``requires_grad`` marks the trained parameters."""

    def __init__(self, backbone: StableDiffusion, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.unet, self.vae = backbone.unet, backbone.vae
        self.text_encoder = backbone.text_encoder
        self.image_adapter = backbone.image_adapter
        self.heads = nn.ModuleDict({_key(t): h for t, h in heads.items()})


def _key(task: str) -> str:
    """The key of a task in a `ModuleDict`, which allows no dots: user-defined tasks are ``package.module:object``."""
    return task.replace(".", "-")


def make_tasks(recipe: Recipe) -> dict[str, Task]:
    """The tasks of a recipe, by their names in the recipe.

    Raises:
        ValueError: two tasks have the same ``Task.name``, a task whose encoded target is not an image would be decoded
            by the autoencoder, or ``loss`` names a loss that a task does not have.
    """
    tasks = {t: get_task(t) for t in recipe.tasks}
    for task in tasks.values():
        check_name(task.name, "the name of the task")  # heads and labels are kept in files of this name
    by_task_name = {task.name: name for name, task in tasks.items()}
    for name, task in tasks.items():
        if by_task_name[task.name] != name:
            raise ValueError(
                f"{name} and {by_task_name[task.name]} are both called {task.name}, the key of heads and scores; "
                "train one of them, or rename one (Task.name)"
            )
    if recipe.data.compat == "genpercept":
        tasks = {t: genpercept_task(task) for t, task in tasks.items()}
    for name, task in tasks.items():
        if (
            isinstance(recipe.model, DenoiserConfig)
            and not task.is_image
            and (recipe.model.head.name == "latent" or recipe.model.latent_loss_weight > 0)
        ):
            raise ValueError(
                f"{name} is not an image that the autoencoder can decode: it needs a head that reads features, "
                f"latent_loss_weight=0 and pixel_loss_weight=1 (the recipe has head.name={recipe.model.head.name!r}, "
                f"latent_loss_weight={recipe.model.latent_loss_weight:g})"
            )
        for loss in set(recipe.loss.get(name, ())) - set(task.loss_names):
            hint = did_you_mean(loss, task.loss_names)
            raise ValueError(f"{name} has no loss {loss!r}{hint}; it has {', '.join(task.loss_names)}")
    return tasks


def make_heads(
    backbone: StableDiffusion, recipe: Recipe, found: Mapping[str, Head], tasks: Mapping[str, Task]
) -> dict[str, Head]:
    """The heads to train, by task: those of the initial model where class and config match, otherwise new ones.

    Args:
        backbone: of the model.
        recipe: of the run.
        found: heads of the initial model, by the recipe's names of tasks or by ``Task.name``.
        tasks: of the recipe, by their names in it.

    Raises:
        ValueError: heads that share modules were trained with separate ones.
    """
    head = recipe.denoiser.head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.loop.seed)
        new = {
            t: make_head(head.name, backbone, task.out_channels, **head.options) for t, task in tasks.items()
        }
    names = {t: t if t in found else task.name for t, task in tasks.items()}
    trained = {t: found[names[t]] for t, h in new.items() if _same_config(found.get(names[t]), h)}
    for t, head in trained.items():
        head.set_training_options(new[t].config)
    heads = {**new, **trained}
    reused = {id(h) for h in trained.values()}
    share_modules(heads, trained, [h for h in found.values() if id(h) not in reused])
    return heads


def check_heads(recipe: Recipe, backbone: StableDiffusion, found: Mapping[str, Head]) -> None:
    """Check that the initial model has a trained head for every task of the recipe; latent heads need none.

    Raises:
        ValueError: a task's head is missing, or its class or config differs from the recipe's.
    """
    head = recipe.denoiser.head
    if head.name == "latent":
        return
    tasks = make_tasks(recipe)
    with torch.random.fork_rng(devices=[]):
        for name, task in tasks.items():
            expected = make_head(head.name, backbone, task.out_channels, **head.options)
            existing = found.get(name, found.get(task.name))
            if not _same_config(existing, expected):
                has = "none" if existing is None else f"a {type(existing).__name__} with {existing.config}"
                raise ValueError(
                    f"the recipe trains a {head.name} head of {name} ({expected.config}), and "
                    f"{recipe.model.init_from} has {has}: training would start from a random head. Set model.head to "
                    "the head of the warm-up, or train this head in a warm-up first"
                )


def _same_config(found: Head | None, expected: Head) -> bool:
    """Whether ``found`` has the class and the config of ``expected``, except for `Head.training_options`."""
    if found is None or type(found) is not type(expected):
        return False
    first, second = (
        {k: v for k, v in head.config.items() if k not in expected.training_options}
        for head in (found, expected)
    )
    return first == second


def set_trainable(backbone: StableDiffusion, heads: Mapping[str, Head], recipe: Recipe) -> None:
    """Set ``requires_grad`` of every parameter of ``backbone`` and ``heads`` as the recipe says; adds LoRA adapters."""
    model = recipe.denoiser
    backbone.requires_grad_(False)
    if model.unet == "full":
        backbone.unet.requires_grad_(True)
    elif model.unet == "lora":
        add_lora(backbone, recipe)
    if backbone.text_encoder is not None:
        backbone.text_encoder.requires_grad_(model.text_encoder == "full")
    if model.decoder == "full":
        backbone.vae.decoder.requires_grad_(True)
        if isinstance(backbone.vae, AutoencoderKL) and backbone.vae.post_quant_conv is not None:
            backbone.vae.post_quant_conv.requires_grad_(True)
    if backbone.image_adapter is not None and uses_image_features(backbone, recipe):
        backbone.image_adapter.adapters.requires_grad_(model.unet != "frozen")
        backbone.image_adapter.encoder.requires_grad_(model.image_encoder.mode == "full")
    for head in heads.values():
        head.requires_grad_(True)
    if model.gradient_checkpointing:
        backbone.unet.enable_gradient_checkpointing()


def check_map_width(backbone: StableDiffusion, recipe: Recipe, device: torch.device) -> None:
    """Refuse bf16 training on a CPU whose U-Net downsamples maps of width 1.

    There the weight gradient of a 3x3 convolution with stride 2 over a map of width 1 reads uninitialised memory
    (torch 2.13 with oneDNN 3.12 on CPUs with AVX-512 or AMX; fp32, fp16 and wider maps are correct). Call it after
    `set_trainable`: frozen convolutions have no such gradient.

    Raises:
        ValueError: an example is too narrow; the message names the smallest edge that is wide enough.
    """
    if recipe.loop.precision != "bf16" or device.type != "cpu":
        return
    trainable = [
        any(p.requires_grad for p in downsampler.parameters())
        for block in backbone.unet.down_blocks
        for downsampler in (block.downsamplers or ())
    ]
    # The i-th downsampling (from 0) reads a map of ceil(cells / 2^i) columns, so that 2^i cells are one column.
    deepest = max((i for i, trained in enumerate(trainable) if trained), default=-1)
    least = (2**deepest + 1) * backbone.stride if deepest >= 0 else 0
    # Unlabelled images are scaled so that their shorter edge has the size, so either edge may be the width.
    found = min(min(s.size or recipe.data.size) for s in recipe.data.sources if s.share)
    if found < least:
        raise ValueError(
            f"precision='bf16' on a CPU with examples of {found} pixels: the U-Net downsamples maps of width 1, whose "
            f"gradient is wrong there (a bug of oneDNN); use a size of at least {least} pixels, or precision='fp32'"
        )


def uses_image_features(backbone: StableDiffusion, recipe: Recipe) -> bool:
    """Whether tasks get the image encoder's features."""
    mode = recipe.denoiser.image_encoder.mode
    return backbone.image_adapter is not None and mode != "off" and bool(recipe.tasks)


def add_lora(backbone: StableDiffusion, recipe: Recipe) -> None:
    """Add LoRA adapters (Hu et al. 2022) to layers of the U-Net, by default to those of every attention.

    Raises:
        ValueError: no layer has a name that ends in one of ``lora.target_modules``.
    """
    from peft import LoraConfig

    lora = recipe.denoiser.lora
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.loop.seed)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha or lora.rank,
            init_lora_weights="gaussian",
            target_modules=list(lora.target_modules),
        )
        try:
            backbone.unet.add_adapter(config)
        except ValueError as error:
            raise ValueError(
                f"lora.target_modules={list(lora.target_modules)}: a target module is the end of a layer's name in the "
                f"U-Net, such as to_q ({error})"
            ) from error


def merge_lora(backbone: StableDiffusion, recipe: Recipe) -> None:
    """Merge the LoRA adapters into the U-Net's weights and disable gradient checkpointing, after the last step."""
    if recipe.denoiser.unet == "lora":
        backbone.unet.fuse_lora()
        backbone.unet.unload_lora()
    if recipe.denoiser.gradient_checkpointing:
        backbone.unet.disable_gradient_checkpointing()
