"""Checkpoints whose files have wrong types, ranges and shapes: a one-line error each, and bounded memory.

Every mutation changes one value, or some bytes, of a file of one small checkpoint. Reading it then works, or fails
with a `ModelError`; no large allocation happens on the way.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from twofold.backbones import new
from twofold.checkpoints import (
    ModelError,
    ModelSettings,
    components,
    model_folder,
    open_model,
    open_network,
    save_model,
    save_network,
)
from twofold.checkpoints.components import LoadOptions
from twofold.checkpoints.configs import KLConfig, TextConfig, TinyConfig, UNetConfig
from twofold.checkpoints.fit import check_head
from twofold.checkpoints.heads import open_heads
from twofold.checkpoints.network import NetworkSettings
from twofold.checkpoints.strict import read_json
from twofold.checkpoints.tokenizer import read_tokenizer
from twofold.checkpoints.weights import read_file
from twofold.heads import make_head, share_modules
from twofold.protocols import MultiStep, OneStep

VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 3, 10**6, 10**9, 10**12, 10**400, 0.5, -0.5, 1e30, 1e308, float("nan"), float("inf"),
    "", "x", "a/b", "\x1b[31m", [], [0], [-1], [10**9] * 4, ["x"], [[[]]], {}, {"x": 1}, [None], "9" * 5000,
]  # fmt: skip
# Kilobytes that the whole module may add to the process.
MEMORY = 700_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with stored prompts, a text encoder and heads of six kinds, of which two share a module."""
    root = tmp_path_factory.mktemp("fuzz")
    net = new.tiny()
    net.prompt_embeds = {"": torch.rand(2, 32), "depth map": torch.rand(4, 32)}
    small = {"widths": [128, 16, 16, 16, 16]}
    heads = {
        "depth": make_head("multitask", net, 1, **small), "mask": make_head("multitask", net, 3, **small),
        "disparity": make_head("light", net, 3), "normals": make_head("bae", net, 3, **small),
        "semantic_logits": make_head("upernet", net, 5, width=16),
        "keypoints": make_head("keypoint", net, 17, width=16),
        "matting": make_head("dpt", net, 1, width=16),
    }  # fmt: skip
    share_modules(heads, {}, [])
    settings = ModelSettings(name="tiny", size=32).with_tasks(["shading"], OneStep(), "none")
    for task, head in heads.items():
        name = "semantic_logits[5]" if task == "semantic_logits" else task
        kind = {"MultiTaskHead": "multitask", "LightHead": "light", "BaeHead": "bae", "UperNetHead": "upernet",
                "KeypointHead": "keypoint", "DPTHead": "dpt"}[type(head).__name__]  # fmt: skip
        settings = settings.with_tasks([name], OneStep(), "none", kind)
    save_model(net, settings, root / "model", torch.float16, heads)
    return root / "model"


@pytest.fixture(scope="module")
def net() -> Any:
    return new.tiny()


@pytest.fixture
def model(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "model")


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def read_part(folder: Path, file: str, net: Any) -> None:
    """Read one file, and the files it needs, the way `open_model` does."""
    part = file.split("/")[0]
    if part == "twofold.json":
        settings = model_folder._settings(folder)
        from twofold.predict.diffusion import DiffusionPredictor
        from twofold.tasks import get_task

        for name, used in settings.tasks.items():
            if used.head == "latent":
                try:
                    DiffusionPredictor(
                        net, get_task(used.task or name, False), used.protocol, net, used, settings.size
                    )
                except ValueError as error:
                    raise ModelError(str(error)) from error
    elif part == "unet":
        components.unet(folder / "unet", LoadOptions())
    elif part == "vae":
        components.vae(folder / "vae", LoadOptions())
    elif part in ("text_encoder", "tokenizer"):
        encoder = components.text_encoder(folder / "text_encoder", LoadOptions())
        tokens = read_tokenizer(folder / "tokenizer", encoder)
        encoder(tokens(["a chair"], padding="max_length", truncation=True, return_tensors="pt").input_ids)
    elif part == "scheduler":
        components.scheduler(folder / "scheduler")
    elif part == "texts.safetensors":
        model_folder._prompt_embeds(folder)
    else:
        kinds = {
            t: how.head for t, how in model_folder._settings(folder).tasks.items() if how.head != "latent"
        }
        task = file.split("/")[1].split("+")[0]
        for name, head in open_heads(folder / "heads", {task: kinds[task]}, LoadOptions()).items():
            check_head(head, net, folder / "heads" / name)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all entries of a JSON value, lists and objects included."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, part in entries:
        yield (*path, key)
        yield from leaves(part, (*path, key))


