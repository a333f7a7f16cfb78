"""Checkpoints: strict reading and atomic writing."""

from .code import instantiate_network as instantiate_network
from .generator import check_generator as check_generator, open_generator as open_generator
from .model import Model as Model, digest as digest, load as load, open_model as open_model
from .model_folder import (
    EMBEDDED as EMBEDDED,
    model_weight_files as model_weight_files,
    push_model as push_model,
    save_model as save_model,
)
from .network import (
    Network as Network,
    NetworkSettings as NetworkSettings,
    open_network as open_network,
    save_network as save_network,
)
from .published import PUBLISHED as PUBLISHED, Published as Published, find_published as find_published
from .settings import ModelSettings as ModelSettings, TaskSettings as TaskSettings
from .strict import ModelError as ModelError
