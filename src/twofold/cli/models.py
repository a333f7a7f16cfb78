"""The commands `twofold models`, which lists models, and `twofold convert-checkpoint`, which converts one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import OK, CommandError, print_json, print_line, print_result
from twofold.cli.model import CheckpointOptions, Dtype, check_model_options
from twofold.cli.options import choice
from twofold.cli.usage import refuse_unused
from twofold.io import atomic_folder
from twofold.suggest import did_you_mean

if TYPE_CHECKING:
    from twofold.checkpoints import Model, TaskSettings


def models(
    name: Annotated[
        str, typer.Argument(help="Print all of this model; by default, a line for each model.")
    ] = "",
) -> int:
    """List the known models: task, protocol, space, frame, steps, size, licence and source.

    Any of the names can be passed to --model. This command downloads nothing; others download to the hub's cache.
    """
    known = _embedded() | _published()
    if name and name not in known:
        from twofold.checkpoints import find_published

        key = find_published(name)
        if key is None:
            raise CommandError(
                f"no model {name!r} is known{did_you_mean(name, known)}; 'twofold models' lists them"
            )
        name = key
    for key in [name] if name else known:
        print_json({"name": key, **known[key]})
    if name:
        _print_one(name, known[name])
    else:
        _print_all(known)
    return OK


def _print_all(known: dict[str, dict[str, Any]]) -> None:
    width = max(map(len, known))
    print_result(
        f"{'name':{width}}  {'method':10}  {'tasks':26}  {'protocol':10}  {'steps':>5}  {'space':14}  {'frame':5}  "
        f"{'size':>6}  {'licence':28}  source"
    )
    for name, model in known.items():
        tasks = model["tasks"].values()
        steps = max(task["steps"] for task in tasks)
        names, first = ", ".join(model["tasks"]), next(iter(tasks))
        frame = first["frame"] if first["frame"] != "none" else ""
        print_result(
            f"{name:{width}}  {model['method']:10}  {names:26}  {first['protocol']:10}  {steps:5}  "
            f"{first['space']:14}  {frame:5}  {model['size'] or 'native':>6}  {model['licence'][:28]:28}  "
            f"{model['source']}"
        )
    print_result("\n'twofold models NAME' prints all of one; 'twofold predict IMAGE --model NAME' runs it.")


def _print_one(name: str, model: dict[str, Any]) -> None:
    print_result(name)
    for key, value in model.items():
        if key != "tasks" and value not in ("", None):
            print_result(f"  {key:9} {value}")
    for task, settings in model["tasks"].items():
        print_result(f"  task {task}")
        for key, value in settings.items():
            print_result(f"    {key:10} {value}")


def _task_record(name: str, settings: TaskSettings) -> dict[str, Any]:
    """The settings of a task as they are printed."""
    from twofold.tasks import get_task

    protocol = settings.protocol.__dict__
    fields = {k: v for k, v in protocol.items() if k != "kind" and not k.startswith("__")}
    output = ("pad", "guidance", "minmax_normalize", "clip", "output_index")
    return {
        "protocol": settings.protocol.kind,
        "steps": getattr(settings.protocol, "steps", 1),
        "head": settings.head,
        "space": settings.space or get_task(settings.task or name, trusted=False).space,
        "frame": settings.frame or "none",
        "prompt": repr(settings.prompt) + (" padded to 77 tokens" if settings.pad else ""),
        "settings": ", ".join(f"{k}={v}" for k, v in fields.items()),
        "reading": ", ".join(f"{name}={getattr(settings, name)}" for name in output),
    }


def _embedded() -> dict[str, dict[str, Any]]:
    from twofold.checkpoints.model_folder import EMBEDDED
    from twofold.checkpoints.settings import ModelSettings

    settings = ModelSettings.model_validate_json((EMBEDDED / "twofold.json").read_text())
    record = {
        "method": "twofold", "source": "in this package", "licence": settings.licence, "size": settings.size,
        "paper": "", "note": "trained by twofold itself; no download",
        "tasks": {name: _task_record(name, task) for name, task in settings.tasks.items()},
    }  # fmt: skip
    return {"embedded": record}


def _published() -> dict[str, dict[str, Any]]:
    from twofold.checkpoints import PUBLISHED

    out = {}
    for key, row in PUBLISHED.items():
        out[key] = {
            "method": row.method, "source": row.source, "licence": row.licence, "size": row.size, "edge": row.edge,
            "paper": f"arXiv {row.paper}", "needs": row.base and f"autoencoder or text of {row.base}", "note": row.note,
            "tasks": {name: _task_record(name, task) for name, task in row.tasks.items()},
        }  # fmt: skip
    return out


@dataclass(frozen=True)
class ConversionOptions(OptionGroup):
    """Options of the written checkpoint."""

    title: ClassVar[str] = "Converted weights"
    layout: Annotated[
        str,
        choice(
            "--layout",
            ("twofold", "diff2in1"),
            "That of twofold, or Diff-2-in-1's two files of a normals head, in float32.",
        ),
    ] = "twofold"
    dtype: Dtype = "float16"
    drop_text: Annotated[
        bool,
        typer.Option(
            "--drop-text",
            help="Store the prompts' embeddings instead of the text encoder (340 M parameters).",
        ),
    ] = False
    completed_by: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With diff2in1: the authors' sn_ckpt, from which unused tensors that their code requires are copied.",
        ),
    ] = None


def convert_checkpoint(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A model, as for --model of other commands.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.")],
    checkpoint: CheckpointOptions,
    output: ConversionOptions,
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            metavar="A", help="Alpha of LoRA weights whose files do not contain it, from their training."
        ),
    ] = None,
    push: Annotated[
        str, typer.Option(metavar="REPO", help="Then upload the folder to this hub repository.")
    ] = "",
) -> int:
    """Convert any readable checkpoint to the layout of twofold: one self-describing folder."""
    to_diff2in1 = output.layout == "diff2in1"
    if to_diff2in1:
        refuse_unused("with --layout diff2in1, which is one head in float32", "dtype", "drop_text")
        refuse_unused("with --layout diff2in1: only the layout of twofold is uploaded", "push")
    else:
        refuse_unused("without --layout diff2in1", "completed_by")
    if source == "embedded":
        refuse_unused("for the embedded model, which has no LoRA weights", "lora_alpha")
    check_model_options(source)
    if out.exists():
        raise CommandError(f"{out} exists; a checkpoint is not overwritten, choose another folder")
    import torch

    from twofold.checkpoints import push_model, save_model

    dtype = "float32" if to_diff2in1 else output.dtype
    opened = checkpoint.open(source, "cpu", dtype, lora_alpha)
    if to_diff2in1:
        return _write_diff2in1(opened, out, output.completed_by)
    if output.drop_text:
        _store_embeddings(opened)
    save_model(opened.backbone, opened.settings, out, getattr(torch, dtype), dict(opened.heads))
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print_json({"out": str(out), "bytes": size, "tasks": list(opened.tasks)})
    print_line(f"{out}/  {size / 2**20:.0f} MB, tasks: {', '.join(opened.tasks) or 'none'}")
    if push:
        print_line(push_model(out, push))
    return OK


def _store_embeddings(opened: Model) -> None:
    """Replace the text encoder by the embeddings of the tasks' prompts."""
    tasks = opened.settings.tasks.values()
    prompts = dict.fromkeys(["", *(task.prompt for task in tasks)])
    opened.backbone.cache_prompt_embeds(list(prompts), [task.prompt for task in tasks if task.pad])


