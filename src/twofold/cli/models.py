"""`twofold models` and `twofold convert-checkpoint`: what can be opened, and one layout for all of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.console import CommandError, check_choice, parse_dtype, print_json, print_line
from twofold.cli.predict import check_source
from twofold.cli.usage import refuse_unused
from twofold.suggest import did_you_mean

if TYPE_CHECKING:
    from twofold.checkpoints import Model, TaskSettings


def models(
    name: Annotated[str, typer.Argument(help="One of them, in full; all, a line each, by default.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> int:
    """List the models that twofold knows: task, protocol, space, frame, steps, size, licence and source.

    Any of the names can be given to --model. What is downloaded goes through the hub's own cache; nothing is
    fetched by this command.
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
    if as_json:
        for key in [name] if name else known:
            print_json({"name": key, **known[key]})
    elif name:
        _print_one(name, known[name])
    else:
        _print_all(known)
    return 0


def _print_all(known: dict[str, dict[str, Any]]) -> None:
    width = max(map(len, known))
    print_line(
        f"{'name':{width}}  {'method':10}  {'tasks':26}  {'protocol':10}  {'steps':>5}  {'space':14}  {'frame':5}  "
        f"{'size':>6}  {'licence':28}  source"
    )
    for key, facts in known.items():
        asked = facts["tasks"].values()
        steps = max(t["steps"] for t in asked)
        names, first = ", ".join(facts["tasks"]), next(iter(asked))
        frame = first["frame"] if first["frame"] != "none" else ""
        print_line(
            f"{key:{width}}  {facts['method']:10}  {names:26}  {first['protocol']:10}  {steps:5}  {first['space']:14}  "
            f"{frame:5}  {facts['size'] or 'native':>6}  {facts['licence'][:28]:28}  {facts['source']}"
        )
    print_line("\n'twofold models NAME' prints one in full; 'twofold predict PICTURE --model NAME' runs it.")


def _print_one(name: str, facts: dict[str, Any]) -> None:
    print_line(name)
    for key, value in facts.items():
        if key != "tasks" and value not in ("", None):
            print_line(f"  {key:9} {value}")
    for task, asked in facts["tasks"].items():
        print_line(f"  task {task}")
        for key, value in asked.items():
            print_line(f"    {key:10} {value}")


def _asked(name: str, how: TaskSettings) -> dict[str, Any]:
    from twofold.tasks import get_task

    protocol = how.protocol.__dict__
    settings = {k: v for k, v in protocol.items() if k != "kind" and not k.startswith("__")}
    reading = {
        "pad": how.pad,
        "guidance": how.guidance,
        "stretch": how.stretch,
        "clip": how.clip,
        "part": how.part,
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


def convert_checkpoint(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Anything that --model takes.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.")],
    method: Annotated[
        str,
        typer.Option(metavar="NAME", help="Which published model a folder holds, if its name is another."),
    ] = "",
    base: Annotated[
        str, typer.Option(metavar="DIR", help="Model that completes a checkpoint: its autoencoder, its text.")
    ] = "",
    revision: Annotated[str, typer.Option(help="Of a hub repository.")] = "",
    variant: Annotated[str, typer.Option(help="Of the weight files, such as fp16.")] = "",
    dtype: Annotated[
        str, typer.Option(help="float16, bfloat16 or float32: how weights are stored.")
    ] = "float16",
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            metavar="A", help="Of low-rank weights (LoRA) whose files do not say it; see their training."
        ),
    ] = None,
    drop_text: Annotated[
        bool,
        typer.Option(
            "--drop-text",
            help="Store the prompts' embeddings in place of the text encoder (340 M parameters).",
        ),
    ] = False,
    push: Annotated[
        str, typer.Option(metavar="REPO", help="Then upload the folder to this hub repository.")
    ] = "",
    layout: Annotated[
        str,
        typer.Option(help="twofold; or diff2in1: that program's two files of a normals head, in float32."),
    ] = "twofold",
    completed_by: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With diff2in1: a sn_ckpt of its authors, whose parts that are never run its program insists on.",
        ),
    ] = None,
) -> int:
    """Convert any readable checkpoint to twofold's own layout: one self-describing folder."""
    import torch

    from twofold.checkpoints import open_model, push_model, save_model

    dtype = parse_dtype(dtype)
    check_choice("--layout", layout, ("twofold", "diff2in1"))
    if completed_by is not None and layout != "diff2in1":
        raise CommandError("--completed-by is about --layout diff2in1")
    if layout == "diff2in1":
        refuse_unused(
            context, "with --layout diff2in1, which holds one head in float32", "dtype", "drop_text"
        )
    check_source(context, source)
    if push and layout != "twofold":
        raise CommandError("--push uploads twofold's own layout; leave out --layout")
    kind = getattr(torch, dtype)
    if out.exists():
        raise CommandError(f"{out} exists; a checkpoint is not overwritten, choose another folder")
    if layout == "diff2in1":
        opened = open_model(source, "cpu", torch.float32, method, base, revision or None, variant, lora_alpha)
        return _as_diff2in1(opened, out, completed_by)
    opened = open_model(source, "cpu", kind, method, base, revision or None, variant, lora_alpha)
    if drop_text:
        asked = opened.settings.tasks.values()
        prompts = ["", *(how.prompt for how in asked)]
        opened.backbone.cache_prompt_embeds(
            list(dict.fromkeys(prompts)), [how.prompt for how in asked if how.pad]
        )
    heads = dict(opened.heads)
    save_model(opened.backbone, opened.settings, out, kind, heads)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print_line(f"{out}/  {size / 2**20:.0f} MB, tasks: {', '.join(opened.tasks) or 'none'}")
    if push:
        print_line(push_model(out, push))
    return 0


def _as_diff2in1(opened: Model, out: Path, completed_by: Path | None) -> int:
    """The two files of a model's head of normals, as Diff-2-in-1's programs read them."""
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
        raise CommandError(
            f"{opened.name} paints normals in {frame}; convert it from the original files again"
        )
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_pair(head, partial / "checkpoint_0.pth", partial / "checkpoint_bae_0.pth", completed_by)
    partial.rename(out)
    print_line(f"{out}/checkpoint_0.pth (--sn_ckpt) and {out}/checkpoint_bae_0.pth (--bae_ckpt)")
    if completed_by is None:
        print_line(
            "its program also insists on parts that are never run: --completed-by takes them from a file of its own"
        )
    return 0
