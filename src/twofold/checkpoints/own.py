"""twofold's own checkpoint: diffusers' component folders plus ``twofold.json``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from ..backbones.stable_diffusion import StableDiffusion, save_components
from ..heads import HEADS, LatentHead
from ..predictor import Predictor
from ..tasks import get_task
from .settings import ModelSettings
from .strict import ModelError, load_strictly, read_json, read_tensors, weight_files

COMPONENTS = ("unet", "vae", "text_encoder")
EMBEDDED = Path(__file__).parents[1] / "backbones" / "embedded"


@dataclass(frozen=True)
class Model:
    """An opened checkpoint: one backbone, and the tasks it was trained for.

    Attributes:
        name: as it was asked for.
        backbone: shared by all its predictors.
        settings: the contents of ``twofold.json``.
        digest: sha256 over all weight files, for the record beside every result.
        heads: by task, those that have weights of their own.
    """

    name: str
    backbone: StableDiffusion
    settings: ModelSettings
    digest: str
    heads: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks it can be asked."""
        return tuple(self.settings.tasks)

    def predictor(self, task: str | None = None) -> Predictor:
        """A predictor for ``task``, or for the model's first.

        Raises:
            ModelError: the model was not trained for the task.
        """
        if not self.tasks:
            raise ModelError(f"model {self.name} predicts nothing yet: its twofold.json lists no task")
        name = task or self.tasks[0]
        if name not in self.settings.tasks:
            raise ModelError(
                f"model {self.name} does not know the task {name!r}; it knows {', '.join(self.tasks)}"
            )
        how = self.settings.tasks[name]
        about = {"model": self.name, "digest": self.digest, **how.model_dump(mode="json")}
        head = self.heads.get(name, LatentHead())
        asked = get_task(how.task or name)
        return Predictor(self.backbone, asked, how.protocol, head, how.reading, self.settings.size, about)


def load(
    name: str = "embedded", task: str | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Predictor:
    """A ready predictor: ``twofold.load("embedded")("photo.jpg").show()``.

    Args:
        name: ``embedded``, or a checkpoint folder.
        task: one of the model's tasks; its first when not given.
        device: where to put the weights.
        dtype: floating-point type of the weights.

    Raises:
        ModelError: no such model, a damaged checkpoint, or a task it does not know.
    """
    return open_model(name, device, dtype).predictor(task)


def open_model(name: str = "embedded", device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """Open a checkpoint strictly; see `load` for arguments and errors."""
    folder = EMBEDDED if name == "embedded" else Path(name)
    if not folder.is_dir():
        raise ModelError(f"no model {name!r}: it is neither 'embedded' nor a checkpoint folder")
    settings = _settings(folder)
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    parts = {part: _component(folder / part, dtype) for part in COMPONENTS}
    backbone = StableDiffusion(tokenizer=_tokenizer(folder / "tokenizer"), scheduler_config=config, **parts)
    try:
        backbone.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {device!r} cannot be used ({reason}); try --device cpu") from error
    weighty = {t: how.head for t, how in settings.tasks.items() if how.head != "latent"}
    heads = {t: _head(folder / "heads" / t, kind, dtype) for t, kind in weighty.items()}
    for head in heads.values():
        head.to(device).eval().requires_grad_(False)
    return Model(name, backbone.eval().requires_grad_(False), settings, digest(folder), heads)


def digest(folder: Path) -> str:
    """sha256 over the weight files of a checkpoint, in a fixed order."""
    sha = hashlib.sha256()
    heads = sorted(p for p in (folder / "heads").glob("*") if p.is_dir())
    for part in [*(folder / part for part in COMPONENTS), *heads]:
        for path in weight_files(part):
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


def save_model(
    backbone: StableDiffusion,
    settings: ModelSettings,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    heads: Mapping[str, nn.Module] | None = None,
) -> None:
    """Write a checkpoint folder: whole, or not at all.

    Raises:
        FileExistsError: something is already there; a checkpoint is never overwritten.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a checkpoint is not overwritten, choose another folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_components(backbone, partial, dtype)
    for task, head in (heads or {}).items():
        _save_head(head, partial / "heads" / task, dtype)
    stamped = settings.model_copy(update={"code_version": code_version()})
    (partial / "twofold.json").write_text(stamped.model_dump_json(indent=2, by_alias=True) + "\n")
    partial.rename(folder)


def code_version() -> str:
    """The installed version of twofold."""
    try:
        return version("twofold")
    except PackageNotFoundError:
        return "0+source"


def _settings(folder: Path) -> ModelSettings:
    raw = read_json(folder / "twofold.json")
    try:
        return ModelSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise ModelError(f"{folder / 'twofold.json'}: {where}: {first['msg']}") from error


def _component(folder: Path, dtype: torch.dtype) -> Any:
    """A diffusers or transformers module by the class its config names, with its weights."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    config = read_json(folder / "config.json")
    name = "CLIPTextModel" if folder.name == "text_encoder" else config.get("_class_name", "")
    allowed = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL", "AutoencoderTiny")}
    module: nn.Module
    if name == "CLIPTextModel":
        # Not on the meta device: it has buffers that are computed, not stored.
        module = CLIPTextModel(CLIPTextConfig.from_dict(config)).to(dtype)
    elif name in allowed.get(folder.name, ()):
        # AutoencoderTiny writes a key that its own reader warns about.
        known = {k: v for k, v in config.items() if (name, k) != ("AutoencoderTiny", "block_out_channels")}
        with torch.device("meta"):
            module = getattr(diffusers, name).from_config(known)
    else:
        raise ModelError(f"{folder / 'config.json'} names the class {name!r}, which twofold does not read")
    load_strictly(module, read_tensors(folder), folder, dtype)
    return module


def _head(folder: Path, kind: str, dtype: torch.dtype) -> nn.Module:
    config = read_json(folder / "config.json")
    try:
        head = HEADS[kind](**config)
    except TypeError as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a {kind} head ({error})") from error
    load_strictly(head, read_tensors(folder), folder, dtype)
    return head


def _save_head(head: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(getattr(head, "config", {}), indent=2) + "\n")
    save_file(
        {k: v.to(dtype).contiguous() for k, v in head.state_dict().items()}, folder / "model.safetensors"
    )


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    if not folder.is_dir():
        raise ModelError(f"{folder} is missing; the checkpoint folder is incomplete, fetch it again")
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no readable tokenizer ({str(error).splitlines()[0]})") from error
