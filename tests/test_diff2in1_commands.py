"""The four commands of Diff-2-in-1's released code, as ours, in its folders: warm-up, creation, second stage, test."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

import official
import world
from twofold.backbones import new
from twofold.backbones.stable_diffusion import save_components
from twofold.checkpoints import Model, open_model
from twofold.checkpoints.diff2in1 import official_tensors
from twofold.checkpoints.diff2in1_names import DECODER, FUSION
from twofold.cli.main import run
from twofold.compat.diff2in1_folders import index_official, quantize_normals
from twofold.data.folder import Folder
from twofold.data.layout import FolderError
from twofold.data.writer import FolderWriter
from twofold.heads import BaeHead, make_head
from twofold.image import read_image, write_image
from twofold.image.square import map_resized_to_square, resized_to_square
from twofold.protocols import OneStep
from twofold.sample import Sample
from twofold.train import Recipe
from twofold.train.recipe_loader import recipes

RECIPES = Path(__file__).parents[1] / "recipes" / "diff2in1.py"
PAGE = Path(__file__).parents[1] / "docs" / "diff2in1.md"
WEIGHTS = "TWOFOLD_DIFF2IN1"  # a folder with weights/ and nyu/
TRAIN, TEST = ("000002", "000003", "000004", "001439"), ("000000", "001448")
H, W = 48, 64


def split_of_nyu(folder: Path, names: tuple[str, ...]) -> None:
    """Images, normals (8 bits, x to the left, black along the border) and captions, as in Bae's package."""
    for part in ("img", "norm", "caption"):
        (folder / part).mkdir(parents=True)
    for seed, name in enumerate(names):
        ball = world.sphere(seed, W)
        known = torch.zeros(1, H, W, dtype=torch.bool)
        known[:, 3:-3, 4:-4] = True
        write_image(folder / "img" / f"{name}.png", ball.image[:, 8:-8])
        write_image(
            folder / "norm" / f"{name}.png", quantize_normals(ball.targets["normals"][:, 8:-8], known)
        )
        (folder / "caption" / f"{name}.txt").write_text(f"a ball\n of {name}\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The tree as the readme has it, a tiny Stable Diffusion, and what each of our commands left."""
    root = tmp_path_factory.mktemp("diff2in1")
    split_of_nyu(root / "dataset" / "nyu" / "train", TRAIN)
    split_of_nyu(root / "dataset" / "nyu" / "test", TEST)
    save_components(new.tiny(), root / "sd", torch.float32)
    nyu = str(root / "dataset" / "nyu")
    convert(root, "diff2in1", nyu, "train", "nyu")
    convert(root, "nyuv2-bae", nyu, "test", "nyu-test")
    # 1. training_1st_stage.py
    train(root, "warm_up", "warm", root / "sd", [{"path": str(root / "data" / "nyu")}])
    # 2. data_creation.py
    assert run([*created(root), "--compat", "official", "--layout", "official"]) == 0
    # As the readme describes; and as one folder of real and created samples that is read by their names.
    merged_by_hand(root)
    for kind in ("real", "created"):
        convert(root, "diff2in1", str(root / "dataset" / "nyu_nyu_T600"), f"train-{kind}", f"merged-{kind}")
    # 3. training_2nd_stage.py
    sources = [
        {"path": str(root / "data" / "merged-real"), "share": 4},
        {"path": str(root / "data" / "merged-created"), "share": 4, "labels": "teacher"},
    ]
    train(root, "second_stage", "second", root / "runs" / "warm" / "checkpoint", sources)
    # 4. test.py and evaluation.py
    assert run([*evaluated(root, "report"), "--model", str(root / "runs" / "second" / "checkpoint")]) == 0
    return root


def convert(root: Path, name: str, tree: str, split: str, out: str) -> None:
    assert run(["data", "convert", name, tree, "--split", split, "--out", str(root / "data" / out)]) == 0


def train(root: Path, recipe: str, out: str, start: Path, sources: list, **changes) -> None:
    changes |= {"model.init_from": str(start), "data.sources": sources}
    changes |= {"data.size": [H, W], "loop.steps": 2, "loop.batch_size": 4, "loop.save_every": 1}
    settings = [x for k, v in changes.items() for x in ("--set", f"{k}={json.dumps(v)}")]
    command = ["train", f"{RECIPES}:{recipe}", "--out", str(root / "runs" / out), *settings]
    assert run([*command, "--device", "cpu", "--tracker", "none"]) == 0


def created(root: Path) -> list[str]:
    model = str(root / "runs" / "warm" / "checkpoint")
    out = str(root / "created")
    source = str(root / "dataset" / "nyu" / "train")
    small = ["--steps", "4", "--size", "64", "--scoring", "cheap"]
    return ["create", source, "--model", model, "--task", "normals", "--out", out, *small]


def merged_by_hand(root: Path) -> None:
    """What is created beside what is real, each under the name it has."""
    real, made = root / "dataset" / "nyu" / "train", root / "created" / "nyu_nyu_T600" / "train"
    out = root / "dataset" / "nyu_nyu_T600" / "train"
    for part in ("img", "norm", "caption"):
        shutil.copytree(real / part, out / part)
        for path in (made / part).glob("*syn_*"):
            shutil.copy(path, out / part)


def evaluated(root: Path, out: str) -> list[str]:
    data = str(root / "data" / "nyu-test")
    return [
        "evaluate",
        "--benchmark",
        "nyuv2-normals-bae",
        "--data",
        data,
        "--out",
        str(root / out),
        "--no-images",
    ]


def head_of(model: Model) -> BaeHead:
    head = model.heads["normals"]
    assert isinstance(head, BaeHead)
    return head


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.heads["normals"].state_dict().items()}


