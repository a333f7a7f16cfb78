"""Opening a model by whatever name it goes: the embedded one, a folder, a file, a published name, a hub id."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..backbones import make_backbone
from ..backbones.stable_diffusion import StableDiffusion
from ..environment import resolve_device, resolve_dtype
from ..heads import Head, LatentHead
from ..named_code import names_code
from ..predict.base import describe_network
from ..predict.diffusion import DiffusionPredictor
from ..protocols import reason
from ..suggest import did_you_mean
from ..tasks import get_task
from . import components, diff2in1
from .components import LoadOptions
from .layouts import assemble, check_network, marigold_like
from .ldm import read_ldm
from .locate import fetch, fetch_base, looks_like_hub_id
from .own import EMBEDDED, NETWORK, SETTINGS, Opened, open_own
from .published import PUBLISHED, find_by_folder, find_published
from .settings import ModelSettings
from .strict import ModelError, read_json, weight_files
from .tokenizer import read_tokenizer

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_WHOLE = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "image_encoder")


@dataclass(frozen=True)
class Model:
    """An opened checkpoint: one backbone, and the tasks it was trained for.

    Attributes:
        name: as passed to `open_model`.
        backbone: shared by all its predictors.
        settings: the contents of ``twofold.json``, or those of the table of published models.
        heads: by task, those that have weights of their own.
        files: that its weights were read from.
    """

    name: str
    backbone: StableDiffusion
    settings: ModelSettings
    heads: Mapping[str, Head] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        tasks = ", ".join(self.tasks) or "none"
        return f"Model({self.name!r}, tasks: {tasks}, {describe_network(self.backbone)})"

    @cached_property
    def digest(self) -> str:
        """sha256 over all weight files, which is recorded with every result."""
        return digest(self.files)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of its tasks."""
        return tuple(self.settings.tasks)

    def predictor(self, task: str | None = None) -> DiffusionPredictor:
        """A predictor for ``task``, or for the model's first.

        Raises:
            ModelError: the model was not trained for the task, or its settings do not fit together.
        """
        if not self.tasks:
            raise ModelError(
                f"model {self.name} predicts nothing yet: it is a generator, or a base to be trained; 'twofold models' "
                "lists what predicts"
            )
        # A user's task has a short name, the key, and a full name, which names code. Keys, as `tasks` lists them, never
        # name code, so passing one on runs none.
        full = {settings.task: name for name, settings in self.settings.tasks.items() if settings.task}
        full = {code: name for code, name in full.items() if code not in self.settings.tasks}
        name = full.get(task or "", task or self.tasks[0])
        if name not in self.settings.tasks:
            raise ModelError(
                f"model {self.name} has no task {name!r}{did_you_mean(name, self.tasks)}; "
                f"it has {', '.join(self.tasks)}"
            )
        settings = self.settings.tasks[name]
        about = {"model": self.name, "digest": self.digest, **settings.model_dump(mode="json")}
        head = self.heads.get(name, LatentHead())
        try:
            opened = get_task(settings.task or name, trusted=task in full)
            return DiffusionPredictor(
                self.backbone,
                opened,
                settings.protocol,
                head,
                settings,
                self.settings.size,
                about,
                1,
                self.settings.edge,
            )
        except ValueError as error:
            raise ModelError(f"model {self.name}, task {name}: {reason(error)}") from error


def load(
    name: str | os.PathLike[str] = "embedded",
    task: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    method: str = "",
    base: str | os.PathLike[str] = "",
    revision: str | None = None,
    variant: str = "",
    lora_alpha: float | None = None,
) -> DiffusionPredictor:
    """A ready predictor: ``twofold.load("embedded")("photo.jpg").show()``.

    Args:
        name: ``embedded``, a published name, a hub id, a folder or a file; see `open_model`.
        task: one of the model's tasks; its first when not given.
        device: where to put the weights: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a `torch.device`.
        dtype: floating-point type of the weights: a `torch.dtype`, or ``float32``, ``bfloat16`` or ``float16``
            (``fp32``, ``bf16``, ``fp16``).
        method: which published model it is, if its name is another.
        base: model that completes the checkpoint.
        revision: of a hub repository.
        variant: of the weight files, such as ``fp16``.
        lora_alpha: of low-rank weights whose files do not contain it: they are multiplied by alpha / rank.

    Raises:
        ModelError: no such model, a damaged checkpoint, or a task it does not have.
        ValueError: no such device or dtype.
    """
    return open_model(name, device, dtype, method, base, revision, variant, lora_alpha).predictor(task)


