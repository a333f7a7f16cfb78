"""The model card of a checkpoint, with its tasks, their settings and the training data."""

from __future__ import annotations

import json
import re
import shlex

from ..io import escape, escape_markdown
from .settings import ModelSettings, TaskSettings

_PIPELINES = {"depth": "depth-estimation", "disparity": "depth-estimation", "mask": "image-segmentation"}


def model_card(settings: ModelSettings) -> str:
    """A model card in Markdown with the hub's header, from the contents of ``twofold.json``."""
    tasks = list(settings.tasks)
    kind = next((_PIPELINES[t] for t in tasks if t in _PIPELINES), "image-to-image")
    tags = "".join(f"- {_yaml(t)}\n" for t in ("twofold", *tasks))
    header = f"---\nlibrary_name: diffusers\npipeline_tag: {kind}\nlicense: other\ntags:\n{tags}---\n"
    rows = "\n".join(_row(name, task) for name, task in settings.tasks.items())
    table = f"| task | protocol | head | space | frame |\n|---|---|---|---|---|\n{rows}\n" if rows else ""
    data = "\n".join(f"- {escape_markdown(line)}" for line in settings.trained_on) or "- not recorded"
    runs = escape_markdown(", ".join(settings.recipes)) or "not recorded"
    option = f" --task {shlex.quote(escape(tasks[0]))}" if tasks else ""
    return (
        f"{header}\n# {escape_markdown(settings.name)}\n\n"
        f"```\ntwofold predict photo.jpg --model THIS_FOLDER{option}\n```\n\n"
        f"Licence of the weights: {escape_markdown(settings.licence)}. Images are resized to a longest edge of "
        f"{settings.size or 'any number of'} pixels.\n\n{table}\n"
        f"Trained on:\n\n{data}\n\nRuns, first to last: {runs}. Saved by twofold {settings.code_version}.\n"
    )


def _row(name: str, task: TaskSettings) -> str:
    protocol = task.protocol
    steps = f"{protocol.steps} steps" if protocol.kind == "multi_step" else f"time step {protocol.timestep}"
    cells = (name, f"{protocol.kind}, {steps}", task.head, task.space or name, task.frame or "none")
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def _yaml(text: str) -> str:
    """A name as a YAML value: as it is, or as JSON, which is valid YAML."""
    return text if re.fullmatch(r"[A-Za-z][\w.+-]*", text, re.ASCII) else json.dumps(text)
