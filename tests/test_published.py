"""Every published layout, at its full size in keys and shapes, and each way in which one can be wrong."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import layouts
from twofold.backbones import new
from twofold.checkpoints import PUBLISHED, ModelError, ModelSettings, find_published, open_model, save_model
from twofold.checkpoints.lora import DefaultAlpha, merge_file
from twofold.checkpoints.names import modern_vae
from twofold.checkpoints.weights import read_file
from twofold.protocols import MultiStep, Noise, OneStep
from twofold.tasks import TASKS


@pytest.mark.parametrize("key", PUBLISHED)
def test_every_published_layout_opens_strictly(key, tmp_path):
    folder, base = layouts.write_published(key, tmp_path)
    model = open_model(str(folder), device="meta", base=base)
    row = PUBLISHED[key]
    assert model.tasks == tuple(row.tasks)
    assert all((how.task or name) in TASKS for name, how in row.tasks.items())
    assert model.backbone.input_channels == next(iter(row.tasks.values())).protocol.channels(4)
    assert sum(p.numel() for p in model.backbone.unet.parameters()) > 850_000_000


def test_the_table_is_found_by_every_name():
    assert find_published("guangkaixu/genpercept-normal") == "genpercept-normal"
    assert find_published("somebody/genpercept-normal") is None
    for key, row in PUBLISHED.items():
        assert find_published(key) == key
        if sum(r.source == row.source for r in PUBLISHED.values()) == 1:
            assert find_published(row.source) == key
    with pytest.raises(ModelError, match=r"has several models.*genpercept-depth"):
        open_model("guangkaixu/genpercept-models")
    with pytest.raises(ModelError, match="cloud drive"):
        open_model("dmp-depth")


@pytest.fixture
def genpercept(tmp_path):
    """A GenPercept checkpoint and its base."""
    return layouts.write_published("genpercept-depth", tmp_path)


def test_genpercept_opens_flat_nested_and_by_its_network(genpercept, tmp_path):
    folder, base = genpercept
    inner = open_model(str(folder / "unet_depth_v2"), device="meta", method="genpercept-depth", base=base)
    assert inner.tasks == ("depth",)
    run = tmp_path / "ablation-run"
    (folder / "unet_depth_v2").rename(tmp_path / "unet")
    run.mkdir()
    (tmp_path / "unet").rename(run / "unet")
    whole = layouts.write_base(tmp_path / "whole")
    assert open_model(str(run), device="meta", method="genpercept-depth", base=str(whole)).tasks == ("depth",)


def test_a_fine_tuned_decoder_replaces_the_base_s(tmp_path):
    folder, _ = layouts.write_published("genpercept-depth", tmp_path)
    run, whole = tmp_path / "run", layouts.write_base(tmp_path / "whole")
    run.mkdir()
    (folder / "unet_depth_v2").rename(run / "unet")
    names = layouts.shapes(layouts.vae())
    for part, prefix in (("vae_decoder", "decoder."), ("vae_post_quant_conv", "post_quant_conv.")):
        chosen = {k.removeprefix(prefix): v for k, v in names.items() if k.startswith(prefix)}
        layouts.sparse(run / part / "model.safetensors", chosen)
    open_model(str(run), device="meta", method="genpercept-depth", base=str(whole))
    layouts.sparse(run / "vae_post_quant_conv" / "model.safetensors", {"weight": (4, 4, 1, 1)})
    with pytest.raises(ModelError, match=r"lacks the tensor post_quant_conv\.bias; expected all tensors"):
        open_model(str(run), device="meta", method="genpercept-depth", base=str(whole))
    both = {"weight": (4, 4, 1, 1), "bias": (4,), "more": (4,)}
    layouts.sparse(run / "vae_post_quant_conv" / "model.safetensors", both)
    with pytest.raises(ModelError, match=r"unexpected tensor post_quant_conv\.more"):
        open_model(str(run), device="meta", method="genpercept-depth", base=str(whole))


def test_a_path_without_the_network_is_not_replaced_by_the_base(tmp_path):
    """The original code warns and goes on with the untrained network."""
    whole = layouts.write_base(tmp_path / "whole")
    empty = tmp_path / "genpercept-depth"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"neither unet_depth_v2/config\.json nor unet/config\.json"):
        open_model(str(empty), device="meta", base=str(whole))


def test_lora_runs_in_peft_s_names_are_merged(tmp_path):
    folder, base = layouts.write_published("genpercept-depth", tmp_path)
    module = layouts.unet()
    names = {}
    for key, shape in layouts.shapes(module).items():
        layer = key.rsplit(".", 1)[0]
        if ".attn" in key and layer.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")):
            names[f"{layer}.base_layer.{key.rsplit('.', 1)[1]}"] = shape
            if key.endswith(".weight"):
                names[f"{layer}.lora_A.default.weight"] = (4, shape[1])
                names[f"{layer}.lora_B.default.weight"] = (shape[0], 4)
        else:
            names[key] = shape
    assert len(names) == 942
    layouts.sparse(folder / "unet_depth_v2" / "diffusion_pytorch_model.safetensors", names)
    open_model(str(folder), device="meta", base=base)
    lost = next(k for k in names if ".lora_B." in k)
    layouts.sparse(
        folder / "unet_depth_v2" / "diffusion_pytorch_model.safetensors",
        {k: v for k, v in names.items() if k != lost},
    )
    with pytest.raises(ModelError, match="lora_B"):
        open_model(str(folder), device="meta", base=base)
    for kept in (lambda k: k != lost.replace("lora_B", "lora_A"), lambda k: ".lora_" not in k):
        layouts.sparse(
            folder / "unet_depth_v2" / "diffusion_pytorch_model.safetensors",
            {k: v for k, v in names.items() if kept(k)},
        )
        with pytest.raises(ModelError, match=r"lora_A|no low-rank weights"):
            open_model(str(folder), device="meta", base=base)


@pytest.mark.parametrize("second", [False, True], ids=["1.x", "2.x"])
def test_single_files_open_strictly(second, tmp_path):
    path = tmp_path / "model.safetensors"
    names = ldm_shapes(second)
    layouts.sparse(path, names)
    model = open_model(str(path), device="meta")
    assert model.backbone.schedule.prediction_type == ("v" if second else "epsilon")
    assert sum(p.numel() for p in model.backbone.unet.parameters()) == (
        865_910_724 if second else 859_520_964
    )
    for changed, message in (
        ({"model.diffusion_model.out.2.bias": None}, "tensors"),
        ({"model.diffusion_model.out.2.bias": (5,)}, r"conv_out\.bias has shape \(5,\)"),
        ({"model.diffusion_model.surplus.bias": (5,)}, "known"),
        ({"control_model.middle.weight": (5,)}, r"unexpected tensor control_model\.middle\.weight"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (320, 8, 3, 3)}, "takes 8 channels.*--method"),
    ):
        broken = {k: v for k, v in {**names, **changed}.items() if v is not None}
        layouts.sparse(path, broken)
        with pytest.raises(ModelError, match=message):
            open_model(str(path), device="meta")


def ldm_shapes(second):
    """Keys and shapes of a CompVis file, made by running diffusers' renaming tables backwards."""
    import ldm_names

    module = layouts.unet(second=second)
    out = {f"model.diffusion_model.{ldm_names.unet(k)}": v for k, v in layouts.shapes(module).items()}
    vae = layouts.old_vae(layouts.shapes(layouts.vae()))
    out |= {f"first_stage_model.{ldm_names.vae(k)}": v for k, v in vae.items()}
    out |= ldm_names.text(layouts.shapes(layouts.text_encoder(second)), second)
    out |= {"model_ema.decay": (1,), "first_stage_model.loss.logvar": (1,)}
    return out | {"betas": (1000,), "alphas_cumprod": (1000,)}


