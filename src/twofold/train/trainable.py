"""Which parts of a model learn: said of every parameter before a run begins."""

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
    """The parts that may learn, as one module with their own names; which do, their parameters say."""

    def __init__(self, backbone: StableDiffusion, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.unet, self.vae = backbone.unet, backbone.vae
        self.text_encoder = backbone.text_encoder
        self.image_adapter = backbone.image_adapter
        self.heads = nn.ModuleDict({_key(t): h for t, h in heads.items()})


def _key(task: str) -> str:
    """A task of somebody's own is called ``package.module:object``; torch does not like dots."""
    return task.replace(".", "-")


def make_tasks(recipe: Recipe) -> dict[str, Task]:
    """The tasks of a recipe by the names it gives them.

    Raises:
        ValueError: a task that is no picture is to go through the autoencoder, or a loss that a task does not have.
    """
    tasks = {t: get_task(t) for t in recipe.tasks}
    for task in tasks.values():
        check_name(task.name, "the name of the task")  # heads and labels are kept in files of this name
    called = {task.name: name for name, task in tasks.items()}
    for name, task in tasks.items():
        if called[task.name] != name:
            raise ValueError(
                f"{name} and {called[task.name]} are both called {task.name}, by which heads and scores are kept; "
                "teach one of them, or give one another name (Task.name)"
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
                f"{name} is not an image that an autoencoder can decode: it needs a head that reads features, "
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
    """The heads a recipe trains: those of the model it starts from where they are of its kind, or fresh ones.

    ``found`` are by the names that a recipe has for tasks, or by those that a checkpoint has.

    Raises:
        ValueError: heads of which several share a part were learned with one each.
    """
    head = recipe.denoiser.head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.loop.seed)
        fresh = {
            t: make_head(head.name, backbone, task.out_channels, **head.options) for t, task in tasks.items()
        }
    called = {t: t if t in found else task.name for t, task in tasks.items()}
    learned = {t: found[called[t]] for t, h in fresh.items() if _alike(found.get(called[t]), h)}
    for t, head in learned.items():
        head.set_training_options(fresh[t].config)
    heads = {**fresh, **learned}
    taken = {id(h) for h in learned.values()}
    share_modules(heads, learned, [h for h in found.values() if id(h) not in taken])
    return heads


def check_heads(recipe: Recipe, backbone: StableDiffusion, found: Mapping[str, Head]) -> None:
    """That a start has the heads that a recipe trains, where these may not begin from random weights.

    Raises:
        ValueError: a task's head is missing, or of another kind or shape than the recipe's.
    """
    head = recipe.denoiser.head
    if head.name == "latent":
        return
    tasks = make_tasks(recipe)
    with torch.random.fork_rng(devices=[]):
        for name, task in tasks.items():
            wanted = make_head(head.name, backbone, task.out_channels, **head.options)
            there = found.get(name, found.get(task.name))
            if not _alike(there, wanted):
                has = "none" if there is None else f"a {type(there).__name__} of {there.config}"
                raise ValueError(
                    f"the recipe trains a {head.name} head of {name} ({wanted.config}), and "
                    f"{recipe.model.init_from} has {has}: training would begin with a random one. Use "
                    "the head that was warmed up (model.head), or warm this one up first"
                )


def _alike(found: Head | None, wanted: Head) -> bool:
    """Whether ``found`` has the class and the config of ``wanted``, except for `Head.training_options`."""
    if found is None or type(found) is not type(wanted):
        return False
    first, second = (
        {k: v for k, v in head.config.items() if k not in wanted.training_options} for head in (found, wanted)
    )
    return first == second


def set_trainable(backbone: StableDiffusion, heads: Mapping[str, Head], recipe: Recipe) -> None:
    """Say of every parameter whether it learns; low-rank additions are made here."""
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
    (torch 2.13 with oneDNN 3.12 on CPUs with AVX-512 or AMX; fp32, fp16 and wider maps are right). Call it after
    `set_trainable`: frozen convolutions have no such gradient.

    Raises:
        ValueError: an example is too narrow; the message names the smallest edge that is wide enough.
    """
    if recipe.loop.precision != "bf16" or device.type != "cpu":
        return
    learned = [
        any(p.requires_grad for p in downsampler.parameters())
        for block in backbone.unet.down_blocks
        for downsampler in (block.downsamplers or ())
    ]
    # The i-th downsampling (from 0) reads a map of ceil(cells / 2^i) columns, so that 2^i cells are one column.
    deepest = max((i for i, learns in enumerate(learned) if learns), default=-1)
    least = (2**deepest + 1) * backbone.stride if deepest >= 0 else 0
    # An unlabelled image is scaled to the shorter edge, whichever it is.
    found = min(min(s.size or recipe.data.size) for s in recipe.data.sources if s.share)
    if found < least:
        raise ValueError(
            f"precision='bf16' on a CPU with examples of {found} pixels: the U-Net downsamples maps of width 1, whose "
            f"gradient is wrong there (a fault of oneDNN); use a size of at least {least} pixels, or precision='fp32'"
        )


def uses_image_features(backbone: StableDiffusion, recipe: Recipe) -> bool:
    """Whether tasks get the image encoder's features."""
    mode = recipe.denoiser.image_encoder.mode
    return backbone.image_adapter is not None and mode != "off" and bool(recipe.tasks)


def add_lora(backbone: StableDiffusion, recipe: Recipe) -> None:
    """Low-rank additions to layers of the U-Net (Hu et al. 2022); by default those of every attention.

    Raises:
        ValueError: there are no such layers.
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
                f"low-rank additions to {', '.join(lora.target_modules)}: a target is the end of a layer's name in the "
                f"U-Net, such as to_q ({error})"
            ) from error


def merge_lora(backbone: StableDiffusion, recipe: Recipe) -> None:
    """After a run: merge what was added beside the weights into them."""
    if recipe.denoiser.unet == "lora":
        backbone.unet.fuse_lora()
        backbone.unet.unload_lora()
    if recipe.denoiser.gradient_checkpointing:
        backbone.unet.disable_gradient_checkpointing()
