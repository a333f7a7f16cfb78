"""Opening of models: the embedded one, a folder, a file, a published name, or a hub id."""

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
    """Open a model strictly: every tensor has to be used, and none may be missing.

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
    net, settings, heads, files = open_files(name, options, method, os.fspath(base), revision)
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
