"""Checkpoints: saving and loading is lossless, every defect gives an error that names it, nothing is overwritten."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from twofold.backbones import new
from twofold.checkpoints import ModelError, ModelSettings, load, open_model, save_model
from twofold.protocols import OneStep


@pytest.fixture
def folder(tmp_path):
    """A fresh checkpoint folder to be damaged."""
    settings = ModelSettings(name="tiny", size=32, licence="Apache-2.0").with_tasks(
        ["depth", "normals"], OneStep(), "none"
    )
    save_model(new.tiny(), settings, tmp_path / "model", torch.float32)
    return tmp_path / "model"


def change(folder, edit, part="unet", name="diffusion_pytorch_model.safetensors"):
    """Rewrite one component's tensors."""
    path = folder / part / name
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_saving_and_loading_restores_weights_and_settings(folder):
    before, after = new.tiny(), open_model(str(folder))
    for part, module in before.components().items():
        state = after.backbone.components()[part].state_dict()
        assert module.state_dict().keys() == state.keys()
        assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert after.tasks == ("depth", "normals")
    assert after.settings.tasks["normals"].frame == "RUB"
    assert after.backbone.schedule.prediction_type == "v"
    text = ["a red chair"]
    assert torch.equal(before.embed(text), after.backbone.embed(text))


def test_saving_in_half_precision_does_not_change_the_model(tmp_path):
    net = new.tiny()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    save_model(net, ModelSettings(name="x"), tmp_path / "half", torch.float16)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    stored = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}


def test_a_missing_tensor_is_named(folder):
    change(folder, lambda t: t.pop("conv_in.bias"))
    with pytest.raises(ModelError, match=r"lacks the tensor conv_in\.bias"):
        open_model(str(folder))


def test_a_misshapen_tensor_is_named_with_both_shapes(folder):
    change(folder, lambda t: t.update({"conv_out.bias": torch.zeros(7)}))
    with pytest.raises(ModelError, match=r"conv_out\.bias has shape \(7,\), config\.json gives \(4,\)"):
        open_model(str(folder))


def test_a_surplus_tensor_is_named(folder):
    change(folder, lambda t: t.update({"extra.weight": torch.zeros(1)}))
    with pytest.raises(ModelError, match=r"unexpected tensor extra\.weight"):
        open_model(str(folder))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_truncated_file_is_named(folder, part):
    path = next((folder / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=path.name):
        open_model(str(folder))


@pytest.mark.parametrize("name", ["twofold.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_missing_or_broken_json_is_named(folder, name):
    path = folder / name
    path.write_text("{")
    with pytest.raises(ModelError, match=path.name):
        open_model(str(folder))
    path.unlink()
    if name == "twofold.json":  # what remains is a diffusers folder, which generates only
        with pytest.raises(ModelError, match="has no task: it is"):
            load(str(folder))
        return
    with pytest.raises(ModelError, match=path.name):
        open_model(str(folder))


def test_missing_weights_and_tokenizer_are_named(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "gone")
    with pytest.raises(ModelError, match=r"vae has no \.safetensors"):
        open_model(str(folder))
    (folder / "gone").rename(folder / "vae" / "diffusion_pytorch_model.safetensors")
    (folder / "tokenizer").rename(folder / "elsewhere")
    with pytest.raises(ModelError, match="tokenizer is missing"):
        open_model(str(folder))


def test_an_old_pickle_of_tensors_is_read(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    before = load_file(path)
    path.unlink()
    torch.save(before, folder / "unet" / "diffusion_pytorch_model.bin")
    after = open_model(str(folder)).backbone.unet.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_an_unknown_setting_is_named(folder):
    settings = json.loads((folder / "twofold.json").read_text())
    (folder / "twofold.json").write_text(json.dumps({**settings, "colour": "red"}))
    with pytest.raises(ModelError, match="colour"):
        open_model(str(folder))


def test_unknown_models_and_tasks_are_named(folder):
    with pytest.raises(ModelError, match="no model 'nonsense'"):
        load("nonsense")
    with pytest.raises(ModelError, match="has depth, normals"):
        load(str(folder), "smell")


def test_a_checkpoint_is_never_overwritten(folder):
    with pytest.raises(FileExistsError, match="not overwritten"):
        save_model(new.tiny(), ModelSettings(name="x"), folder)


def test_the_digest_follows_the_weights(folder):
    before = open_model(str(folder)).digest
    assert before == open_model(str(folder)).digest
    change(folder, lambda t: t["conv_in.bias"].add_(1))
    assert open_model(str(folder)).digest != before


def test_sharded_weights_are_read_by_their_index(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    keys = sorted(tensors)
    parts = {"a.safetensors": keys[:50], "b.safetensors": keys[50:]}
    for name, chosen in parts.items():
        save_file({k: tensors[k] for k in chosen}, folder / "unet" / name)
    index = {"weight_map": {k: name for name, chosen in parts.items() for k in chosen}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert open_model(str(folder)).tasks == ("depth", "normals")
    (folder / "unet" / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"b\.safetensors"):
        open_model(str(folder))
