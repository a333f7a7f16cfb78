"""`twofold models` and `twofold convert-checkpoint`: what can be opened, and one layout for all of it."""

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
    name: Annotated[str, typer.Argument(help="Print this model in full; by default, a line for each.")] = "",
) -> int:
    """List the known models: task, protocol, space, frame, steps, size, licence and source.

    Any of the names can be passed to --model. Downloads go to the hub's own cache; this command downloads nothing.
    """
    known = _embedded() | _published()
    if name and name not in known:
        from twofold.checkpoints import find_published

        found = find_published(name)
        if found is None:
            raise CommandError(
                f"no model {name!r} is known{did_you_mean(name, known)}; 'twofold models' lists them"
            )
        name = found
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
    for key, facts in known.items():
        asked = facts["tasks"].values()
        steps = max(t["steps"] for t in asked)
        names, first = ", ".join(facts["tasks"]), next(iter(asked))
        frame = first["frame"] if first["frame"] != "none" else ""
        print_result(
            f"{key:{width}}  {facts['method']:10}  {names:26}  {first['protocol']:10}  {steps:5}  {first['space']:14}  "
            f"{frame:5}  {facts['size'] or 'native':>6}  {facts['licence'][:28]:28}  {facts['source']}"
        )
    print_result("\n'twofold models NAME' prints one in full; 'twofold predict IMAGE --model NAME' runs it.")


def _print_one(name: str, facts: dict[str, Any]) -> None:
    print_result(name)
    for key, value in facts.items():
        if key != "tasks" and value not in ("", None):
            print_result(f"  {key:9} {value}")
    for task, asked in facts["tasks"].items():
        print_result(f"  task {task}")
        for key, value in asked.items():
            print_result(f"    {key:10} {value}")


def _asked(name: str, how: TaskSettings) -> dict[str, Any]:
    from twofold.tasks import get_task

    protocol = how.protocol.__dict__
    settings = {k: v for k, v in protocol.items() if k != "kind" and not k.startswith("__")}
    reading = {
        "pad": how.pad,
        "guidance": how.guidance,
        "minmax_normalize": how.minmax_normalize,
        "clip": how.clip,
        "output_index": how.output_index,
    }
    return {
        "protocol": how.protocol.kind,
        "steps": getattr(how.protocol, "steps", 1),
        "head": how.head,
        "space": how.space or get_task(how.task or name, trusted=False).space,
        "frame": how.frame or "none",
        "prompt": repr(how.prompt) + (" padded to 77 tokens" if how.pad else ""),
        "settings": ", ".join(f"{k}={v}" for k, v in settings.items()),
        "reading": ", ".join(f"{k}={v}" for k, v in reading.items()),
    }


def _embedded() -> dict[str, dict[str, Any]]:
    from twofold.checkpoints.own import EMBEDDED
    from twofold.checkpoints.settings import ModelSettings

    settings = ModelSettings.model_validate_json((EMBEDDED / "twofold.json").read_text())
    facts = {
        "method": "twofold", "source": "in this package", "licence": settings.licence, "size": settings.size,
        "paper": "", "note": "trained by twofold itself; no download",
        "tasks": {t: _asked(t, how) for t, how in settings.tasks.items()},
    }  # fmt: skip
    return {"embedded": facts}


def _published() -> dict[str, dict[str, Any]]:
    from twofold.checkpoints import PUBLISHED

    out = {}
    for key, row in PUBLISHED.items():
        out[key] = {
            "method": row.method, "source": row.source, "licence": row.licence, "size": row.size, "edge": row.edge,
            "paper": f"arXiv {row.paper}", "needs": row.base and f"autoencoder or text of {row.base}", "note": row.note,
            "tasks": {t: _asked(t, how) for t, how in row.tasks.items()},
        }  # fmt: skip
    return out


@dataclass(frozen=True)
class ConversionOptions(OptionGroup):
    """What is written."""

    title: ClassVar[str] = "Converted weights"
    layout: Annotated[
        str,
        choice(
            "--layout",
            ("twofold", "diff2in1"),
            "twofold's own, or Diff-2-in-1's two files of a normals head, in float32.",
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
            help="With diff2in1: a sn_ckpt of its authors with the parts that its program loads but never runs.",
        ),
    ] = None


def convert_checkpoint(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Anything that --model takes.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.")],
    checkpoint: CheckpointOptions,
    output: ConversionOptions,
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            metavar="A", help="Alpha of LoRA weights whose files do not state it; see their training."
        ),
    ] = None,
    push: Annotated[
        str, typer.Option(metavar="REPO", help="Then upload the folder to this hub repository.")
    ] = "",
) -> int:
    """Convert any readable checkpoint to twofold's own layout: one self-describing folder."""
    to_diff2in1 = output.layout == "diff2in1"
    if to_diff2in1:
        refuse_unused("with --layout diff2in1, which holds one head in float32", "dtype", "drop_text")
        refuse_unused("with --layout diff2in1: only twofold's own layout is uploaded", "push")
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
        return _as_diff2in1(opened, out, output.completed_by)
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
    """Replaces the text encoder by the embeddings of the tasks' prompts."""
    tasks = opened.settings.tasks.values()
    prompts = dict.fromkeys(["", *(task.prompt for task in tasks)])
    opened.backbone.cache_prompt_embeds(list(prompts), [task.prompt for task in tasks if task.pad])


def _as_diff2in1(opened: Model, out: Path, completed_by: Path | None) -> int:
    """The two files of a model's normals head, as Diff-2-in-1's programs read them."""
    from twofold.checkpoints.diff2in1 import write_pair
    from twofold.heads import BaeHead

    head = opened.heads.get("normals")
    if not isinstance(head, BaeHead):
        raise CommandError(
            f"{opened.name} has no bae head for normals, which is all that Diff-2-in-1's files hold "
            f"(its tasks: {', '.join(opened.tasks) or 'none'})"
        )
    frame = opened.settings.tasks["normals"].frame
    if frame not in (None, "RUB"):
        raise CommandError(f"{opened.name} predicts normals in {frame}; convert the original files again")
    names = ("checkpoint_0.pth", "checkpoint_bae_0.pth")
    with atomic_folder(out) as partial:
        partial.mkdir(parents=True)
        write_pair(head, partial / names[0], partial / names[1], completed_by)
    print_json({"out": str(out), "sn_ckpt": names[0], "bae_ckpt": names[1]})
    print_line(f"{out}/{names[0]} (--sn_ckpt) and {out}/{names[1]} (--bae_ckpt)")
    if completed_by is None:
        print_line(
            "its program also loads parts that it never runs: --completed-by takes them from a file of its own"
        )
    return OK