def _write_diff2in1(opened: Model, out: Path, completed_by: Path | None) -> int:
    """Write the normals head of a model as the two files that Diff-2-in-1's programs read."""
    from twofold.checkpoints.diff2in1 import write_head
    from twofold.heads import BaeHead

    head = opened.heads.get("normals")
    if not isinstance(head, BaeHead):
        raise CommandError(
            f"{opened.name} has no bae head for normals, which Diff-2-in-1's files consist of "
            f"(its tasks: {', '.join(opened.tasks) or 'none'})"
        )
    frame = opened.settings.tasks["normals"].frame
    if frame not in (None, "RUB"):
        raise CommandError(f"{opened.name} predicts normals in {frame}; convert the original files again")
    names = ("checkpoint_0.pth", "checkpoint_bae_0.pth")
    with atomic_folder(out) as partial:
        partial.mkdir(parents=True)
        write_head(head, partial / names[0], partial / names[1], completed_by)
    print_json({"out": str(out), "sn_ckpt": names[0], "bae_ckpt": names[1]})
    print_line(f"{out}/{names[0]} (--sn_ckpt) and {out}/{names[1]} (--bae_ckpt)")
    if completed_by is None:
        print_line(
            "Diff-2-in-1's program also requires tensors that it never uses: --completed-by copies them from its file"
        )
    return OK
