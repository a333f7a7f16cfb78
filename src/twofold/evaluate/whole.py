"""A whole evaluation: put together, run, and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.classes import class_names
from ..data.folder import Folder
from ..image import ImageError
from ..io import escape
from ..painter import Painter
from ..tasks import get_task
from .benchmarks import Benchmark
from .diff2in1_files import FromDiff2in1
from .measure import measure
from .pictures import Example, example
from .pose import FromResults, is_pose
from .predictions import FromFiles, FromModel, Source, check_model
from .report import About, Report, assemble, write
from .rows import read_all
from .run import Evaluation, data_identity, origins, run
from .standard import EvaluationError, Standard

if TYPE_CHECKING:
    from ..checkpoints import Model, Network

# A model's description says where it lies, which decides no number.
_INCIDENTAL = ("model",)


@dataclass(frozen=True)
class Question:
    """What is asked: which data, scored how, how much of it.

    Attributes:
        folder: samples with truth.
        standard: how they are scored.
        out: folder of the results.
        benchmark: that the data are of; None for one's own.
        count: the first so many samples; 0 for all.
        shard: this process's share, see `run.Evaluation`.
        allow_synthetic: whether pictures that no camera took may be scored.
        group: entry of the manifest's rows by which scores are given apart as well; the benchmark's own when empty.
    """

    folder: Folder
    standard: Standard
    out: Path
    benchmark: Benchmark | None = None
    count: int = 0
    shard: tuple[int, int] = (1, 1)
    allow_synthetic: bool = False
    group: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the samples that are asked for."""
        return self.folder.ids[: self.count or None]


def classes_of(folder: Folder, standard: Standard) -> int:
    """How many classes there are: what the standard says, or as many as the data's header lists."""
    if standard.classes:
        return standard.classes
    try:
        return max(class_names(folder.header), default=-1) + 1
    except ValueError:  # whoever measures ids says that it needs to know how many there are
        return 0


def check_origin(question: Question) -> None:
    """EvaluationError for pictures that no camera took, unless they are meant or allowed."""
    meant = {"real", question.benchmark.origin if question.benchmark else "real"}
    strange = {
        kind: n for kind, n in origins(question.folder, set(question.ids)).items() if kind not in meant
    }
    if strange and not question.allow_synthetic:
        found = " and ".join(f"{n} {kind}" for kind, n in sorted(strange.items()))
        raise EvaluationError(
            f"{escape(question.folder.root)} has {found} pictures, and scores are of photographs; "
            "--allow-synthetic scores them all the same, and the report says so"
        )
    folder, asked = question.folder, set(question.ids)
    # What `twofold create` stores of a predicted depth: its numbers are no metres.
    depths = [r for r in folder.rows if r["id"] in asked and "depth" in (r.get("targets") or {})]
    relative = next((r["id"] for r in depths if folder.descriptor(r, "depth").get("relative")), None)
    if relative is not None:
        raise EvaluationError(
            f"{escape(folder.root)}: the depth of {relative} is a prediction, known up to scale and shift, and nothing "
            "can be measured against it"
        )


def of_model(
    question: Question,
    predictor: Painter,
    size: int | None = None,
    seed: int | None = None,
    dtype: str = "float32",
    name: str = "",
) -> tuple[Evaluation, About]:
    """An evaluation of a model.

    Args:
        question: what is asked.
        predictor: the model's, with its ensemble.
        size: longest edge it works at, in place of the standard's; 0 for the picture's own.
        seed: in place of the standard's.
        dtype: of its weights, for the record.
        name: to call it by.

    Raises:
        EvaluationError: the standard does not score what the model predicts, or the pictures are no photographs.
    """
    standard = question.standard
    check_model(predictor, standard)
    longest = standard.size if size is None else size
    used = {
        "size": predictor.size if longest is None else longest,
        "seed": standard.seed if seed is None else seed,
    }
    about = {k: v for k, v in predictor.about.items() if k not in _INCIDENTAL}
    of = {
        "kind": "model",
        **about,
        "task": predictor.task.name,
        "dtype": dtype,
        "ensemble": predictor.ensemble,
    }
    of |= used
    deviations = [
        f"{what} {used[what]} in place of {said}"
        for what, said in (("size", standard.size), ("seed", standard.seed))
        if said is not None and used[what] != said
    ]
    source = FromModel(predictor, used["size"], used["seed"], predictor.ensemble)
    called = {"model": name or str(predictor.about.get("model", "model"))}
    return _put_together(question, source, of, {**of, **called}, deviations)


def of_files(
    question: Question,
    root: Path,
    scale: float | None = None,
    frame: str = "RUB",
    stretch: bool = False,
    layout: str = "",
) -> tuple[Evaluation, About]:
    """An evaluation of stored predictions; of people, of a file of COCO's results.

    Args:
        question: what is asked.
        root: folder of the predictions.
        scale: what stored numbers are multiplied by, see `predictions.FromFiles`.
        frame: of stored vectors.
        stretch: whether maps of another shape are stretched to that of their image.
        layout: ``diff2in1`` for a folder of Diff-2-in-1's program, which fixes these three (`FromDiff2in1`).

    Raises:
        EvaluationError: as there and of `of_model`.
    """
    standard = question.standard
    if is_pose(standard):
        of: dict[str, Any] = {"kind": "predictions", "scale": scale, "frame": frame}
        results = FromResults(root, question.folder)
        return _put_together(
            question, results, {**of, "results": results.digest}, {**of, "folder": escape(root)}, []
        )
    if layout:
        source: FromFiles = FromDiff2in1(root, standard, question.folder)
    else:
        source = FromFiles(root, standard, scale, frame, stretch)
    of = {"kind": "predictions", "scale": source.scale, "frame": source.frame}
    of |= {"stretch": True} if source.stretch else {}
    of |= {"layout": layout} if layout else {}
    return _put_together(question, source, of, {**of, "folder": escape(root)}, [])


