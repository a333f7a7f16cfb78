"""Names, options and phrases that were replaced by the field's terms do not come back.

Whoever retires a name adds it to the list of its package, with the name that replaces it. A name that is an ordinary
word elsewhere (``read``, ``of``) goes to ``DEFINITIONS``, which holds for what one folder defines.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "scripts", "recipes", "benchmarks")

# Names that appear nowhere in Python code: old name -> new name.
NAMES = {
    # io, image, cli
    "Ask": "ReadOptions",
    "Stop": "CommandError",
    "complain": "print_error",
    "device_of": "parse_device",
    "dtype_of": "parse_dtype",
    "official_canvas": "resized_to_square",
    "official_normals": "map_resized_to_square",
    "open_picture": "open_image_file",
    "squeezed_map": "map_resized_to_square",
    "seed_of": "derive_seed",
    "check_source": "check_model_options",
    "record_words": "record_text",
    # generate, evaluate
    "About": "RunMetadata",
    "Creator": "SyntheticDataGenerator",
    "FromFiles": "FilePredictions",
    "FromModel": "ModelPredictions",
    "FromResults": "CocoResults",
    "GenerateJob": "ImageFileOptions",
    "Keep": "ScoreThreshold",
    "Question": "EvalRequest",
    "STANDARDS": "EVAL_PROTOCOLS",
    "Standard": "EvalProtocol",
    "Synthesizer": "ImageGenerator",
    "asked_scores": "consistency_scores",
    "carry_out": "run_and_report",
    "caption_of": "get_caption",
    "check_origin": "check_provenance",
    "creator_of": "SyntheticDataGenerator.from_model",
    "draw_seed": "noise_seed",
    "free_scores": "cheap_scores",
    "get_standard": "get_eval_protocol",
    "learnable": "can_train_on",
    "official_path": "official_steps",
    "read_walk": "predict_from_features",
    "windowed": "crop_to_window",
    # train
    "Ahead": "ExampleLoader",
    "Journal": "RunLogger",
    "Prefetcher": "ExampleLoader",
    "Readable": "SampleValidator",
    "Team": "DistributedContext",
    "apportion": "weighted_round_robin",
    "lab_second_stage": "second_stage_smoke_config",
    "make_stage": "build_trainer",
    "own_randomness": "fork_rng",
    "set_learning": "set_trainable",
    "settle": "merge_lora",
    "PREVIEWED": "NUM_PREVIEWS",
    "by_forward_pass": "group_by_forward_pass",
    "look_at_pictures": "losses_need_image",
    "shares_looks": "shares_features",
    "starting_point": "open_initial_model",
    "taught_by_teacher": "DataConfig.has_teacher_labels",
    "weights_of": "loss_weights",
    "Held": "MemorySample",
    "Pictures": "ImagePool",
    "having": "with_target",
    # backbones, heads, tasks, targets, checkpoints
    "How": "LoadOptions",
    "Origin": "Provenance",
    "PictureLoss": "ImageLoss",
    "Taps": "FeatureSet",
    "UNITS": "TARGETS",
    "encode_stretched": "encode_minmax",
    "encode_whole": "encode_disparity",
    "Stated": "DefaultAlpha",
    "filled_text_encoder": "build_text_encoder",
    "foreign_tokenizer": "base_tokenizer",
    "is_one": "is_diff2in1_dir",
    "label_extent": "label_range",
    "learn_tokenizer": "train_tokenizer",
    "marigold_like": "read_marigold_settings",
    "merge_own": "merge_peft",
    "miniature_text": "miniature_text_encoder",
    "open_own": "open_model_folder",
    "own_files": "model_weight_files",
    "put_bae_decoder": "load_bae_decoder",
    "read_pair": "read_head",
    "write_pair": "write_head",
    "made_for": "from_backbone",
    "mixes": "is_interpolable",
    "picture_losses": "image_losses",
    "picture_task": "image_task",
    "shared_parts": "find_shared",
    "target_picture": "target_image",
    "Tapped": "FeatureCollector",
    "tap_channels": "feature_channels",
    "look_levels": "cross_attention_levels",
    # diffusion, protocols, predict
    "Answer": "DenoiserOutput",
    "Asker": "BasePredictor",
    "NetworkPredictor": "ModulePredictor",
    "Painter": "BasePredictor",
    "Query": "ModelInput",
    "Sees": "BasePredictor",
    "dpm": "dpmpp_2m",
    "dpm_timesteps": "dpmpp_2m_timesteps",
    "ends_clean": "set_alpha_to_one",
    "mixed_strength": "noise_strength",
    "painted_frame": "output_frame",
    "painted_surely": "decode_output",
    "trained_at": "train_timestep",
    "word_for": "x0_to_prediction",
    # metrics
    "ANYTHING": "NO_CLIP",
    "color_picture": "color_image",
    "_stretched": "_normalized_median",
    "LONGER": "SHORT_PI",
    "_check_sendable": "_check_picklable",
    "_steep": "_candidate_ratios",
    "conclude": "compute",
    "correction_effort": "human_correction_effort",
    "rescored": "rescore",
    "unstretched": "unnormalized",
}

# Folder of src/twofold -> names that it does not define: functions, classes, arguments, fields. Old name -> new name.
DEFINITIONS: dict[str, dict[str, str]] = {
    "io": {"held": "file_lock", "shown": "escape"},
    "image": {
        "ask": "options",
        "held": "file_lock",
        "need": "import_reader",
        "shown": "escape",
        "squeezed": "resized_to_square",
    },
    "data": {
        "crop_of": "get_crop",
        "drawn": "render_inline",
        "extent": "value_range",
        "files_of": "split_files",
        "inside": "resolve_path",
        "merged": "merge_descriptors",
        "one_of": "first_file",
        "picture": "image",
        "pictures": "image_dir",
        "pinhole": "intrinsic_matrix",
        "rows_of": "iter_rows",
        "selected": "select_indices",
        "swap": "replace_suffix",
        "told": "description",
        "under": "relative_path",
    },
    "render": {
        "clay": "untextured",
        "coat": "material",
        "develop": "simulate_camera",
        "find": "find_assets",
        "look": "look_at",
        "mood": "palette",
        "paint": "texture_kind",
        "picture": "image",
        "put": "add_part",
        "skin": "atlas_tile",
    },
    "metrics": {
        "added": "merge_sums",
        "once": "cached",
        "part": "update",
        "program": "backend",
        "read": "normalize",
        "stretched": "minmax_normalized",
    },
    "evaluate": {
        "about": "metadata",
        "added": "merge_sums",
        "counted": "counts_text",
        "facts": "summary_rows",
        "finish": "make_report",
        "heading": "column_header",
        "likeness": "keypoint_similarity",
        "measured": "measure_many",
        "of_files": "evaluation_from_files",
        "of_model": "evaluation_from_model",
        "question": "request",
        "said": "the name of what it holds",
        "standard": "protocol",
        "why": "reason",
    },
    "generate": {
        "ask": "predict_labels",
        "asked": "predictor_record",
        "drawn": "color_target",
        "fitted": "resize_sample",
        "keep": "filters",
        "like": "image",
        "looks": "steps",
        "make": "generate",
        "squeezed": "resize_to_square",
        "told": "the name of what it holds",
        "walk": "sample",
    },
    "cli": {
        "emit": "print_json",
        "given": "passed_options",
        "one_of": "check_choice",
        "track": "with_progress",
    },
    "diffusion": {
        "draw": "randn_tensor",
        "noised": "add_noise",
        "predicts": "prediction_type",
        "walk": "sample",
    },
    "predict": {
        "about": "metadata",
        "asked": "with_options",
        "canvases": "predict_images",
        "finished": "postprocess",
        "look": "denoise",
        "merging": "get_ensemble_fn",
        "paint": "predict_raw",
        "painted": "decode_output",
        "reading": "config",
        "stretch": "minmax_normalize",
    },
    "protocols": {
        "joined": "collate",
        "look": "denoise",
        "mixed": "noise_strategy",
        "noised": "add_noise",
        "oracle": "use_image_as_noise",
        "parts": "num_outputs",
        "predicts": "prediction_type",
        "solve": "sample",
        "taught": "train_timesteps",
        "wanted": "training_target",
    },
}

# Options of commands and of scripts, in code and documentation: old -> new.
OPTIONS: dict[str, str] = {
    "--creator": "--generator",
    "--every": "--log-every",
    "--lab": "--smoke-test",
    "--like": "--image",
    "--looks": "--steps",
    "--no-pictures": "--no-images",
    "--pictures": "--images",
}

# Figurative phrases in docstrings, comments, messages and documentation, as regular expressions.
PHRASES: tuple[str, ...] = (
    r"learn(s|ed|ing)? (\w+ )?by heart",
    r"\bdrowned\b",
    r"left out unsaid",
    r"look(s|ing)? at nothing",
    r"says itself how",
)


def python_files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if path != Path(__file__).resolve())


def documents() -> list[Path]:
    return [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md")), ROOT / "Makefile"]


def tokens(text: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(text).readline))


def names_in(text: str) -> dict[str, int]:
    """Each name in Python code and the first line it is on; the expressions of f-strings included."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name", "asname")]
        names += (getattr(node, "module", None) and node.module.split(".")) or []  # ty: ignore[unresolved-attribute]
        for name in names:
            if isinstance(name, str):
                found.setdefault(name, getattr(node, "lineno", 0))
    return found


