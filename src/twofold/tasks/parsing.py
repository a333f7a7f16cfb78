"""Parts of people: instances of `semantic_task`."""

from __future__ import annotations

from .semantic import semantic_logits_task, semantic_task

# The parts of PASCAL-Person-Part (Chen et al. 2014) as multi-task benchmarks group them; 255 is not labelled.
PERSON_PARTS = ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")
UNLABELLED = (255,)

parsing = semantic_task(PERSON_PARTS, UNLABELLED, "parsing", "parts of people", "parts")
parsing_logits = semantic_logits_task(PERSON_PARTS, UNLABELLED, "parsing_logits", "parts of people", "parts")