def test_a_single_file_without_a_tokenizer_is_reported(tmp_path, monkeypatch):
    """The file has none; a base provides one, and without a base the first prompt raises advice."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = tmp_path / "model.safetensors"
    layouts.sparse(path, ldm_shapes(False))
    model = open_model(str(path), device="meta")
    with pytest.raises(ValueError, match=r"no tokenizer.*--base"):
        model.backbone.embed([""])
    with pytest.raises(ModelError, match="no tokenizer"):
        save_model(model.backbone, model.settings, tmp_path / "out")
    layouts.write_text(tmp_path / "base", second=False)
    assert open_model(str(path), device="meta", base=str(tmp_path / "base")).backbone.tokenizer is not None


# Expected values of the table, written again by hand: the tests above rely on the table.


PINNED = {
    "marigold-depth-v1-0": MultiStep(10, spacing="leading", offset=1, final="prev"),
    "marigold-depth-v1-1": MultiStep(4, spacing="trailing", final="prev"),
    "marigold-normals-lcm-v0-1": MultiStep(1, sampler="lcm", final="prev"),
    "marigold-iid-lighting-v1-1": MultiStep(4, final="prev", num_outputs=3),
    "genpercept-seg": OneStep(1, "v", train_timesteps="random"),
    "e2e-ft-sd-normals": MultiStep(1, start="zeros", spacing="trailing", final="x0", noise=Noise(0.00085, 0.012)),
    "lotus-depth-g-v2-0-disparity": OneStep(
        999, "x0", "concat", "gaussian", encode="sample", class_labels=(0.8414709848, 0.0, 0.5403023059, 1.0)
    ),
    "lotus-normal-d-v1-1": OneStep(
        999, "x0", "replace", encode="sample", class_labels=(0.8414709848, 0.0, 0.5403023059, 1.0)
    ),
    "dmp-depth": MultiStep(
        5, start="image", condition="replace", spacing="leading", final="prev", encode="sample",
        noise=Noise(prediction_type="v"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", PINNED)
def test_the_table_s_protocols_are_those_of_the_papers(key):
    for how in PUBLISHED[key].tasks.values():
        record, expected = how.protocol, PINNED[key]
        labels = record.class_labels
        if labels is not None:
            assert labels == pytest.approx(expected.class_labels, abs=1e-9)
            record = replace(record, class_labels=expected.class_labels)
        assert record == expected


def test_the_table_s_readings_are_those_of_the_papers():
    def of(what):
        rows = {k: next(iter(row.tasks.values())) for k, row in PUBLISHED.items()}
        return {k for k, how in rows.items() if what(how)}

    padded = of(lambda how: how.pad)
    assert padded == {k for k in PUBLISHED if k.endswith("-v1") or k.startswith(("dmp", "diff2in1"))}
    e2e = {"e2e-ft-marigold-depth", "e2e-ft-sd-depth"}
    assert of(lambda how: how.minmax_normalize) == e2e | {
        "genpercept-disparity-dpt-head",
        "genpercept-depth-v1",
    }
    lotus = {k for k in PUBLISHED if k.startswith("lotus")}
    normals = {k for k in PUBLISHED if "normal" in k}
    without = {"e2e-ft-marigold-normals", "e2e-ft-sd-normals"}
    assert of(lambda how: how.clip == "channels") == lotus | (normals - without)
    assert of(lambda how: how.clip == "lower") == {"dmp-depth"}
    back = {"genpercept": "antialias", "e2e": "antialias", "lotus": "nearest", "dmp": "bicubic"}
    for key, row in PUBLISHED.items():
        assert {how.resize for how in row.tasks.values()} == {back.get(key.split("-")[0], "bilinear")}, key
        assert {how.odd_sizes for how in row.tasks.values()} == {"pad"}, key
    left = {k for k in PUBLISHED if "normal" in k and k.startswith(("lotus", "e2e"))}
    assert of(lambda how: how.frame == "LUB") == left
    assert of(lambda how: how.space == "disparity") == {k for k in PUBLISHED if "disparity" in k}
    assert of(lambda how: how.space == "linear") == {"marigold-iid-lighting-v1-1"}
    assert {k for k, row in PUBLISHED.items() if row.edge == "shortest"} == {"dmp-depth", "dmp-normals"}
    assert {k for k, row in PUBLISHED.items() if row.edge == "both"} == {"diff2in1-normals-official"}
    assert PUBLISHED["marigold-normals-v1-1"].source == "prs-eth/marigold-normals-v1-1"
    assert PUBLISHED["e2e-ft-sd-depth"].source == "GonzaloMG/stable-diffusion-e2e-ft-depth"


# Each way of being wrong


def broken(folder: Path, change: dict) -> None:
    module = layouts.unet()
    names = {k: v for k, v in {**layouts.shapes(module), **change}.items() if v is not None}
    layouts.sparse(folder / "unet_depth_v2" / "diffusion_pytorch_model.safetensors", names)


@pytest.mark.parametrize("change, message", [
    ({"conv_in.bias": None}, r"lacks the tensor conv_in\.bias"),
    ({"conv_in.weight": (320, 8, 3, 3)}, r"conv_in\.weight has shape \(320, 8, 3, 3\)"),
    ({"surplus": (1,)}, "unexpected tensor surplus"),
])  # fmt: skip
def test_wrong_tensors_are_named(genpercept, change, message):
    folder, base = genpercept
    broken(folder, change)
    with pytest.raises(ModelError, match=message):
        open_model(str(folder), device="meta", base=base)


def test_a_network_for_another_protocol_is_refused(genpercept):
    folder, base = genpercept
    layouts.write_unet(folder / "unet_depth_v2", layouts.unet(8))
    with pytest.raises(ModelError, match="takes 8 channels, genpercept-depth needs 4"):
        open_model(str(folder), device="meta", base=base)


def test_weights_of_another_method_are_refused(tmp_path):
    """diffusers would run each of these with a wrong result."""
    lotus, _ = layouts.write_published("lotus-depth-d-v1-0", tmp_path)
    layouts.write_text(tmp_path / "base")
    with pytest.raises(ModelError, match="takes 4 class labels, genpercept-depth has none"):
        (lotus / "unet").rename(lotus / "unet_depth_v2")
        open_model(str(lotus), device="meta", method="genpercept-depth", base=str(tmp_path / "base"))
    plain = layouts.write_base(tmp_path / "plain")
    with pytest.raises(ModelError, match="is a StableDiffusionPipeline"):
        open_model(str(plain), device="meta", method="genpercept-depth")
    with pytest.raises(ModelError, match="takes no class labels"):
        open_model(str(plain), device="meta", method="lotus-depth-d-v1-0")
    with pytest.raises(ModelError, match="outputs 4 channels, marigold-iid-lighting-v1-1 needs 12"):
        layouts.write_unet(plain / "unet", layouts.unet(16))
        open_model(str(plain), device="meta", method="marigold-iid-lighting-v1-1")
    with pytest.raises(ModelError, match="takes 16 channels, so it is not a Stable Diffusion base"):
        open_model(str(plain), device="meta")


def test_a_base_of_another_family_is_refused(tmp_path):
    folder, _ = layouts.write_published("genpercept-depth", tmp_path)
    first = layouts.write_base(tmp_path / "first", second=False)
    with pytest.raises(ModelError, match=r"reads text of width 1024.*has 768.*--base"):
        open_model(str(folder), device="meta", base=str(first))


def test_multi_step_sampling_needs_a_schedule(tmp_path):
    folder, _ = layouts.write_published("marigold-depth-v1-1", tmp_path)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    (folder / "scheduler").rmdir()
    with pytest.raises(ModelError, match="no folder scheduler"):
        open_model(str(folder), device="meta")


@pytest.mark.parametrize("output, task", [
    ({"_class_name": "MarigoldPipeline", "use_full_z_range": True}, "normals"),
    ({"_class_name": "MarigoldPipeline", "scale_invariant": True}, "depth"),
    ({"_class_name": "MarigoldDepthPipeline", "prediction_type": "disparity"}, "disparity"),
])  # fmt: skip
def test_a_custom_marigold_is_read_by_its_model_index(output, task, tmp_path):
    folder, _ = layouts.write_published("marigold-depth-v1-0", tmp_path)
    folder = folder.rename(tmp_path / "mine")
    (folder / "model_index.json").write_text(json.dumps({**output, "default_denoising_steps": 7}))
    model = open_model(str(folder), device="meta")
    assert model.tasks == (task,)
    assert getattr(model.settings.tasks[task].protocol, "steps", None) == 7
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "MarigoldPipeline"}))
    with pytest.raises(ModelError, match="without the predicted target"):
        open_model(str(folder), device="meta")
    (folder / "model_index.json").write_text(json.dumps({**output, "default_denoising_steps": 1}))
    with pytest.raises(ModelError, match=r"are not supported: one leading-spaced step"):
        open_model(str(folder), device="meta")


def test_a_missing_path_is_not_fetched_from_the_hub(tmp_path, monkeypatch):
    """A mistyped folder whose last part is a published name is not that published model."""
    monkeypatch.setattr("twofold.checkpoints.opening.fetch", lambda *_: pytest.fail("went to the hub"))
    for name in (str(tmp_path / "genpercept-depth"), "./weights/old/marigold-depth-v1-1", "x.safetensors"):
        with pytest.raises(ModelError, match="no model"):
            open_model(name, method="genpercept-depth")


def test_a_repository_with_twofold_json_uses_its_settings(tmp_path, monkeypatch):
    settings = ModelSettings(name="mine", size=48).with_tasks(["normals"], OneStep(5), "none")
    save_model(new.tiny(), settings, tmp_path / "mine", torch.float32)
    monkeypatch.setattr("twofold.checkpoints.opening.fetch", lambda *_: tmp_path / "mine")
    assert open_model("somebody/genpercept-depth").settings.tasks["normals"].protocol == OneStep(5)


def test_files_of_low_rank_open_beside_their_base_and_whole_or_not_at_all(tmp_path):
    folder, base = layouts.write_published("dmp-depth", tmp_path)
    path = folder / "pytorch_lora_weights.safetensors"
    assert open_model(str(path), device="meta", method="dmp-depth", base=base).tasks == ("depth",)
    names = layouts.lora_shapes(layouts.unet(second=False))
    one = next(k for k in names if k.endswith("down.weight"))
    for kept in (
        {},
        {k: v for k, v in names.items() if "up.weight" in k},
        {k: v for k, v in names.items() if k != one},
    ):
        layouts.sparse(path, kept)
        with pytest.raises(ModelError, match=r"no low-rank weights|other matrix"):
            open_model(str(folder), device="meta", base=base)
    layouts.sparse(path, {**names, one: (8, 320)})
    with pytest.raises(ModelError, match="cannot be added"):
        open_model(str(folder), device="meta", base=base)
    with pytest.raises(ModelError, match="consists of folders"):
        open_model(str(path), device="meta", method="lotus-depth-d-v1-0")


def test_genpercept_s_other_habits_are_read(tmp_path):
    """A class of its own name, a run without a config, an output layer that a head has no use for, a last ReLU."""
    folder, base = layouts.write_published("genpercept-disparity-dpt-head", tmp_path)
    unet = folder / "unet_disparity_dpt_head_v2"
    config = json.loads((unet / "config.json").read_text())
    (unet / "config.json").write_text(json.dumps({**config, "_class_name": "CustomUNet2DConditionModel"}))
    layouts.sparse(unet / "diffusion_pytorch_model.safetensors", layouts.shapes(layouts.unet()))
    (folder / "dpt_head_identity").rename(folder / "dpt_head")
    model = open_model(str(folder), device="meta", base=base)
    assert getattr(model.heads["disparity"], "config", {})["activation"] == "relu"
    (unet / "config.json").unlink()
    assert open_model(str(folder), device="meta", base=base).tasks == ("disparity",)


def test_the_first_stable_diffusion_s_pickles_are_read(tmp_path):
    """They carry a training callback and numpy's numbers along, which are not run and not needed."""
    import sys
    import types

    lightning = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    kind = type("ModelCheckpoint", (), {"__module__": lightning.__name__})
    setattr(lightning, "ModelCheckpoint", kind)  # noqa: B010
    names = [lightning.__name__.rsplit(".", n)[0] for n in (2, 1, 0)]
    with pytest.MonkeyPatch.context() as patch:
        for name in names[:-1]:
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, names[-1], lightning)
        torch.save(
            {"state_dict": {"a": torch.ones(2)}, "callbacks": {kind: {"best": np.float64(3.0)}}},
            tmp_path / "old.ckpt",
        )
    assert torch.equal(read_file(tmp_path / "old.ckpt")["a"], torch.ones(2))
    (tmp_path / "empty.ckpt").write_bytes(b"")
    with pytest.raises(ModelError, match="is empty"):
        read_file(tmp_path / "empty.ckpt")


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was-run",))

    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(ModelError, match=r"evil\.ckpt"):
        open_model(str(path))
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(ModelError, match="more than tensors, and was not run"):
        open_model(str(path))
    assert not (tmp_path / "was-run").exists()