def definitions_in(text: str) -> dict[str, int]:
    """Functions, classes, arguments and annotated fields that Python code defines, and their lines."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.setdefault(node.name, node.lineno)
        elif isinstance(node, ast.arg):
            found.setdefault(node.arg, node.lineno)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.setdefault(node.target.id, node.lineno)
    return found


def prose_in(text: str) -> Iterator[tuple[int, str]]:
    """Strings and runs of comments of Python code on one line each, with the line where each begins."""
    comments: list[tokenize.TokenInfo] = []
    for token in tokens(text):
        if token.type == tokenize.COMMENT:
            comments.append(token)
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT):
            if comments:
                yield comments[0].start[0], " ".join(c.string.lstrip("# ") for c in comments)
                comments = []
            if token.type == tokenize.STRING:
                yield token.start[0], " ".join(token.string.split())


def retired_options(text: str) -> list[str]:
    return [old for old in OPTIONS if re.search(rf"(?<![\w-]){old}(?![\w-])", text)]


def retired_phrases(text: str) -> list[str]:
    return [match[0] for phrase in PHRASES if (match := re.search(phrase, text, re.IGNORECASE))]


def problems_of_code(text: str, folder: str = "") -> list[str]:
    """What is wrong with a Python file, a line each; ``folder`` is its folder in src/twofold."""
    local = DEFINITIONS.get(folder, {})
    suspect = any(
        re.search(rf"\b{old}\b", text) for old in [*NAMES, *local]
    )  # parsing all files takes seconds
    names, defined = (names_in(text), definitions_in(text)) if suspect else ({}, {})
    found = [f"line {names[old]}: {old} is now {new}" for old, new in NAMES.items() if old in names]
    found += [f"line {defined[old]}: {old} is now {new}" for old, new in local.items() if old in defined]
    for number, words in prose_in(text):
        found += [f"line {number}: {old} is now {OPTIONS[old]}" for old in retired_options(words)]
        found += [f"line {number}: {phrase!r} is figurative" for phrase in retired_phrases(words)]
    return found


def problems_of_prose(text: str) -> list[str]:
    found = [f"{old} is now {OPTIONS[old]}" for old in retired_options(text)]
    return found + [f"{phrase!r} is figurative" for phrase in retired_phrases(" ".join(text.split()))]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", FOLDERS)
def test_code_has_no_retired_names(folder: str) -> None:
    found = []
    for path in python_files():
        parts = path.relative_to(ROOT).parts
        if parts[0] == folder:
            package = parts[2] if parts[:2] == ("src", "twofold") else ""
            found += [f"{relative(path)}, {one}" for one in problems_of_code(path.read_text(), package)]
    assert not found, "\n".join(found)


def test_documents_have_no_retired_names() -> None:
    found = [
        f"{relative(path)}: {one}" for path in documents() for one in problems_of_prose(path.read_text())
    ]
    assert not found, "\n".join(found)


def test_files_are_found() -> None:
    assert len(python_files()) > 100 and len(documents()) > 10


@pytest.mark.parametrize(
    ("code", "folder"),
    [
        ("class Stop(Exception): ...", ""),
        ("from twofold.image.arrays import Ask", ""),
        ("x = f'{complain(1)}'", ""),
        ("settings.tap_channels", ""),
        ("def held(path): ...", "io"),
        ("def read(stored, ask): ...", "image"),
        ('"""The image is\n    drowned in noise."""', ""),
        ("x = 1  # they learn them\n# by heart", ""),
    ],
)
def test_a_retired_name_is_found(code: str, folder: str) -> None:
    assert len(problems_of_code(code, folder)) == 1


def test_other_uses_of_an_ordinary_word_are_allowed() -> None:
    assert not problems_of_code("held = 1  # held in memory", "io")
    assert not problems_of_code("def held(path): ...", "train")


def test_retired_phrases_in_documents_are_found_across_lines() -> None:
    assert problems_of_prose("What is skipped is never left\nout unsaid.") == [
        "'left out unsaid' is figurative"
    ]