def open_model(
    name: str | os.PathLike[str] = "embedded",
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    method: str = "",
    base: str | os.PathLike[str] = "",
    revision: str | None = None,
    variant: str = "",
    lora_alpha: float | None = None,
) -> Model:
    """Open a model strictly: every tensor accounted for, nothing taken in another's place.

    Args:
        name: ``embedded``; a name of the table of published models (``twofold models``); a hub id; a folder in
            twofold's layout, in a published one, or in diffusers'; one file of Stable Diffusion 1.x or 2.x; or
            ``package.module:make`` for a backbone of the user's own, see `backbones.make_backbone`. Names read
            from a file may not be passed on: the last form runs code.
        device: where to put the weights, as for `load`; ``meta`` checks every key and shape and reads no weight.
        dtype: floating-point type of the weights, as for `load`.
        method: which published model a folder or repository holds, if its name is another.
        base: folder or hub id of the model whose autoencoder and text encoder complete the checkpoint.
        revision: branch, tag or commit of a hub repository.
        variant: of the weight files, such as ``fp16``.
        lora_alpha: of low-rank weights whose files do not contain it: they are multiplied by alpha / rank.

    Raises:
        ModelError: no such model, or a damaged checkpoint.
        ValueError: no such device or dtype.
    """
    if method and method not in PUBLISHED:
        raise ModelError(
            f"no published model {method!r}{did_you_mean(method, PUBLISHED)}; 'twofold models' lists them"
        )
    device = resolve_device(device)
    if lora_alpha is not None and not 0 < lora_alpha <= 1e6:
        raise ModelError(f"lora_alpha is {lora_alpha!r}; expected a number above 0")
    options = LoadOptions(resolve_dtype(dtype), variant, device == "meta", lora_alpha)
    name = _path_or_name(name)
    net, settings, heads, files = _open(name, options, method, os.fspath(base), revision)
    _move(net, heads, device)
    return Model(name, net, settings, heads, tuple(files))


def _path_or_name(name: str | os.PathLike[str]) -> str:
    """What a model is called, with ``~`` for the home folder."""
    try:
        text = os.fspath(name)
    except TypeError:
        text = b""
    if not isinstance(text, str):
        raise ModelError(f"a model is named by a string or a path, not by {name!r}")
    return os.path.expanduser(text)


def _move(net: StableDiffusion, heads: Mapping[str, Head], device: str) -> None:
    for module in (net, *heads.values()):
        module.eval().requires_grad_(False)
        if device == "meta":
            continue
        try:
            module.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"device {device!r} cannot be used ({reason}); try --device cpu") from error


def _open(name: str, options: LoadOptions, method: str, base: str, revision: str | None) -> Opened:
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
        raise ModelError(f"{name} holds several models; choose one by its name: {', '.join(several)}")
    if key is not None and PUBLISHED[key].source.startswith("http"):
        raise ModelError(f"{key}: {PUBLISHED[key].note}")
    if key is None and not looks_like_hub_id(name):
        raise ModelError(
            f"no model {name!r}{did_you_mean(name, ('embedded', *PUBLISHED))}: it is neither 'embedded', a published "
            "name (twofold models lists them), a folder, a file, nor a hub id (owner/name)"
        )
    # A repository in twofold's layout describes itself, whatever its name.
    row = PUBLISHED[key] if key else None
    wanted = (*_WHOLE, "heads/*", *(row.folders if row else ()), "vae_decoder", "vae_post_quant_conv")
    repo = name if looks_like_hub_id(name) or row is None else row.source
    return _folder(
        fetch(repo, tuple(dict.fromkeys(wanted)), revision, options.variant), options, key or "", base, repo
    )


def _user_backbone(name: str) -> Opened:
    try:
        backbone = make_backbone(name)
    except ValueError as error:
        raise ModelError(str(error)) from error
    if not isinstance(backbone, StableDiffusion):
        raise ModelError(
            f"{name} gives a {type(backbone).__name__}; models are trained, saved and generated with as "
            "twofold.backbones.stable_diffusion.StableDiffusion. Pass other backbones to DiffusionPredictor"
        )
    return backbone, ModelSettings(name=name, size=0), {}, []


