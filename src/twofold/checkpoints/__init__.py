"""Checkpoints: strict reading and atomic writing."""

from .code import instantiate_network
from .generator import check_generator, open_generator
from .model import Model, digest, load, open_model
from .network import Network, NetworkSettings, open_network, save_network
from .own import EMBEDDED, own_files, push_model, save_model
from .published import PUBLISHED, Published, find_published
from .settings import ModelSettings, TaskSettings
from .strict import ModelError

__all__ = [
    "EMBEDDED",
    "PUBLISHED",
    "Model",
    "ModelError",
    "ModelSettings",
    "Network",
    "NetworkSettings",
    "Published",
    "TaskSettings",
    "check_generator",
    "digest",
    "find_published",
    "load",
    "instantiate_network",
    "open_generator",
    "open_model",
    "open_network",
    "own_files",
    "push_model",
    "save_model",
    "save_network",
]
