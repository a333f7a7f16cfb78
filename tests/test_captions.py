"""Captioning models of several transformers classes as tiny random networks, and captions of a data folder."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import world
from twofold.cli.main import run
from twofold.data.folder import Folder
from twofold.data.layout import FolderError
from twofold.generate import (
    GenerationConfig,
    SyntheticDataGenerator,
    caption_folder as module,
    create_samples,
)
from twofold.generate.caption_folder import JOURNAL, caption_folder
from twofold.generate.captioner import Captioner, CaptionError, generate_captions, open_captioner
from twofold.generate.captions import get_caption

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "room", "with", "chair", "table"]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = SMALL | {"image_size": 32, "patch_size": 16}


def tokenizer(root):
    from transformers import BertTokenizer

    (root / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return BertTokenizer(str(root / "vocab.txt"))


def blip(root) -> str:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    text = {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "bos_token_id": 5, "eos_token_id": 3}
    text |= {"sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(text_config=SMALL | text, vision_config=VISION)
    BlipForConditionalGeneration(config).save_pretrained(root / "blip")
    pixels = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(pixels, tokenizer(root)).save_pretrained(root / "blip")
    return str(root / "blip")


def vit_gpt2(root) -> str:
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    text = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3
    )
    config: Any = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), text)
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    network: Any = VisionEncoderDecoderModel(config=config)
    network.generation_config.decoder_start_token_id = 2
    network.generation_config.pad_token_id = 0
    network.save_pretrained(root / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(root / "vit")
    tokenizer(root).save_pretrained(root / "vit")
    return str(root / "vit")


def git(root) -> str:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    config = GitConfig(
        vision_config=VISION, vocab_size=len(WORDS), bos_token_id=2, eos_token_id=3, pad_token_id=0, **SMALL
    )
    GitForCausalLM(config).save_pretrained(root / "git")
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    GitProcessor(pixels, tokenizer(root)).save_pretrained(root / "git")
    return str(root / "git")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    root = tmp_path_factory.mktemp("captioners")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"blip": blip(root), "vit": vit_gpt2(root), "git": git(root)}


@pytest.fixture
def uncaptioned(tmp_path):
    """A folder of four balls, the first with a caption."""
    root = world.folder(tmp_path / "balls", 4, 40)
    path = root / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[1:]:
        row.pop("text", None)
        row.pop("caption", None)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def texts(root) -> list[str]:
    return [str(s.caption) for s in Folder(root)]


@pytest.mark.parametrize("kind", ["blip", "vit", "git"])
def test_a_captioner_captions_samples_without_a_caption(names, kind):
    """Random weights: the captions have no meaning and are deterministic. A caption of the row is not replaced."""
    name = names[kind]
    without_caption = replace(world.sphere(0, 40), caption="")
    caption, source = get_caption(without_caption, name=name)
    assert caption and set(caption.split()) <= {*WORDS}
    assert source == f"captioner:{name}"
    assert get_caption(without_caption, name=name)[0] == caption
    assert get_caption(world.sphere(0, 40), name=name)[1] == "row"
    # A caption does not depend on the other images of the batch.
    images = [world.sphere(seed, size).image for seed, size in ((0, 40), (1, 33))]
    batched = generate_captions(images, ["a", "b"], name)
    assert batched == [generate_captions([x], ["x"], name)[0] for x in images]


def test_a_model_that_is_no_captioner_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be opened.*image-to-text"):
        open_captioner(str(tmp_path / "absent"))


class _Chat:
    """Stands for processor and network of a chat model: it repeats the prompt before its output."""

    device = "cpu"

    def __call__(self, images, text, padding, return_tensors):
        assert padding and return_tensors == "pt" and len(images) == len(text)
        self.prompts = text
        made = torch.arange(5).expand(len(images), 5)
        return type("Inputs", (dict,), {"to": lambda self, _: self})(input_ids=made)

    def apply_chat_template(self, conversation, add_generation_prompt):
        (turn,) = conversation
        assert [part["type"] for part in turn["content"]] == ["image", "text"]
        return turn["content"][1]["text"]

    def generate(self, input_ids, **_):
        return torch.cat([input_ids, torch.full((len(input_ids), 2), 9)], 1)

    def batch_decode(self, tokens, skip_special_tokens):
        return ["".join(map(str, row)) for row in tokens.tolist()]


def test_the_prompt_of_an_instruction_model_is_cut_off():
    chat = _Chat()
    captioner = Captioner("chat", chat, chat, chat, chat=True)
    assert captioner([world.sphere(0, 16).image] * 2) == ["99", "99"]
    assert chat.prompts == ["Describe the image in one sentence."] * 2


def test_an_empty_caption_is_an_error(names, monkeypatch):
    monkeypatch.setattr(
        "twofold.generate.captioner.open_captioner", lambda *_: lambda images: ["", *"a"][: len(images)]
    )
    with pytest.raises(CaptionError, match=r"returned an empty caption for 'ball'.*row"):
        generate_captions([world.sphere(0, 16).image], ["ball"], "quiet")


def test_create_reports_a_sample_without_a_caption_as_failed(uncaptioned, tmp_path, tiny_model, monkeypatch):
    """The others are created; no image is generated with an empty prompt."""
    from twofold.checkpoints import open_model

    image = Folder(uncaptioned)[2].image
    monkeypatch.setattr(
        "twofold.generate.captioner.open_captioner",
        lambda *_: lambda images: ["" if torch.equal(x, image) else "a ball" for x in images],
    )
    net = open_model(str(tiny_model)).backbone
    generator = SyntheticDataGenerator(
        net, {}, GenerationConfig(steps=2, guidance=1.0, scoring="cheap"), {"made": "here"}, captioner="c"
    )
    events = list(create_samples(generator, Folder(uncaptioned), tmp_path / "out"))
    assert [e["status"] for e in events] == ["created", "created", "failed", "created"]
    assert "empty caption" in events[2]["error"]
    assert texts(tmp_path / "out")[1:] == ["a ball", "a ball"]


def test_the_command_captions_rows_that_have_none(uncaptioned, names, capsys):
    first = texts(uncaptioned)[0]
    assert run(["data", "caption", str(uncaptioned), "--captioner", names["blip"], "--device", "cpu"]) == 0
    assert "3 captioned, 1 kept" in capsys.readouterr().out
    rows = [json.loads(line) for line in (uncaptioned / "metadata.jsonl").read_text().splitlines()]
    assert texts(uncaptioned)[0] == first and "caption_source" not in rows[0]
    assert {row["caption_source"] for row in rows[1:]} == {names["blip"]}
    assert all(set(row["text"].split()) <= {*WORDS} for row in rows[1:])
    assert not (uncaptioned / JOURNAL).exists()
    assert run(["data", "validate", str(uncaptioned)]) == 0
    before = (uncaptioned / "metadata.jsonl").read_bytes()
    assert run(["data", "caption", str(uncaptioned), "--captioner", names["blip"], "--device", "cpu"]) == 0
    assert (uncaptioned / "metadata.jsonl").read_bytes() == before
    assert (
        run(
            [
                "data",
                "caption",
                str(uncaptioned),
                "--captioner",
                names["vit"],
                "--device",
                "cpu",
                "--overwrite",
            ]
        )
        == 0
    )
    rows = [json.loads(line) for line in (uncaptioned / "metadata.jsonl").read_text().splitlines()]
    assert {row["caption_source"] for row in rows} == {names["vit"]}


def test_captioning_resumes_after_a_kill_and_never_writes_a_partial_manifest(uncaptioned, names, monkeypatch):
    before = (uncaptioned / "metadata.jsonl").read_bytes()
    job = caption_folder(uncaptioned, names["blip"], batch=1)
    for _ in range(3):
        next(job)
    job.close()
    assert (uncaptioned / "metadata.jsonl").read_bytes() == before
    assert len((uncaptioned / JOURNAL).read_text().splitlines()) == 2
    with pytest.raises(FolderError, match="run that captioner to its end first"):
        list(caption_folder(uncaptioned, names["vit"]))
    with (uncaptioned / JOURNAL).open("a") as file:
        file.write('{"id": "bal')  # a truncated line
    captioned: list[str] = []
    original = module.generate_captions

    def counted(images, ids, *rest):
        captioned.extend(ids)
        return original(images, ids, *rest)

    monkeypatch.setattr(module, "generate_captions", counted)
    list(caption_folder(uncaptioned, names["blip"], batch=1))
    assert len(captioned) == 1
    assert all(texts(uncaptioned))


def test_an_unreadable_image_is_one_failed_row(uncaptioned, names, capsys):
    rows = [json.loads(line) for line in (uncaptioned / "metadata.jsonl").read_text().splitlines()]
    (uncaptioned / rows[2]["file_name"]).write_bytes(b"no image")
    assert run(["data", "caption", str(uncaptioned), "--captioner", names["blip"], "--device", "cpu"]) == 1
    assert rows[2]["id"] in capsys.readouterr().err
    after = [json.loads(line) for line in (uncaptioned / "metadata.jsonl").read_text().splitlines()]
    assert [bool(row.get("text")) for row in after] == [True, True, False, True]
