"""Every published layout, at its full size in keys and shapes, and each way in which one can be wrong."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import layouts
from twofold.backbones import new
from twofold.checkpoints import PUBLISHED, ModelError, ModelSettings, find_published, open_model, save_model
from twofold.checkpoints.names import modern_vae, with_old_lora
from twofold.protocol import OneStep
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
    for key, row in PUBLISHED.items():
        assert find_published(key) == key
        if sum(r.source == row.source for r in PUBLISHED.values()) == 1:
            assert find_published(row.source) == key
    with pytest.raises(ModelError, match=r"holds several models.*genpercept-depth"):
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
    open_model(str(run), device="meta", method="genpercept-depth", base=str(whole))  # its bias is the base's
    layouts.sparse(run / "vae_post_quant_conv" / "model.safetensors", {"weigth": (4, 4, 1, 1)})
    with pytest.raises(ModelError, match=r"unexpected tensor post_quant_conv\.weigth"):
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


@pytest.mark.parametrize("second", [False, True], ids=["1.x", "2.x"])
def test_single_files_open_strictly(second, tmp_path):
    path = tmp_path / "model.safetensors"
    names = ldm_shapes(second)
    layouts.sparse(path, names)
    model = open_model(str(path), device="meta")
    assert model.backbone.schedule.predicts == ("v" if second else "epsilon")
    assert sum(p.numel() for p in model.backbone.unet.parameters()) == (
        865_910_724 if second else 859_520_964
    )
    for changed, message in (
        ({"model.diffusion_model.out.2.bias": None}, "tensors"),
        ({"model.diffusion_model.out.2.bias": (5,)}, r"conv_out\.bias has shape \(5,\)"),
        ({"model.diffusion_model.surplus.bias": (5,)}, "known by name"),
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
    return out | {"betas": (1000,), "alphas_cumprod": (1000,)}


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
    with pytest.raises(ModelError, match="takes 8 channels, genpercept-depth shows its network 4"):
        open_model(str(folder), device="meta", base=base)


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
    with pytest.raises(ModelError, match="ask for it with --variant fp16"):
        open_model(str(folder), device="meta", base=base)


def test_what_is_not_a_model_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"neither twofold\.json nor model_index\.json"):
        open_model(str(tmp_path / "empty"))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match="no checkpoint; weights end in"):
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


def test_old_names_hold_the_same_numbers():
    """Legacy attention and low-rank files change names and add products; nothing else."""
    value = torch.randn(6, 6)
    told = modern_vae({"encoder.mid_block.attentions.0.proj_attn.weight": value[..., None, None]})
    assert torch.equal(told["encoder.mid_block.attentions.0.to_out.0.weight"], value)
    base = {"a.attn1.to_q.weight": torch.randn(6, 8), "a.attn1.to_out.0.weight": torch.randn(8, 6)}
    lora = {
        "a.attn1.processor.to_q_lora.down.weight": torch.randn(2, 8),
        "a.attn1.processor.to_q_lora.up.weight": torch.randn(6, 2),
    }
    found = with_old_lora(base, lora, Path("x"))
    down, up = lora.values()
    torch.testing.assert_close(found["a.attn1.to_q.weight"], base["a.attn1.to_q.weight"] + up @ down)
    assert torch.equal(found["a.attn1.to_out.0.weight"], base["a.attn1.to_out.0.weight"])
    with pytest.raises(ModelError, match=r"up\.weight"):
        with_old_lora(base, dict(list(lora.items())[:1]), Path("x"))
    with pytest.raises(ModelError, match=r"no b\.attn1\.to_q\.weight"):
        with_old_lora(base, {k.replace("a.", "b.", 1): v for k, v in lora.items()}, Path("x"))


def test_the_empty_prompt_needs_no_text_encoder_once_it_is_stored(tmp_path):
    """Its 2 tokens are the first 2 of 77, because the text encoder looks back only."""
    net = new.tiny()
    two, all_of_them = net.embed([""])[0], net.embed([""], pad=True)[0]
    torch.testing.assert_close(two, all_of_them[:2], rtol=0, atol=1e-6)
    net.texts[""], net.text_encoder, net.tokenizer = all_of_them.detach(), None, None
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
    assert model.backbone.texts[""].shape == (77, 1024)
    save_file({"x": torch.zeros(1, 2, 1024)}, folder / "empty_text_embed.safetensors")
    (folder / "empty_text_embed.npy").unlink()
    assert open_model(str(folder), device="meta").backbone.texts[""].shape == (2, 1024)
