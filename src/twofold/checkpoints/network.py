"""Reads and writes folders of user-defined networks, with ``network.json`` and ``model.safetensors``.

The code of the network is not stored. ``network.json`` has its name, but twofold runs only code that the user names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..environment import resolve_device, resolve_dtype
from ..io import atomic_folder
from ..predict.base import describe_network
from ..predict.module import ModulePredictor
from ..tasks import Task, get_task
from .code import instantiate_network
from .model import digest
from .model_folder import NETWORK, code_version
from .settings import ImageSize, Line
from .strict import ModelError, read_json, wrong_value
from .weights import read_file

WEIGHTS = "model.safetensors"


class NetworkSettings(BaseModel):
    """The contents of ``network.json``.

    Attributes:
        schema_: name and version of the format.
        name: name of the model.
        network: the code that makes the network, ``package.module:make`` or ``file.py:make``.
        options: keyword arguments of ``make``.
        size: longest edge in pixels that images are resized to; 0 keeps the size of images.
        tasks: the tasks that the network was trained for, by their names in recipes.
        licence: licence of the weights.
        trained_on: data sets and their licences, as text.
        recipes: names of the training runs, first to last.
        code_version: version of twofold that saved the network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    schema_: Literal["twofold-network/1"] = Field(default="twofold-network/1", alias="schema")
    name: str = "unnamed"
    network: Line
    options: dict[str, Any] = Field(default_factory=dict)
    size: ImageSize = 0
    tasks: Annotated[tuple[Line, ...], Field(max_length=256)] = ()
    licence: str = "unstated"
    trained_on: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    code_version: str = ""


@dataclass(frozen=True)
class Network:
    """An opened user-defined network, and the tasks it was trained for.

    Attributes:
        name: the folder that was passed to `open_network`.
        module: the network, in evaluation mode.
        settings: the contents of ``network.json``.
        files: the weight files.
    """

    name: str
    module: nn.Module
    settings: NetworkSettings
    files: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        tasks = ", ".join(self.settings.tasks) or "none"
        return f"Network({self.name!r}, {type(self.module).__name__}, tasks: {tasks}, {describe_network(self.module)})"

    @cached_property
    def digest(self) -> str:
        """sha256 over all weight files, which is recorded with every result."""
        return digest(self.files)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the network predicts."""
        return tuple(self._task(t).name for t in self.settings.tasks)

    def predictor(self, task: str | None = None) -> ModulePredictor:
        """A predictor of ``task``, or of the network's first task.

        Raises:
            ModelError: the network was not trained for the task.
        """
        if not self.settings.tasks:
            raise ModelError(f"{self.name} has no task in its {NETWORK}")
        # The full name of a user's task names code, which is trusted only if it is passed as `task`.
        name = task if task in self.settings.tasks else None
        if name is None:
            known = dict(zip(self.tasks, self.settings.tasks, strict=True))
            name = self.settings.tasks[0] if task is None else known.get(task)
        if name is None:
            raise ModelError(f"{self.name} has no task {task!r}; it has {', '.join(self.tasks)}")
        metadata = {"model": self.name, "digest": self.digest, "network": self.settings.network}
        loaded = self._task(name, trusted=name == task)
        try:
            return ModulePredictor(self.module, loaded, name, self.settings.size, metadata)
        except ValueError as error:
            raise ModelError(f"{self.name}: {error}") from error

    def _task(self, name: str, trusted: bool = False) -> Task:
        try:
            return get_task(name, trusted)
        except ValueError as error:
            raise ModelError(f"{self.name}: {error}") from error


def open_network(
    folder: str | Path,
    network: str | nn.Module | Callable[..., nn.Module] | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
) -> Network:
    """Open a user-defined network.

    Args:
        folder: folder with ``network.json`` and the weights.
        network: name of the code that makes the network, ``package.module:make`` or ``file.py:make``; or a function or
            class. They are called with the stored options. Or the network itself, into which the weights are loaded.
        device: device of the weights, as for `model.load`.
        dtype: floating-point type of the weights, as for `model.load`; None keeps that of the network.

    Raises:
        ModelError: there is no such folder, no ``network``, or the weights do not fit it.
    """
    where = Path(folder)
    settings = read_settings(where)
    if network is None:
        raise ModelError(
            f"{where} has the weights of a network made by {settings.network}, and code named in a folder is not "
            f"run; if you trust that code, pass network={settings.network!r}"
        )
    if not isinstance(network, nn.Module):
        network = instantiate_network(network, settings.options)
    path = where / WEIGHTS
    _load_weights(network, read_file(path), path)
    network.eval().requires_grad_(False)
    kind = None if dtype is None else resolve_dtype(dtype)
    return Network(str(folder), network.to(resolve_device(device), kind), settings, (path,))


def read_settings(folder: Path) -> NetworkSettings:
    """Read the ``network.json`` of a folder.

    Raises:
        ModelError: there is none, or the file is damaged.
    """
    if not (folder / NETWORK).exists():
        raise ModelError(f"{folder} has no {NETWORK}; pass the folder of a network that twofold trained")
    try:
        return NetworkSettings.model_validate(read_json(folder / NETWORK))
    except ValidationError as error:
        raise ModelError(f"{folder / NETWORK}: {wrong_value(error)}") from error


def save_network(network: nn.Module, settings: NetworkSettings, folder: Path) -> None:
    """Write a network to a new folder, atomically. Weights keep their dtype.

    Raises:
        FileExistsError: the folder exists; a checkpoint is never overwritten.
        DiskFullError: there is no space for it.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a checkpoint is not overwritten, choose another folder")
    state = network.state_dict()
    tensors = {k: state[k].detach().cpu().contiguous() for k, first in _tied(state).items() if k == first}
    settings = settings.model_copy(update={"code_version": code_version()})
    with atomic_folder(folder) as partial:
        partial.mkdir(parents=True)
        save_file(tensors, partial / WEIGHTS)
        (partial / NETWORK).write_text(settings.model_dump_json(indent=2, by_alias=True) + "\n")


def _tied(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For the name of each tensor, the first name of a tensor with the same memory. Tied weights are stored once."""
    firsts: dict[tuple[Any, ...], str] = {}
    return {
        k: firsts.setdefault(
            (v.device, v.data_ptr(), v.dtype, tuple(v.shape), v.stride()) if v.numel() else (k,), k
        )
        for k, v in state.items()
    }


def _load_weights(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load stored weights into a network; keys and shapes have to match exactly.

    Raises:
        ModelError: a weight does not fit; the message has the first one.
    """
    state = network.state_dict()
    expected = {k for k, first in _tied(state).items() if k == first}
    unmatched = sorted(expected ^ set(tensors))
    if unmatched:
        problem = "lacks" if unmatched[0] in expected else "also has"
        more = f" (and {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
        raise ModelError(
            f"{path} {problem} {unmatched[0]}{more}; it belongs to another network than this "
            f"{type(network).__name__}, or to other options"
        )
    for name, value in tensors.items():
        if value.shape != state[name].shape:
            raise ModelError(
                f"{path}: {name} has shape {tuple(value.shape)}, and this {type(network).__name__} needs "
                f"{tuple(state[name].shape)}; it belongs to another network, or to other options"
            )
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].copy_(value)
