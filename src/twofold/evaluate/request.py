"""An evaluation request: data, protocol and task, checked before anything is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.classes import class_names
from ..data.folder import Folder
from ..io import Shard, escape
from ..targets import target_spec
from ..tasks import get_task
from .benchmarks import Benchmark
from .protocol import EvalProtocol, EvaluationError
from .run import origins

if TYPE_CHECKING:
    from ..checkpoints import Model, Network


@dataclass(frozen=True)
class EvalRequest:
    """The data to evaluate, and the protocol to evaluate it by.

    Attributes:
        folder: samples with ground truth.
        protocol: how predictions are scored.
        out: output folder.
        benchmark: the benchmark of the data; None for other data.
        count: number of samples to evaluate, from the first; 0 for all.
        shard: the part of the samples that this process evaluates.
        allow_synthetic: whether rendered and generated images may be scored.
        group: key of the manifest's rows by which scores are also reported separately; the benchmark's when empty.
    """

    folder: Folder
    protocol: EvalProtocol
    out: Path
    benchmark: Benchmark | None = None
    count: int = 0
    shard: Shard = field(default_factory=Shard)
    allow_synthetic: bool = False
    group: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the requested samples."""
        return self.folder.ids[: self.count or None]


def num_classes(folder: Folder, protocol: EvalProtocol) -> int:
    """The number of classes, from the protocol or the header of the data; 0 if neither has it."""
    if protocol.classes:
        return protocol.classes
    try:
        return max(class_names(folder.header), default=-1) + 1
    except ValueError:  # `measure.get_metrics` reports it if a metric needs the number
        return 0


def check_provenance(request: EvalRequest) -> None:
    """EvaluationError if there are rendered or generated images that neither benchmark nor request allow.

    Depth that was predicted by a model is never allowed.
    """
    expected = {"real", request.benchmark.origin if request.benchmark else "real"}
    unexpected = {
        kind: n for kind, n in origins(request.folder, set(request.ids)).items() if kind not in expected
    }
    if unexpected and not request.allow_synthetic:
        found = " and ".join(f"{n} {kind}" for kind, n in sorted(unexpected.items()))
        raise EvaluationError(
            f"{escape(request.folder.root)} has {found} images, and the evaluation expects photographs; "
            "pass --allow-synthetic to score them with a note in the report"
        )
    folder, ids = request.folder, set(request.ids)
    # `twofold create` stores predicted depth, which is not in metres.
    depths = [r for r in folder.rows if r["id"] in ids and "depth" in (r.get("targets") or {})]
    relative = next((r["id"] for r in depths if folder.descriptor(r, "depth").get("relative")), None)
    if relative is not None:
        raise EvaluationError(
            f"{escape(folder.root)}: the depth of {relative} is a prediction, known up to scale and shift; evaluate "
            "on data with ground truth"
        )


def select_task(
    model: Model | Network, protocols: Sequence[EvalProtocol], task: str = ""
) -> tuple[str, EvalProtocol]:
    """Choose a task of the model, and the first of the protocols that scores it.

    Args:
        model: the model.
        protocols: the protocols to choose from, in order of preference.
        task: name of the task; empty to choose among all tasks of the model.

    Raises:
        EvaluationError: none of the protocols scores the task, or any task.
    """
    spaces = {name: _space_of(model, name) for name in model.tasks if task in ("", name)}
    # Protocols that align depth come before those of metric depth, which most models do not predict.
    candidates = [
        s for s in protocols if not (target_spec(s.target).is_distance and s.align == "none")
    ] or protocols
    for protocol in candidates:
        for name, (target, space) in spaces.items():
            if target == protocol.target and space in protocol.spaces:
                return name, protocol
    expected = " or ".join(dict.fromkeys(s.id for s in protocols))
    known = ", ".join(f"{name} ({space})" for name, (_, space) in spaces.items()) or f"no {task or 'task'}"
    raise EvaluationError(
        f"{expected} scores {' or '.join(protocols[0].spaces)}, and model {model.name} predicts {known}; choose "
        "another --protocol or another --model"
    )


def _space_of(model: Model | Network, name: str) -> tuple[str, str]:
    """Target and space of a task of the model."""
    from ..checkpoints import Network

    if isinstance(model, Network):
        predictor = model.predictor(name)
        return predictor.task.target, predictor.space
    settings = model.settings.tasks[name]
    task = get_task(settings.task or name, trusted=False)
    return task.target, settings.space or task.space