def test_the_tree_is_read_in_its_own_encodings(place):
    folder = Folder(place / "data" / "nyu")
    assert folder.ids == tuple(f"train/{name}" for name in TRAIN)
    truth = world.sphere(1, W).targets["normals"][:, 8:-8]
    sample = folder[1]
    assert sample.caption == "a ball of 000003"
    known = sample.valid["normals"]
    assert int(known.sum()) == (H - 6) * (W - 8)
    off = torch.rad2deg(torch.acos((sample.targets["normals"] * truth).sum(0).clamp(-1, 1)))[known[0]]
    assert off.max() < 1  # 8 bits, and x turned back to the right
    assert [s.image.shape for s in Folder(place / "data" / "nyu-test")] == [(3, H, W)] * 2


def test_the_warm_up_leaves_a_head_on_a_network_that_is_as_it_was(place):
    model = open_model(str(place / "runs" / "warm" / "checkpoint"))
    how = model.settings.tasks["normals"]
    assert (how.head, how.prompt, how.protocol, how.frame) == ("bae", "", OneStep(timestep=0), "RUB")
    before = open_model(str(place / "sd")).backbone.unet.state_dict()
    after = model.backbone.unet.state_dict()
    assert all(torch.equal(after[k].half(), before[k].half()) for k in before)


def test_created_samples_are_read_back_from_their_folders(place):
    made = Folder(place / "created")
    assert [s.image.shape for s in made] == [(3, 64, 64)] * 4
    again = index_official(place / "created" / "nyu_nyu_T600" / "train", place / "index")
    assert [Path(row["file_name"]).name[0] == "r" for row in again.rows] == [False] * 4 + [True] * 4
    real = Folder(place / "data" / "nyu")
    for i, sample in enumerate((*real, *made)):
        back = again[i]
        assert torch.equal(back.image, sample.image)
        assert back.caption == sample.caption
        assert torch.equal(back.valid["normals"], sample.valid["normals"])
        known = sample.valid["normals"][0]
        apart = (back.targets["normals"] - sample.targets["normals"]).norm(dim=0)[known]
        assert apart.max() < 0.01  # half a level in each of three numbers
    # As in that code: the mask is the whole image.
    assert all(bool(s.valid["normals"].all()) for s in made)