def set_entry(value: Any, path: tuple[Any, ...], new_value: Any) -> Any:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new_value
    return value


def attempt(read: Callable[[], Any], file: str) -> str:
    """ "read", or the message of the `ModelError`; any other exception fails the test."""
    try:
        read()
    except ModelError as error:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 2000
        return str(error)
    return "read"


def json_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.json") if p.name != "model_index.json")


def test_json_values_of_wrong_type_or_range_are_refused(source, model, net):
    """Up to three hundred changes of single values, over all JSON files."""
    rng, counts = random.Random(1), {"read": 0, "refused": 0}
    files = json_files(source)
    for round_ in range(300):
        file = files[round_ % len(files)]
        text = (source / file).read_text()
        found = json.loads(text)
        paths = [p for p in leaves(found) if p[:2] != ("model", "vocab") and p[:2] != ("model", "merges")]
        if not paths:
            continue
        path, value = rng.choice(paths), rng.choice(VALUES)
        set_entry(found, path, value)
        (model / file).write_text(json.dumps(found))
        outcome = attempt(lambda file=file: read_part(model, file, net), file)
        counts["read" if outcome == "read" else "refused"] += 1
        (model / file).write_text(text)
    assert sum(counts.values()) > 250
    assert counts["refused"] > 100, counts


def test_every_config_key_refuses_text_and_huge_numbers(source, model):
    """Each key of the diffusers and transformers configs refuses a string, 10^12 and -10^9."""
    for file, kind in (("unet", UNetConfig), ("vae", TinyConfig), ("text_encoder", TextConfig)):
        path = model / file / "config.json"
        text = path.read_text()
        for key in kind.model_fields:
            for value in ("sneaky", 10**12, -1e9):
                path.write_text(json.dumps({**json.loads(text), key: value}))
                reader = {
                    "unet": components.unet,
                    "vae": components.vae,
                    "text_encoder": components.text_encoder,
                }[file]
                with pytest.raises(ModelError, match=rf"config\.json: {key}"):
                    reader(model / file, LoadOptions())
        path.write_text(text)


def test_config_schemas_have_every_parameter_of_diffusers():
    """A parameter that is missing in a schema would be ignored silently."""
    import inspect

    import diffusers

    for kind, name in (
        (UNetConfig, "UNet2DConditionModel"),
        (KLConfig, "AutoencoderKL"),
        (TinyConfig, "AutoencoderTiny"),
    ):
        known = set(inspect.signature(getattr(diffusers, name).__init__).parameters) - {"self", "kwargs"}
        assert known == set(kind.model_fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"x"',
        "{",
        '{"a":' * 100_000,
        "[" * 100_000,
        '{"x": NaN}',
        '{"x": 1' + "0" * 5000 + "}",
        "\xff",
        "{}",
    ],
    ids=range(12),
)
def test_malformed_json_is_refused(source, model, net, text):
    for file in json_files(source):
        (model / file).write_bytes(text.encode("latin-1"))
        outcome = attempt(lambda file=file: read_part(model, file, net), file)
        assert outcome != "read" or text == "{}", file
        shutil.copy(source / file, model / file)


def test_oversized_json_is_refused(model):
    path = model / "twofold.json"
    with path.open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="no such file has more than"):
        read_json(path)


def test_damaged_weight_files_are_refused(source, model, net):
    """Changed header bytes and truncated files."""
    rng = random.Random(2)
    files = sorted(str(p.relative_to(source)) for p in source.rglob("*.safetensors"))
    refused = 0
    for round_ in range(60):
        file = files[round_ % len(files)]
        data = bytearray((source / file).read_bytes())
        if round_ % 3 == 0:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(min(len(data), 600))] = rng.randrange(256)
        (model / file).write_bytes(data)
        refused += attempt(lambda file=file: read_part(model, file, net), file) != "read"
        shutil.copy(source / file, model / file)
    assert refused > 40


