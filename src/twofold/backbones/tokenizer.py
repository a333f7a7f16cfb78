"""Training of a CLIP tokenizer's vocabulary on captions, without a download."""

from __future__ import annotations

import json
from collections.abc import Iterable

from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def learn_tokenizer(captions: Iterable[str], vocabulary: int = 1024, length: int = 32) -> CLIPTokenizer:
    """Learn byte-pair merges from lower-cased captions.

    Args:
        captions: any number of captions.
        vocabulary: maximal number of entries, including the two special tokens and all single bytes.
        length: tokens of a padded prompt, including the two special ones.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    model = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*letters, *(c + "</w>" for c in letters)],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    model.train_from_iterator(captions, trainer)
    learned = json.loads(model.to_str())["model"]
    vocab = dict(learned["vocab"])
    for token in (START, END):
        vocab.setdefault(token, len(vocab))
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)
