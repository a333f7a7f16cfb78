"""The commands of the documentation are run, page by page and in its order, in a folder that has what they read.

Changes make them small (`SMALLER`): last values of an option win. Those that are not run have a reason (`NOT_RUN`).
Commands with published weights are run up to the point where offline mode ends them; `INSTEAD` then runs them again
with the embedded model where later commands read their results.
"""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import test_hub
import world
from doc_blocks import ROOT, Block, blocks, commands_of, programs
from trees import indoor, seg
from twofold.cli.main import run
from twofold.data import Folder

NOT_RUN = {
    r"pip install|make |bash \.ci/run": "installs packages or runs all tests",
    r"torchrun": "starts processes; tests/test_train_team.py does",
    r"convert-checkpoint models/ldm|--model DIR|convert-checkpoint DIR|recipes/diff2in1.py:second_stage"
    r"|convert-checkpoint runs/diff2in1|diff2in1-warm-up/|diff2in1-official-warm-up/"
    r"|DIR/nyu": "needs weights of Stable Diffusion; tests/test_diff2in1_commands.py runs these with tiny ones",
    r"--predictions ab1": "files of the original program; tests/test_evaluate_diff2in1.py scores such ones",
    r"train recipes/table4.py:lora_16$": "full size",
    r"data caption": "needs a captioner's weights; tests/test_captions.py runs it with a tiny one",
}
# Weights that are not inside the package.
ONLINE = re.compile(r"(marigold|genpercept|e2e-ft|lotus)-|downloads/")
TRAINING = (
    "--device cpu --set loop.steps=2 --set data.size=[32,32] --set loop.save_every=2 --set validation.every=2 "
    "--set loop.batch_size=1"
)
SMALLER = {
    "train": f"{TRAINING} --tracker none",
    "improve": f"{TRAINING} --steps 2 --size 64",
    "create": "--steps 2 --size 64 --scoring cheap --batch 2",
    "generate": "--steps 2 --size 64x48 --count 2",
    "render": "--count 1 --size 64x48 --spp 1 --workers 1",
    "predict": "--size 64",
    "evaluate": "--no-images",
    "metrics": "--pixels 64",
    "benchmarks/create.py": "--heads bae --batches 1 --size 64x48 --turns 1",
    "benchmarks/lab.py": "--rows lora_16 --seeds 1 --steps 2 --count 2",
}
INSTEAD = {"genpercept-depth": "embedded", "prs-eth/marigold-depth-v1-0": "embedded"}
PAGES = sorted({block.page for block in blocks() if block.language == "sh"})


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    fill(tmp_path)
    return tmp_path


def fill(place: Path) -> None:
    """All files that the pages assume."""
    balls = [world.sphere(seed).image for seed in range(3)]
    for name, image in zip(("photo.jpg", "shots/1.png", "more/a/b.png"), balls, strict=True):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).save(place / name)
    for name in ("generated-a", "generated-b"):
        shutil.copytree(place / "more" / "a", place / name)
        shutil.copy(place / "photo.jpg", place / name)
    for name in ("mine", "mine-val", "rooms", "rooms-dev"):
        world.rich_folder(place / "data" / name, 2)
    (place / "recipes").symlink_to(ROOT / "recipes")
    indoor.nyuv2_marigold(place / "NYU")
    indoor.nyuv2_marigold(place / "raw" / "nyuv2")
    indoor.hypersim(place / "TREE")
    indoor.nyuv2_bae(place / "dataset" / "nyu")
    shutil.copytree(place / "dataset" / "nyu" / "test", place / "dataset" / "nyu" / "train")
    seg.dis5k(place / "raw")
    found = test_hub.table(2)
    found = found.rename_columns(["depth_map" if name == "depth" else name for name in found.column_names])
    test_hub.write_saved(place / "saved" / "train", found)
    (place / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    for i in range(2):
        seg.photo(place / f"mine/photos/{i}.jpg", i)
        seg.save(place / f"mine/masks/{i}.png", 255 * np.eye(*seg.SIZE))


def store_predictions(data: Path, out: Path) -> None:
    """Maps of another tool for a data folder: the targets."""
    for sample in Folder(data):
        path = out / f"{sample.id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, sample.targets["depth"][0].numpy())


def not_run(text: str) -> str:
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, text)), "")


def words_of(words: tuple[str, ...]) -> list[str]:
    """The command with its changes, and with absolute paths inside the sandbox."""
    kind = words[1]
    added = [] if "compare" in words else SMALLER.get(kind, "").split()
    if kind in ("train", "improve") and "--smoke-test" in words:
        added = [
            "--device",
            "cpu",
            "--tracker",
            "none",
            "--set",
            "loop.steps=2",
            "--set",
            "validation.num_samples=2",
        ]
    return [re.sub(r"^/data/", "raw/", word) for word in words] + added


def execute(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a command; one that needs weights of the hub must get as far as them."""
    text, changed = " ".join(words), words_of(words)
    if words[0] == "python":
        monkeypatch.setattr(sys, "argv", changed[1:])
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        return
    if "--predictions" in words:
        store_predictions(*(Path(words[words.index(option) + 1]) for option in ("--data", "--predictions")))
    capsys.readouterr()
    code = run(changed[1:])
    error = capsys.readouterr().err
    if words[1] in ("predict", "evaluate", "convert-checkpoint") and ONLINE.search(text):
        assert code == 2 and re.search("HF_HUB_OFFLINE is set|its files are on a cloud drive", error), (
            f"{text}: exit code {code}\n{error}"
        )
        if set(words) & set(INSTEAD):
            execute(tuple(INSTEAD.get(word, word) for word in words), capsys, monkeypatch)
        return
    assert code == 0, f"{text}: exit code {code}\n{error}"


def own_recipe(block: Block) -> str:
    """The text of ``mine.py``, if the block is one."""
    return block.text if block.language == "python" and "# mine.py" in block.text else ""


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, sandbox, capsys, monkeypatch):
    # README refers to docs/training.md for its recipe.
    Path("mine.py").write_text(next(filter(None, map(own_recipe, programs("docs/training.md")))))
    for block in blocks():
        if block.page != page:
            continue
        if recipe := own_recipe(block):
            # Another network under the same name: a reader has another folder for it.
            shutil.rmtree("runs", ignore_errors=True)
            Path("mine.py").write_text(recipe)
        if block.page == "docs/data.md" and block.language == "python":
            exec(compile(block.text, str(block), "exec"), {})
        if block.language == "sh":
            for command in commands_of(block):
                if not not_run(" ".join(command.words)):
                    execute(command.words, capsys, monkeypatch)


def test_every_exception_is_of_a_command():
    texts = [" ".join(c.words) for block in blocks() if block.language == "sh" for c in commands_of(block)]
    for pattern in (p for patterns in NOT_RUN for p in patterns.split("|")):
        assert any(re.search(pattern, text) for text in texts), (
            f"{pattern}: no command has it; delete the exception"
        )
    for words in INSTEAD:
        assert any(words in text.split() for text in texts), words
