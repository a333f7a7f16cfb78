"""What every test shares. The environment is set before anything imports torch."""

from __future__ import annotations

import os
import threading

# Threads of several test processes that wait for each other cost many times what they gain.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["DIFFUSERS_VERBOSITY"] = "error"

from pathlib import Path

import pytest
import torch
from tqdm import tqdm

torch.set_num_threads(1)
# tqdm's own lock is shared with forked processes: one that is killed while it holds the lock would block every later
# progress bar of this process. Its monitor thread would take the lock at any moment, also during a fork.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a model with all components and random weights."""
    from twofold.backbones import new
    from twofold.checkpoints import ModelSettings, save_model
    from twofold.protocols import OneStep

    folder = tmp_path_factory.mktemp("models") / "tiny"
    settings = ModelSettings(name="tiny", size=32).with_tasks(["depth", "normals"], OneStep(), "none")
    save_model(new.tiny(), settings, folder)
    return folder