@pytest.mark.parametrize("change", ["int", "bool", "complex", "double", "empty", "flat", "scalar", "wide"])
def test_tensors_of_wrong_dtype_or_shape_are_refused(source, model, net, change):
    changes: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "int": lambda t: t.long(), "bool": lambda t: t.bool(), "complex": lambda t: t.to(torch.complex64),
        "double": lambda t: t.double(), "empty": lambda t: t.new_zeros(0), "flat": lambda t: t.flatten(),
        "scalar": lambda t: t.new_zeros(()), "wide": lambda t: torch.cat([t, t]),
    }  # fmt: skip
    for file in sorted(str(p.relative_to(source)) for p in source.rglob("*.safetensors")):
        with_metadata = file == "texts.safetensors"
        tensors = load_file(source / file)
        name = sorted(tensors)[len(tensors) // 2]
        tensors[name] = changes[change](tensors[name]).contiguous()
        save_file(tensors, model / file, {"prompts": '["", "depth map"]'} if with_metadata else None)
        outcome = attempt(lambda file=file: read_part(model, file, net), file)
        flat = change == "flat" and load_file(source / file)[name].ndim == 1
        fine = change == "double" or flat or (with_metadata and change == "wide")
        assert (outcome == "read") == fine, (file, outcome)
        shutil.copy(source / file, model / file)


def test_components_that_do_not_fit_each_other_are_refused(source, model):
    """Each file is valid alone; `open_model` refuses the combination."""
    texts = load_file(source / "texts.safetensors")
    cases: dict[str, Callable[[], Any]] = {
        "text of width": lambda: save_file(
            {k: v.repeat(1, 2) for k, v in texts.items()}, model / "texts.safetensors", {"prompts": '["", "x"]'}
        ),
        "does not fit the network beside it": lambda: shutil.copytree(
            other_head(model.parent), model / "heads" / "matting", dirs_exist_ok=True
        ),
        "no .safetensors weights": lambda: shutil.rmtree(model / "heads" / "depth+mask"),
        "prompts to 77 tokens": lambda: edit(model / "tokenizer" / "tokenizer_config.json", {"model_max_length": 77}),
    }  # fmt: skip
    for message, change in cases.items():
        change()
        with pytest.raises(ModelError, match=message):
            open_model(model)
        shutil.rmtree(model)
        shutil.copytree(source, model)


def edit(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def other_head(folder: Path) -> Path:
    """The folder of a head that was made for another network."""
    from twofold.checkpoints.heads import save_heads
    from twofold.heads import DPTHead

    save_heads({"other": DPTHead((8, 8, 8), 16)}, folder / "others", torch.float32)
    return folder / "others" / "other"


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"kind": "multi_step", "timesteps": [5000]}, "time step 5000"),
        ({"kind": "multi_step", "steps": 1000, "spacing": "leading", "offset": 7}, "time step 1006"),
        ({"kind": "multi_step", "steps": 10**9}, "steps"),
        ({"kind": "multi_step", "noise": {"steps": 10**12}}, "noise"),
        ({"kind": "one_step", "class_labels": [1e400]}, "class_labels"),
        ({"kind": "one_step", "parts": 10**9, "condition": "concat"}, "parts"),
    ],
)  # fmt: skip
def test_protocol_settings_out_of_range_are_refused(net, protocol, message, tmp_path):
    from twofold.checkpoints.model import Model

    raw = {"tasks": {"depth": {"protocol": {"condition": "replace", "start": "image", **protocol}
                               if protocol["kind"] == "multi_step" else protocol}}}  # fmt: skip
    (tmp_path / "twofold.json").write_text(json.dumps(raw).replace("Infinity", "1e400"))
    with pytest.raises(ModelError, match=message):
        Model("m", net, model_folder._settings(tmp_path)).predictor()