def test_a_missing_variant_is_named(genpercept):
    folder, base = genpercept
    with pytest.raises(ModelError, match="of the variant 'fp16'"):
        open_model(str(folder), device="meta", base=base, variant="fp16")
    part = folder / "unet_depth_v2"
    (part / "diffusion_pytorch_model.safetensors").rename(part / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(ModelError, match="pass --variant fp16"):
        open_model(str(folder), device="meta", base=base)


def test_what_is_not_a_model_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"neither twofold\.json nor model_index\.json"):
        open_model(str(tmp_path / "empty"))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match="not a checkpoint; weights end in"):
        open_model(str(tmp_path / "notes.txt"))
    with pytest.raises(ModelError, match="no published model 'marygold'"):
        open_model(str(tmp_path / "empty"), method="marygold")
    with pytest.raises(ModelError, match="nor a hub id"):
        open_model("marygold")
    base = tmp_path / "xl"
    base.mkdir()
    (base / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ModelError, match=r"StableDiffusionXLPipeline.*--method"):
        open_model(str(base))


# The hub, as far as its cache


def cached(home: Path, repo: str, folder: Path, revision: str = "main") -> None:
    """Put ``folder`` into a hub cache as a download of ``repo`` would have."""
    root = home / "hub" / ("models--" + repo.replace("/", "--"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / revision).write_text(commit)
    (root / "snapshots").mkdir()
    folder.rename(root / "snapshots" / commit)


def test_published_names_open_from_the_hub_s_cache(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder, _ = layouts.write_published("marigold-depth-v1-1", tmp_path)
    cached(home, "prs-eth/marigold-depth-v1-1", folder)
    for name in ("marigold-depth-v1-1", "prs-eth/marigold-depth-v1-1"):
        assert open_model(name, device="meta").tasks == ("depth",)
    with pytest.raises(ModelError, match="at revision 'old' is not in the hub's cache"):
        open_model("marigold-depth-v1-1", device="meta", revision="old")
    with pytest.raises(ModelError, match="is not in the hub's cache"):
        open_model("lotus-depth-g-v1-0", device="meta")


def test_the_first_home_of_a_base_that_answers_is_taken(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder, base = layouts.write_published("genpercept-depth", tmp_path)
    with pytest.raises(ModelError, match=r"tried: sd2-community.*stabilityai.*--base"):
        open_model(str(folder), device="meta")
    cached(home, "stabilityai/stable-diffusion-2-1", Path(base))
    assert open_model(str(folder), device="meta").tasks == ("depth",)


# Numbers


def test_old_key_names_are_read():
    """Legacy attention and low-rank files change names and add products; nothing else."""
    value = torch.randn(6, 6)
    record = modern_vae({"encoder.mid_block.attentions.0.proj_attn.weight": value[..., None, None]})
    assert torch.equal(record["encoder.mid_block.attentions.0.to_out.0.weight"], value)
    base = {"a.attn1.to_q.weight": torch.randn(6, 8), "a.attn1.to_out.0.weight": torch.randn(8, 6)}
    lora = {
        "a.attn1.processor.to_q_lora.down.weight": torch.randn(2, 8),
        "a.attn1.processor.to_q_lora.up.weight": torch.randn(6, 2),
    }
    found = merge_file(base, lora, Path("x"), DefaultAlpha())
    down, up = lora.values()
    torch.testing.assert_close(found["a.attn1.to_q.weight"], base["a.attn1.to_q.weight"] + up @ down)
    assert torch.equal(found["a.attn1.to_out.0.weight"], base["a.attn1.to_out.0.weight"])
    with pytest.raises(ModelError, match=r"up\.weight"):
        merge_file(base, dict(list(lora.items())[:1]), Path("x"), DefaultAlpha())
    with pytest.raises(ModelError, match=r"no b\.attn1\.to_q\.weight"):
        merge_file(base, {k.replace("a.", "b.", 1): v for k, v in lora.items()}, Path("x"), DefaultAlpha())


def test_the_empty_prompt_needs_no_text_encoder_once_it_is_stored(tmp_path):
    """Its 2 tokens are the first 2 of 77, because the text encoder is causal."""
    net = new.tiny()
    two, all_of_them = net.embed([""])[0], net.embed([""], pad=True)[0]
    torch.testing.assert_close(two, all_of_them[:2], rtol=0, atol=1e-6)
    net.prompt_embeds[""], net.text_encoder, net.tokenizer = all_of_them.detach(), None, None
    torch.testing.assert_close(net.embed([""])[0], two, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"'a chair'.*--base"):
        net.embed(["a chair"])
    settings = ModelSettings(name="tiny", size=32).with_tasks(["depth"], OneStep(), "none")
    save_model(net, settings, tmp_path / "bare", torch.float32)
    assert not (tmp_path / "bare" / "text_encoder").exists()
    again = open_model(str(tmp_path / "bare"))
    torch.testing.assert_close(again.backbone.embed([""])[0], two, rtol=0, atol=1e-6)


def test_a_stored_embedding_is_found_beside_the_network(tmp_path):
    folder, _ = layouts.write_published("genpercept-depth-v1", tmp_path)
    np.save(folder / "empty_text_embed.npy", np.zeros((77, 1024), np.float16))
    model = open_model(str(folder), device="meta")
    assert model.backbone.text_encoder is None
    assert model.backbone.prompt_embeds[""].shape == (77, 1024)
    save_file({"x": torch.zeros(1, 2, 1024)}, folder / "empty_text_embed.safetensors")
    (folder / "empty_text_embed.npy").unlink()
    assert open_model(str(folder), device="meta").backbone.prompt_embeds[""].shape == (2, 1024)