def _folder(folder: Path, options: LoadOptions, key: str, base: str, called: str = "") -> Opened:
    if (folder / SETTINGS).exists() or folder == EMBEDDED:
        return open_own(folder, options)
    if (folder / NETWORK).exists():
        raise ModelError(
            f"{folder} holds a network of its author's own; open_network, or --network file.py:make, opens it"
        )
    if key:
        return assemble(key, folder, options, base)
    settings = marigold_like(folder)
    if settings is None and diff2in1.is_diff2in1_dir(folder):
        return assemble("diff2in1-normals", folder, options, base)
    if settings is None:
        if not (folder / "model_index.json").exists():
            raise ModelError(
                f"{folder} has neither {SETTINGS} nor model_index.json, and its name is not a published model's; "
                "say what it is with --method (twofold models lists the choices)"
            )
        settings = _base_settings(folder)
    settings = settings.model_copy(update={"name": called or folder.name})
    files = [f for part in _WHOLE[:3] for f in weight_files(folder / part, options.variant)]
    net = _plain(folder, options)
    for task in settings.tasks.values():
        check_network(settings.name, net, task.protocol, folder / "unet")
    _check_base(settings, net, folder)
    return net, settings, {}, files


def _check_base(settings: ModelSettings, net: StableDiffusion, where: Path) -> None:
    if not settings.tasks and net.input_channels != net.latent_channels:
        raise ModelError(
            f"{where}: its network takes {net.input_channels} channels, so it is no plain Stable Diffusion; say which "
            "published model it is with --method (twofold models lists the choices)"
        )


def _base_settings(folder: Path) -> ModelSettings:
    kind = str(read_json(folder / "model_index.json").get("_class_name", ""))
    # Any other pipeline would run with the wrong settings and give plausible but wrong predictions.
    if kind not in ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"):
        raise ModelError(
            f"{folder / 'model_index.json'} names the pipeline {kind!r}; say which published model it is with --method "
            "(twofold models lists the choices)"
        )
    return ModelSettings(name=folder.name, size=0)


def _plain(folder: Path, options: LoadOptions) -> StableDiffusion:
    return StableDiffusion(
        components.unet(folder / "unet", options),
        components.vae(folder / "vae", options),
        encoder := components.text_encoder(folder / "text_encoder", options),
        read_tokenizer(folder / "tokenizer", encoder),
        components.scheduler(folder / "scheduler"),
    )


def _file(path: Path, options: LoadOptions, method: str, base: str) -> Opened:
    if path.suffix not in _SUFFIXES:
        raise ModelError(f"{path} is no checkpoint; weights end in {', '.join(_SUFFIXES)}")
    if method and PUBLISHED[method].lora:
        return assemble(method, path, options, base)
    if method and (path.parent / "config.json").exists():
        return _folder(path.parent, options, method, base)
    if method:
        raise ModelError(
            f"{path} is one file without a config.json beside it, and {method} is made of folders; give its folder"
        )
    parts = read_ldm(path, options)
    family = "sd21" if parts["text_encoder"].config.hidden_size == 1024 else "sd15"
    net = StableDiffusion(**{**parts, "tokenizer": _foreign_tokenizer(family, base)})
    settings = ModelSettings(name=path.stem, size=0)
    _check_base(settings, net, path)
    return net, settings, {}, [path]


def _foreign_tokenizer(family: str, base: str) -> Any:
    """A single file holds no tokenizer: that of ``base``, or of the family's home; None where neither is at hand."""
    try:
        return read_tokenizer(fetch_base(family, ("tokenizer",), base) / "tokenizer")
    except ModelError:
        if base:
            raise
        return None  # the first prompt says what to do


def digest(files: Iterable[Path]) -> str:
    """sha256 over the sha256 of weight files, in their order.

    The hub's cache names a file by its sha256, which then need not be computed.
    """
    sha = hashlib.sha256()
    for path in files:
        real = path.resolve()
        if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
            sha.update(bytes.fromhex(real.name))
            continue
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()