def test_merged_by_hand_or_by_us_is_the_same_folder(place):
    """The first letter of an image's name is that of its creator, in both layouts."""
    ours = index_official(place / "created" / "nyu_nyu_T600" / "train", place / "index-2")
    reference = index_official(place / "dataset" / "nyu_nyu_T600" / "train", place / "index-3")
    assert len(ours) == len(reference) == 8
    for a, b in zip(ours, reference, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.targets["normals"], b.targets["normals"])
        assert (a.caption, world.origin_of(a).kind) == (b.caption, world.origin_of(b).kind)
    real, new_ones = (Folder(place / "data" / f"merged-{k}") for k in ("real", "created"))
    assert real.ids == tuple(f"train/{name}" for name in TRAIN)
    assert new_ones.ids == tuple(f"train/rgb_syn_{k}" for k in (1, 2, 3, 4))
    assert {world.origin_of(s).kind for s in new_ones} == {"synthetic"}
    assert new_ones.rows[2]["targets"]["normals"]["path"] == "train/norm/sn_syn_3.png"


def test_a_folder_in_which_the_order_pairs_nothing_is_refused(place, tmp_path):
    shutil.copytree(place / "dataset" / "nyu_nyu_T600", tmp_path / "nyu_nyu_T600")
    out = ["--split", "train", "--out", str(tmp_path / "out")]
    (tmp_path / "nyu_nyu_T600" / "train" / "caption" / "rgb_syn_2.txt").unlink()
    with pytest.raises(FolderError, match="8 in img, 8 in norm, 7 in caption"):
        index_official(tmp_path / "nyu_nyu_T600" / "train", tmp_path / "index")
    assert run(["data", "convert", "diff2in1", str(tmp_path / "nyu_nyu_T600"), *out]) == 2
    (tmp_path / "nyu_nyu_T600" / "train" / "caption" / "rgb_syn_2.png").touch()
    with pytest.raises(FolderError, match=r"rgb_syn_2\.png is no \.txt file"):
        index_official(tmp_path / "nyu_nyu_T600" / "train", tmp_path / "index")


def test_the_second_stage_saves_teacher_and_student(place):
    warm, kept = (weights(open_model(str(place / "runs" / n / "checkpoint"))) for n in ("warm", "second"))
    state = torch.load(place / "runs" / "second" / "state.pt", weights_only=True)
    moved = max(float((v - state["weights"][k]).abs().max()) for k, v in state["ema"].items())
    assert moved > 1e-5  # the student has been trained
    assert warm.keys() == kept.keys()  # 8 images do not update a teacher that is updated every 40
    assert all(torch.equal(warm[k], kept[k]) for k in warm)
    assert [s.labels for s in Recipe.read(place / "runs" / "second" / "recipe.json").data.sources] == [
        "stored",
        "teacher",
    ]