def test_a_time_step_beyond_the_schedule_is_refused(net):
    from twofold.checkpoints.model import Model

    how = MultiStep(steps=4, start="image", condition="replace", spacing="leading", offset=1)
    model = Model("m", net, ModelSettings().with_tasks(["depth"], how, "none"))
    with pytest.raises(ValueError, match="time step 1000"):
        model.predictor().with_options(steps=1000)


# ---- other formats


def test_pickles_that_expand_in_memory_are_refused(tmp_path):
    """An expanded view of a single number, and a compressed zip."""
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "view.pth")
    with pytest.raises(ModelError, match="many times its own size"):
        read_file(tmp_path / "view.pth", torch.float32)
    torch.save({"w": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as before,
        zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for entry in before.namelist():
            after.writestr(entry, before.read(entry))
    with pytest.raises(ModelError, match="compressed entries"):
        read_file(tmp_path / "z.pth")
    assert read_file(tmp_path / "plain.pth")["w"].shape == (10**6,)


def test_damaged_pickles_give_one_line_errors(tmp_path):
    torch.save({"w": torch.rand(100), "n": {"a": 1}}, tmp_path / "plain.pth")
    torch.save({"w": torch.rand(100)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    rng = random.Random(3)
    for round_ in range(80):
        data = bytearray((tmp_path / ("plain.pth", "old.pth")[round_ % 2]).read_bytes())
        if round_ % 4 == 0:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "damaged.pth").write_bytes(data)
        outcome = attempt(lambda: read_file(tmp_path / "damaged.pth", torch.float32), "damaged.pth")
        assert "weights_only" not in outcome


def test_stored_prompt_embeddings_of_wrong_shape_are_refused(tmp_path):
    for value in (
        np.zeros(3, "f4"),
        np.zeros((1, 2), "i4"),
        np.zeros((2, 2, 4), "f4"),
        np.zeros((0, 4), "f4"),
        np.array("x"),
    ):
        np.save(tmp_path / "empty_text_embed.npy", value)
        with pytest.raises(ModelError, match=r"empty_text_embed\.npy"):
            components.empty_text(tmp_path)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    (tmp_path / "empty_text_embed.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    )
    with pytest.raises(ModelError, match=r"empty_text_embed\.npy"):
        components.empty_text(tmp_path)
    np.save(tmp_path / "empty_text_embed.npy", np.ones((1, 2, 4), "f2"))
    found = components.empty_text(tmp_path)
    assert found is not None
    assert found.shape == (2, 4)


def test_user_defined_networks(tmp_path):
    made = torch.nn.Conv2d(3, 3, 1)
    save_network(made, NetworkSettings(network="x:y", tasks=("depth",)), tmp_path / "net")
    text = (tmp_path / "net" / "network.json").read_text()
    for entry in leaves(json.loads(text)):
        for value in VALUES:
            found = json.loads(text)
            set_entry(found, entry, value)
            (tmp_path / "net" / "network.json").write_text(json.dumps(found))
            attempt(
                lambda: open_network(tmp_path / "net", torch.nn.Conv2d(3, 3, 1)).predictor(), "network.json"
            )


def test_a_tokenizer_drops_chat_templates_and_foreign_files(model, tmp_path):
    """Saving a tokenizer writes each chat template to a file of the template's name, which could lead anywhere."""
    edit(
        model / "tokenizer" / "tokenizer_config.json",
        {
            "chat_template": [{"name": "default", "template": "x"}, {"name": "../../../out", "template": "x"}],
            "vocab_file": "/etc/passwd", "fast_tokenizer_files": ["tokenizer.9.9.9.json"], "init_inputs": [1, 2],
        },
    )  # fmt: skip
    (model / "tokenizer" / "chat_template.jinja").write_text("{{ x }}")
    found = read_tokenizer(model / "tokenizer")
    assert found.chat_template is None
    assert found(["a chair"]).input_ids == new.tiny().tokenizer(["a chair"]).input_ids
    found.save_pretrained(tmp_path / "a" / "b" / "saved")
    assert not list(tmp_path.glob("out*"))
    assert not list((tmp_path / "a").glob("*.jinja"))