def _put_together(
    question: Question,
    source: Source,
    of: Mapping[str, Any],
    said: Mapping[str, Any],
    deviations: Sequence[str],
) -> tuple[Evaluation, About]:
    check_origin(question)
    if is_pose(question.standard) and find_spec("pycocotools") is None:
        raise ImportError("average precision needs pycocotools; pip install 'twofold[pose]'")
    folder, standard = copy(question.folder), question.standard
    folder.targets = (standard.target,)  # the others need not be read
    ids = question.ids
    if not ids:
        raise EvaluationError(f"{escape(folder.root)} has no pictures; there is nothing to evaluate")
    identity = {
        "protocol": standard.id,
        "fingerprint": standard.fingerprint,
        "data": data_identity(folder),
        "of": dict(of),
    }
    notes = [
        f"{n} of the pictures are {kind}, not photographs"
        for kind, n in sorted(origins(folder, set(ids)).items())
        if kind != "real" and (question.benchmark is None or kind != question.benchmark.origin)
    ]
    job = Evaluation(
        folder, source, standard, question.out, identity, classes_of(folder, standard), question.shard
    )
    group = question.group or (question.benchmark.group if question.benchmark else "")
    if question.group and not any(question.group in row for row in folder.rows):
        raise EvaluationError(f"no row of {escape(folder.root)} has an entry {question.group!r} to group by")
    if not any(group in row for row in folder.rows):
        group = ""  # not every layout of a benchmark says it
    return job, About(said, question.benchmark, ids, deviations, notes=notes, group=group)


def finish(job: Evaluation, about: About, pictures: bool = True) -> tuple[Report, dict[str, Path]]:
    """Writes the report of an evaluation that has run: of the rows of every process so far.

    Args:
        job: what was evaluated, see `run.run`.
        about: what the report says beside the numbers.
        pictures: whether the best, the middle and the worst picture are drawn.

    Returns:
        The report, and the files it was written to.
    """
    report = assemble(job, about, read_all(job.out, job.identity))
    if isinstance(job.source, FromFiles):
        asked = set(about.selected)
        left = job.source.unpaired(row for row in map(job.described, job.folder.rows) if row["id"] in asked)
        if left:
            report["warnings"].append(
                f"of the files among the predictions, {len(left)} belong to no picture that was asked for, such as "
                f"{left[0]}"
            )
    return report, write(job.out, report, examples(job, report) if pictures else [])


def carry_out(job: Evaluation, about: About, pictures: bool = True) -> Report:
    """Runs an evaluation to its end, or goes on with it, and gives its report; `run.run` and `finish` in one."""
    for _ in run(job, range(len(about.selected))):
        pass
    return finish(job, about, pictures)[0]


def task_for(model: Model | Network, standards: Sequence[Standard], asked: str = "") -> tuple[str, Standard]:
    """The model's task, and the first of the standards, that belong together; the task is ``asked`` if that is said.

    Raises:
        EvaluationError: none do.
    """
    spaces = {name: _says(model, name) for name in model.tasks if asked in ("", name)}
    # Of several, one that fits comes before one that wants metres, which no model here predicts.
    able = [s for s in standards if not (s.target == "depth" and s.align == "none")] or standards
    for standard in able:
        for name, (target, space) in spaces.items():
            if target == standard.target and space in standard.spaces:
                return name, standard
    wanted = " or ".join(dict.fromkeys(s.id for s in standards))
    known = ", ".join(f"{name} ({space})" for name, (_, space) in spaces.items()) or f"no {asked or 'task'}"
    raise EvaluationError(
        f"{wanted} scores {' or '.join(standards[0].spaces)}, and model {model.name} predicts {known}; choose another "
        "--protocol or another --model"
    )


def _says(model: Model | Network, name: str) -> tuple[str, str]:
    """Target and space of a model's task."""
    from ..checkpoints import Network

    if isinstance(model, Network):
        predictor = model.predictor(name)
        return predictor.task.target, predictor.space
    how = model.settings.tasks[name]
    task = get_task(how.task or name, trusted=False)
    return task.target, how.reading.space or task.space


def examples(job: Evaluation, report: Report) -> list[Example]:
    """The pictures of a report's examples; each is predicted, or read, once more."""
    chosen = report["examples"]
    places = {id: index for index, id in enumerate(job.folder.ids)}
    drawn: list[Example] = []
    for which in ("best", "median", "worst"):
        if which not in chosen or any(one.id == chosen[which]["id"] for one in drawn):
            continue
        try:
            sample, row = job.sample(places[chosen[which]["id"]])
            answer = job.source(sample, row)
            compared = answer.map
            if not is_pose(job.standard):
                _, compared = measure(answer.map, sample, job.standard, job.classes)
        except (EvaluationError, ImageError, OSError):
            continue  # it was there a moment ago; its row says what it scored
        drawn.append(example(which, chosen[which]["value"], sample, compared, job.standard, job.classes))
    return drawn