def test_the_documented_improve_command_runs_from_the_warm_up(place, tmp_path):
    """The warm-up recipe keeps no average (ema=0); self-improving adds the published EMA teacher."""
    command = re.search(r"`(twofold improve recipes/diff2in1\.py:warm_up [^`]*)`", PAGE.read_text())
    assert command
    words = shlex.split(command[1])[1:]
    words[1] = f"{RECIPES}:warm_up"
    words[words.index("model.init_from=runs/diff2in1-warm-up/checkpoint")] = (
        f"model.init_from={place / 'runs/warm/checkpoint'}"
    )
    words[words.index("--steps") + 1] = "2"
    sources = json.dumps([{"path": str(place / "data" / "nyu")}])
    small = {
        "data.size": [H, W],
        "loop.steps": 2,
        "loop.batch_size": 4,
        "loop.save_every": 1,
        "data.sources": sources,
    }
    settings = [x for k, v in small.items() for x in ("--set", f"{k}={v}")]
    assert run([*words, *settings, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    plan = json.loads((tmp_path / "run" / "improvement.json").read_text())
    assert plan["recipe"]["ema"] == {"decay": 0.998, "update_every": 40}


def test_the_test_scores_by_bae_s_rules_beside_the_published_rows(place):
    report = json.loads((place / "report" / "report.json").read_text())
    assert report["counts"]["evaluated"] == 2
    assert report["protocol"]["id"].startswith("normal/bae@")
    assert 0 < report["scores"]["mean"] < 180
    assert 0 <= report["scores"]["below_30"] <= 100
    record = (place / "report" / "report.md").read_text()
    assert "500 synthetic pictures" in record and "12.7" in record


@pytest.fixture(scope="module")
def pair(place):
    """The warmed-up head as sn_ckpt and bae_ckpt, in ``pair``; and from there in our layout again, in ``back``."""
    ours = str(place / "runs" / "warm" / "checkpoint")
    assert run(["convert-checkpoint", ours, str(place / "pair"), "--layout", "diff2in1"]) == 0
    command = ["convert-checkpoint", str(place / "pair"), str(place / "back"), "--base", str(place / "sd")]
    assert run([*command, "--dtype", "float32", "--method", "diff2in1-normals-official"]) == 0
    return place


def test_an_exported_head_is_imported_unchanged(pair, capsys):
    """With x to the left in the files."""
    ours = open_model(str(pair / "runs" / "warm" / "checkpoint"))
    first, second = (
        torch.load(pair / "pair" / f"checkpoint_{n}.pth", weights_only=True) for n in ("0", "bae_0")
    )
    assert set(FUSION.values()) < set(first)
    assert set(DECODER.values()) == set(second)
    encoded = ours.heads["normals"].get_parameter("decoder.predict.bias")
    assert torch.equal(second["out_conv_res8.bias"], encoded * torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    for name in ("pair", "back"):
        found = weights(open_model(str(pair / name), base=str(pair / "sd") if name == "pair" else ""))
        assert all(torch.equal(v, found[k]) for k, v in weights(ours).items())
    assert open_model(str(pair / "back")).settings.edge == "both"
    assert run(["convert-checkpoint", str(pair / "sd"), str(pair / "none"), "--layout", "diff2in1"]) == 2
    assert "no bae head for normals" in capsys.readouterr().err


def test_what_only_its_program_misses_is_taken_from_a_file_of_its_own(pair, capsys):
    table = torch.load(pair / "pair" / "checkpoint_0.pth", weights_only=True) | {
        "to_k.weight": torch.ones(2, 3)
    }
    torch.save(table, pair / "theirs.pth")
    command = ["convert-checkpoint", str(pair / "back"), str(pair / "whole"), "--layout", "diff2in1"]
    assert run([*command, "--completed-by", str(pair / "theirs.pth")]) == 0
    assert "also insists" not in capsys.readouterr().out
    found = torch.load(pair / "whole" / "checkpoint_0.pth", weights_only=True)
    assert found.keys() == table.keys()
    assert all(torch.equal(found[k], v) for k, v in table.items())
    for wrong, output in (
        (["--layout", "twofold"], "has no effect without --layout diff2in1"),
        (["--push", "a/b"], "leave it out"),
    ):
        command = ["convert-checkpoint", str(pair / "back"), str(pair / "wrong"), "--layout", "diff2in1"]
        assert run([*command, "--completed-by", str(pair / "theirs.pth"), *wrong]) == 2
        assert output in capsys.readouterr().err


def test_training_goes_on_from_the_two_files(pair):
    """--sn_ckpt and --bae_ckpt of the second stage: their head, and not a fresh one, is where it starts."""
    sources = [{"path": str(pair / "data" / "nyu")}]
    train(pair, "second_stage", "from-pair", pair / "back", sources)
    before, after = (weights(open_model(str(pair / n))) for n in ("back", "runs/from-pair/checkpoint"))
    assert all(
        torch.equal(before[k].half(), after[k].half()) for k in before
    )  # the teacher has not moved yet


def test_images_are_resized_to_a_square_as_its_programs_do(place):
    """The converter's numbers are those of its own way of reading a file, tested against it elsewhere."""
    tree = place / "dataset" / "nyu"
    convert(place, "diff2in1-squeezed", str(tree), "train", "squeezed")
    sample, native = Folder(place / "data" / "squeezed")[0], Folder(place / "data" / "nyu")[0]
    rgb = (native.image * 255).round().byte()
    torch.testing.assert_close(
        sample.image.double(), resized_to_square(rgb.double() / 255), rtol=0, atol=1e-6
    )
    stored = (read_image(tree / "train" / "norm" / "000002.png") * 255).round().byte()
    normals, valid = map_resized_to_square(stored.double() / 255 * 2 - 1, (stored != 0).any(0, keepdim=True))
    assert torch.equal(sample.valid["normals"], valid)
    apart = (sample.targets["normals"] * torch.tensor([-1.0, 1, 1])[:, None, None] - normals).abs()[
        :, valid[0]
    ]
    assert apart.max() < 0.01
    assert run(["data", "validate", str(place / "data" / "squeezed")]) == 0


def test_ids_are_resized_by_nearest_and_invalid_headers_are_refused(tmp_path):
    ids = torch.tensor([[1.0, 1, 9, 9], [1, 1, 9, 9]])[None]
    writer = FolderWriter(tmp_path, {"name": "ids", "squeeze": 6, "targets": {"semantic": {"codec": "npy"}}})
    writer.write(Sample(torch.rand(3, 2, 4), {"semantic": ids}, {"semantic": ids < 9}, id="one"))
    writer.finish()
    sample = Folder(tmp_path)[0]
    assert sample.image.shape == (3, 6, 6)
    expected = torch.tensor([True, True, True, False, False, False]).expand(1, 6, 6)
    assert torch.equal(sample.valid["semantic"], expected)
    assert torch.equal(sample.targets["semantic"], expected.to(sample.targets["semantic"].dtype))
    header = json.loads((tmp_path / "dataset.json").read_text())
    for wrong in ("small", -1, 1.5):
        (tmp_path / "dataset.json").write_text(json.dumps({**header, "squeeze": wrong}))
        with pytest.raises(FolderError, match="squeeze is an edge in pixels, such as 512, not"):
            Folder(tmp_path)[0]


def test_the_page_s_program_begins_from_bae_s_decoder(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "sd", "sd15")
    like = make_head("bae", open_model("sd15").backbone, 3)
    table = official.filled(official.decoder(like.config["widths"]))
    torch.save({"model": {f"module.decoder.{k}": v for k, v in table.items()}, "iter": 3}, "nyu.pt")
    (program,) = PAGE.read_text().split("```python\n")[1:]
    exec(program.partition("```")[0], {})
    _, found = official_tensors(head_of(open_model("sd15-bae")))
    assert all(torch.equal(found[k], v.half().float()) for k, v in table.items())
    sources = [{"path": str(place / "data" / "nyu")}]
    train(place, "warm_up", "from-bae", tmp_path / "sd15-bae", sources, **{"optimizer.lr": 1e-9})
    _, after = official_tensors(head_of(open_model(str(place / "runs" / "from-bae" / "checkpoint"))))
    assert all(torch.allclose(after[k], v, atol=1e-3) for k, v in found.items())


def test_the_page_names_every_recipe_and_only_those():
    text = PAGE.read_text()
    for name in re.findall(r"diff2in1\.py:(\w+)", text):
        assert name in recipes(RECIPES)
    assert {name for name in recipes(RECIPES) if f"`{name}`" not in text and f":{name}`" not in text} == set()


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_published_numbers_with_the_published_weights(tmp_path):
    """Needs the two released files and model.ckpt in weights/, and Bae's package in nyu/."""
    root, nyu = Path(os.environ.get(WEIGHTS, "")), str(tmp_path / "nyu")
    if not os.environ.get(WEIGHTS):
        pytest.skip(
            f"{WEIGHTS} names no folder with weights/ and nyu/: the published numbers are not checked"
        )
    assert run(["data", "convert", "nyuv2-bae", str(root / "nyu"), "--split", "test", "--out", nyu]) == 0
    command = [
        "evaluate",
        "--benchmark",
        "nyuv2-normals-bae",
        "--data",
        str(tmp_path / "nyu"),
        "--no-images",
    ]
    model = ["--model", str(root / "weights"), "--method", "diff2in1-normals-official"]
    assert run([*command, *model, "--out", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["counts"]["evaluated"] == 654
    found = {k: report["scores"][k] for k in ("mean", "median", "rmse", "below_30")}
    assert found == pytest.approx({"mean": 12.7, "median": 6.0, "rmse": 21.6, "below_30": 88.2}, abs=0.2)
