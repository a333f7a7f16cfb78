"""Opens models: the embedded model, a folder, a file, a published name, or a hub id."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from ..backbones.stable_diffusion import StableDiffusion
from ..environment import resolve_device, resolve_dtype
from ..heads import Head, LatentHead
from ..io import first_line
from ..predict.base import describe_network
from ..predict.diffusion import DiffusionPredictor
from ..protocols import reason
from ..suggest import did_you_mean
from ..tasks import get_task
from .components import LoadOptions
from .opening import open_files
from .published import PUBLISHED
from .settings import ModelSettings
from .strict import ModelError


@dataclass(frozen=True)
class Model:
    """An opened checkpoint: one backbone, and the tasks it was trained for.

    Attributes:
        name: the name that was passed to `open_model`.
        backbone: the backbone, which all predictors of the model share.
        settings: the contents of ``twofold.json``, or the settings in the table of published models.
        heads: the heads that have weights, by task.
        files: the weight files.
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
        """Names of the tasks that the model predicts."""
        return tuple(self.settings.tasks)

    def predictor(self, task: str | None = None) -> DiffusionPredictor:
        """A predictor of ``task``, or of the model's first task.

        Raises:
            ModelError: the model was not trained for the task, or its settings are inconsistent.
        """
        if not self.tasks:
            raise ModelError(
                f"model {self.name} has no task: it is an image generator or an untrained base; 'twofold models' lists "
                "models with tasks"
            )
        # A user's task has a short name, the key, and a full name, which names code. Keys, as `tasks` lists them, never
        # name code, so passing a key imports no code.
        full = {settings.task: name for name, settings in self.settings.tasks.items() if settings.task}
        full = {code: name for code, name in full.items() if code not in self.settings.tasks}
        name = full.get(task or "", task or self.tasks[0])
        if name not in self.settings.tasks:
            raise ModelError(
                f"model {self.name} has no task {name!r}{did_you_mean(name, self.tasks)}; "
                f"it has {', '.join(self.tasks)}"
            )
        settings = self.settings.tasks[name]
        metadata = {"model": self.name, "digest": self.digest, **settings.model_dump(mode="json")}
        try:
            return DiffusionPredictor(
                self.backbone,
                get_task(settings.task or name, trusted=task in full),
                settings.protocol,
                self.heads.get(name, LatentHead()),
                settings,
                self.settings.size,
                metadata,
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
    """Open a model and return a predictor: ``twofold.load("embedded")("photo.jpg").show()``.

    Args:
        name: ``embedded``, a published name, a hub id, a folder or a file; see `open_model`.
        task: one of the model's tasks; the first by default.
        device: device of the weights: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a `torch.device`.
        dtype: floating-point type of the weights: a `torch.dtype`, or ``float32``, ``bfloat16`` or ``float16``
            (``fp32``, ``bf16``, ``fp16``).
        method: name of the published model that a folder or repository contains, if it has another name.
        base: folder or hub id of the model that completes the checkpoint.
        revision: branch, tag or commit of a hub repository.
        variant: variant of the weight files, such as ``fp16``.
        lora_alpha: alpha of LoRA weights whose files do not contain it; they are multiplied by alpha / rank.

    Raises:
        ModelError: no such model, a damaged checkpoint, or a task that the model does not have.
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
    """Open a model. No tensor of a checkpoint may be missing or unexpected.

    Args:
        name: ``embedded``; a name of the table of published models (``twofold models``); a hub id; a folder in
            twofold's layout, in a published one, or in diffusers'; one file of Stable Diffusion 1.x or 2.x; or
            ``package.module:make`` for a user-defined backbone, see `backbones.make_backbone`. The last form runs
            code, so do not pass a name that was read from a file.
        device: device of the weights, as for `load`; ``meta`` checks every key and shape and reads no weight.
        dtype: floating-point type of the weights, as for `load`.
        method: name of the published model that a folder or repository contains, if it has another name.
        base: folder or hub id of the model whose autoencoder and text encoder complete the checkpoint.
        revision: branch, tag or commit of a hub repository.
        variant: variant of the weight files, such as ``fp16``.
        lora_alpha: alpha of LoRA weights whose files do not contain it; they are multiplied by alpha / rank.

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
    net, settings, heads, files = open_files(name, options, method, os.fspath(base), revision)
    _move(net, heads, device)
    return Model(name, net, settings, heads, tuple(files))


def _path_or_name(name: str | os.PathLike[str]) -> str:
    """The name or path of a model as a string, with ``~`` expanded to the home folder."""
    try:
        text = os.fspath(name)
    except TypeError:
        text = b""
    if not isinstance(text, str):
        raise ModelError(f"the name of a model is a string or a path, not {name!r}")
    return os.path.expanduser(text)


def _move(net: StableDiffusion, heads: Mapping[str, Head], device: str) -> None:
    for module in (net, *heads.values()):
        module.eval().requires_grad_(False)
        if device == "meta":
            continue
        try:
            module.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = first_line(error)
            raise ModelError(f"device {device!r} cannot be used ({reason}); try --device cpu") from error


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
