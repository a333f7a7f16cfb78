"""Files of user-defined networks: weights, and the name of the code that makes the network.

A folder holds ``network.json`` and ``model.safetensors``, but not the code. The name of the code in it is not run; the
user passes it.
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
from .own import NETWORK, code_version
from .settings import ImageSize, Line
from .strict import ModelError, read_json, wrong_value
from .weights import read_file

WEIGHTS = "model.safetensors"


class NetworkSettings(BaseModel):
    """The whole of ``network.json``.

    Attributes:
        schema_: version of this file's layout.
        name: of the model.
        network: the code that makes it, ``package.module:make`` or ``file.py:make``.
        options: keyword arguments of ``make``.
        size: longest edge in pixels that images are resized to; 0 keeps their size.
        tasks: that it was trained for, by their names in recipes.
        licence: of the weights.
        trained_on: data sets and their licences, as text.
        recipes: names of the runs that made the weights, first to last.
        code_version: of twofold when saved.
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
        name: as passed to `open_network`.
        module: the network, in evaluation mode.
        settings: the contents of ``network.json``.
        files: files of its weights.
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
        """Names of its tasks."""
        return tuple(self._task(t).name for t in self.settings.tasks)

    def predictor(self, task: str | None = None) -> ModulePredictor:
        """A predictor for ``task``, or for the network's first.

        Raises:
            ModelError: it was not trained for the task.
        """
        if not self.settings.tasks:
            raise ModelError(f"{self.name} predicts nothing: its {NETWORK} has no task")
        # The full name of a user's task is code, and trusted only when it is passed as `task`; `tasks` has short names.
        name = task if task in self.settings.tasks else None
        if name is None:
            known = dict(zip(self.tasks, self.settings.tasks, strict=True))
            name = self.settings.tasks[0] if task is None else known.get(task)
        if name is None:
            raise ModelError(f"{self.name} has no task {task!r}; it has {', '.join(self.tasks)}")
        metadata = {"model": self.name, "digest": self.digest, "network": self.settings.network}
        found = self._task(name, trusted=name == task)
        try:
            return ModulePredictor(self.module, found, name, self.settings.size, metadata)
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
        network: the code that makes it, ``package.module:make`` or ``file.py:make``, which is run; or a function or
            class, called with the stored options; or the network itself, into which the weights are loaded. The name
            in the folder is not run unless it is passed here.
        device: device of the weights, as for `model.load`.
        dtype: floating-point type of the weights, as for `model.load`; None for that of the code.

    Raises:
        ModelError: there is no such folder, no ``network``, or the weights do not fit it.
    """
    where = Path(folder)
    settings = read_settings(where)
    if network is None:
        raise ModelError(
            f"{where} holds weights of a network made by {settings.network}, which a folder does not run; if you trust "
            f"that code, pass network={settings.network!r}"
        )
    if not isinstance(network, nn.Module):
        network = instantiate_network(network, settings.options)
    path = where / WEIGHTS
    _fill(network, read_file(path), path)
    network.eval().requires_grad_(False)
    kind = None if dtype is None else resolve_dtype(dtype)
    return Network(str(folder), network.to(resolve_device(device), kind), settings, (path,))


def read_settings(folder: Path) -> NetworkSettings:
    """The contents of a folder's ``network.json``.

    Raises:
        ModelError: it holds none, or the file is damaged.
    """
    if not (folder / NETWORK).exists():
        raise ModelError(
            f"{folder} holds no {NETWORK}; pass the folder of a network that was trained by twofold"
        )
    try:
        return NetworkSettings.model_validate(read_json(folder / NETWORK))
    except ValidationError as error:
        raise ModelError(f"{folder / NETWORK}: {wrong_value(error)}") from error


def save_network(network: nn.Module, settings: NetworkSettings, folder: Path) -> None:
    """Write a folder atomically. Weights keep their dtype.

    Raises:
        FileExistsError: the folder exists; a checkpoint is never overwritten.
        DiskFullError: there is no space for it.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a checkpoint is not overwritten, choose another folder")
    state = network.state_dict()
    kept = {k: state[k].detach().cpu().contiguous() for k, first in _tied(state).items() if k == first}
    stamped = settings.model_copy(update={"code_version": code_version()})
    with atomic_folder(folder) as partial:
        partial.mkdir(parents=True)
        save_file(kept, partial / WEIGHTS)
        (partial / NETWORK).write_text(stamped.model_dump_json(indent=2, by_alias=True) + "\n")


def _tied(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> first name of the tensor with the same memory, so that tied weights are stored once."""
    firsts: dict[tuple[Any, ...], str] = {}
    return {
        k: firsts.setdefault(
            (v.device, v.data_ptr(), v.dtype, tuple(v.shape), v.stride()) if v.numel() else (k,), k
        )
        for k, v in state.items()
    }


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load stored weights into a network; keys and shapes have to match exactly.

    Raises:
        ModelError: a weight does not fit; the message has the first one.
    """
    state = network.state_dict()
    wanted = {k for k, first in _tied(state).items() if k == first}
    strange = sorted(wanted ^ set(tensors))
    if strange:
        lacks = strange[0] in wanted
        raise ModelError(
            f"{path} {'lacks' if lacks else 'also holds'} {strange[0]}"
            f"{f' (and {len(strange) - 1} more)' if len(strange) > 1 else ''}; it belongs to another network than this "
            f"{type(network).__name__}, or to other options"
        )
    for name, value in tensors.items():
        if value.shape != state[name].shape:
            raise ModelError(
                f"{path}: {name} is {tuple(value.shape)}, and of this {type(network).__name__} "
                f"{tuple(state[name].shape)}; it belongs to another network, or to other options"
            )
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].copy_(value)
