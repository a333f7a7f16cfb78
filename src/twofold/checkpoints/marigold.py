"""Reads the settings of folders that a Marigold pipeline of diffusers wrote, for example after fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..protocols import MultiStep, reason
from ..tasks import TASKS
from . import components
from .configs import PipelineConfig, validated
from .settings import ModelSettings, TaskSettings
from .strict import ModelError, read_json


def read_marigold_settings(folder: Path) -> ModelSettings | None:
    """The settings of a folder that a Marigold pipeline of diffusers wrote; None for any other folder.

    Raises:
        ModelError: the pipeline has settings that twofold does not support.
    """
    index = folder / "model_index.json"
    if not index.exists():
        return None
    index_json = read_json(index)
    kind = str(index_json.get("_class_name", ""))
    if not (kind.startswith("Marigold") and kind.endswith("Pipeline")):
        return None
    if index_json.get("use_full_z_range") is False:
        raise ModelError(
            f"{index}: twofold does not support use_full_z_range=false, another scale of normals"
        )
    index_json = {**index_json, **validated(PipelineConfig, index_json, index)}
    scheduler = components.scheduler(folder / "scheduler")
    names = _targets(index_json, kind, index)
    protocol = _protocol(index_json, scheduler, len(names), folder)
    tasks = {
        name: TaskSettings(
            protocol=protocol,
            space=name if name in ("depth", "disparity") else "",
            output_index=i,
            frame=TASKS[name].frame,
            clip="channels" if TASKS[name].frame else "mean",
        )
        for i, name in enumerate(names)
    }
    size = int(index_json.get("default_processing_resolution") or 0)
    return ModelSettings(name=folder.name, size=size, tasks=tasks)


def _targets(index_json: Mapping[str, Any], kind: str, index: Path) -> list[str]:
    if kind == "MarigoldNormalsPipeline" or (kind == "MarigoldPipeline" and "use_full_z_range" in index_json):
        return ["normals"]
    if kind == "MarigoldIntrinsicsPipeline":
        names = list(
            (index_json.get("target_properties") or {}).get("target_names") or ["albedo", "material"]
        )
        unknown = [n for n in names if n not in TASKS]
        if unknown:
            raise ModelError(f"{index} names the target {unknown[0]!r}; known: {', '.join(TASKS)}")
        return names
    depth = {"scale_invariant", "shift_invariant", "prediction_type"}
    if kind == "MarigoldPipeline" and not depth & set(index_json):
        raise ModelError(f"{index} names MarigoldPipeline without the predicted target; pass --method")
    return ["disparity" if index_json.get("prediction_type") == "disparity" else "depth"]


def _protocol(
    index_json: Mapping[str, Any], scheduler: Mapping[str, Any], num_outputs: int, folder: Path
) -> MultiStep:
    lcm = scheduler.get("_class_name") == "LCMScheduler"
    spacing = "trailing" if lcm else scheduler.get("timestep_spacing", "leading")
    steps = int(index_json.get("default_denoising_steps") or (1 if lcm else 10))
    try:
        return MultiStep(
            steps=steps,
            spacing=spacing,
            offset=int(scheduler.get("steps_offset", 0)),
            sampler="lcm" if lcm else "ddim",
            final="prev",
            num_outputs=num_outputs,
        )
    except ValueError as error:
        raise ModelError(f"{folder}: its settings are not supported: {reason(error)}") from error
