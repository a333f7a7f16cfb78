"""Which example comes when: exact shares, no repeats before their time, and nothing but the recipe and the number."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

import world
from twofold.data.folder import Folder
from twofold.io import derive_seed
from twofold.tasks import get_task
from twofold.train import DataConfig, DenoiserConfig, Recipe, Source
from twofold.train.examples import drop_caption, pools
from twofold.train.sampler import DeterministicSampler, generator, weighted_round_robin

# Shares of sources, and how large their pools are; a pool of 0 has no samples of the kind.
KINDS = {"image": 0.5, "depth": 2.0, "normals": 1.3}
SOURCES = (0.9, 0.1, 3.0)
POOLS = {"image": (7, 11, 5), "depth": (7, 0, 4), "normals": (1, 11, 0)}


def recipe(**changes) -> Recipe:
    sources = tuple(Source(path=f"s{i}", share=s) for i, s in enumerate(SOURCES))
    return Recipe(
        name="order", model=DenoiserConfig(), data=DataConfig(sources=sources, task_weights=KINDS)
    ).replace(**changes)


def order(plan: Recipe) -> DeterministicSampler:
    # Samples differ by source, so that an exchange would be detected.
    return DeterministicSampler(
        plan, {k: [[100 * s + i for i in range(n)] for s, n in enumerate(p)] for k, p in POOLS.items()}
    )


@pytest.mark.parametrize(
    "shares", [(1, 1), (0.9, 0.1), (1, 0, 2), (0.1, 0.2, 0.3, 0.4), (5,), (1e-3, 1, 1e3)]
)
def test_after_any_number_of_turns_each_has_had_its_share(shares):
    exact = [Fraction(str(s)) for s in shares]
    had = [0] * len(shares)
    for n in range(3000):
        k, before = weighted_round_robin(shares, n)
        assert before == had[k], "how many turns it had before"
        had[k] += 1
        for i, share in enumerate(exact):
            assert abs(had[i] - (n + 1) * share / sum(exact)) <= Fraction(1, 2) + i
    assert all(h == 0 for h, s in zip(had, shares, strict=True) if s == 0)


def test_a_turn_is_found_without_those_before_it():
    """Turn ten million costs no more than the first, and is the one that counting would give."""
    k, before = weighted_round_robin((0.9, 0.1), 10_000_000)
    assert (k, before) in {(0, 9_000_000), (1, 1_000_000)}
    with pytest.raises(ValueError, match="every share is 0"):
        weighted_round_robin((0, 0.0), 3)


@pytest.mark.parametrize("together", [1, 4])
def test_shares_of_kinds_and_of_the_sources_of_each_kind_are_kept(together):
    plan = recipe(data={"block_size": together})
    made = order(plan)
    kinds: Counter[str] = Counter()
    sources: Counter[tuple[str, int]] = Counter()
    for n in range(1200):
        pick = made(n)
        kinds[pick.kind] += 1
        sources[pick.kind, pick.source] += 1
        for kind, share in KINDS.items():
            assert abs(kinds[kind] - (n + 1) * share / sum(KINDS.values())) <= 3 * together
            able = [s if size else 0 for s, size in zip(SOURCES, POOLS[kind], strict=True)]
            for source, part in enumerate(able):
                expected = kinds[kind] * part / sum(able)
                assert abs(sources[kind, source] - expected) <= 3 * together


@pytest.mark.parametrize("together", [1, 4])
def test_every_sample_is_seen_once_before_any_is_seen_twice(together):
    made = order(recipe(data={"block_size": together}))
    seen: dict[tuple[str, int], list[int]] = {}
    for n in range(1200):
        pick = made(n)
        seen.setdefault((pick.kind, pick.source), []).append(pick.sample)
    for (kind, source), samples in seen.items():
        size = POOLS[kind][source]
        pool = {100 * source + i for i in range(size)}
        rounds = [samples[i : i + size] for i in range(0, len(samples), size)]
        assert all(set(r) == pool for r in rounds[:-1])
        assert len(set(rounds[-1])) == len(rounds[-1])
        if size > 4 and len(rounds) > 3:
            assert len({tuple(r) for r in rounds[:-1]}) > 1, "another order each time"


def test_a_block_of_examples_has_one_source_and_one_task():
    made = order(recipe(data={"block_size": 4}))
    groups = [[made(4 * g + i) for i in range(4)] for g in range(300)]
    assert all(len({(p.kind, p.source) for p in group}) == 1 for group in groups)
    assert len({(group[0].kind, group[0].source) for group in groups}) == 7


def test_an_example_depends_on_the_recipe_and_its_number_alone():
    """Backwards, from the middle or by another object: the same examples. Another seed: others."""
    numbers = [(i * 389) % 500 for i in range(500)]
    first, backwards = order(recipe()), order(recipe())
    there = [first(n) for n in range(500)]
    assert [backwards(n) for n in numbers] == [there[n] for n in numbers]
    assert [p.number for p in there] == list(range(500))
    # What is not about the order does not change it.
    assert [
        order(recipe(optimizer={"lr": 1.0}, loop={"batch_size": 3, "steps": 7}))(n) for n in range(60)
    ] == there[:60]
    other = [order(recipe(loop={"seed": 1}))(n) for n in range(500)]
    assert [(p.kind, p.source) for p in other] == [(p.kind, p.source) for p in there]
    assert [p.sample for p in other] != [p.sample for p in there]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.75, 1.0])
def test_captions_are_dropped_with_the_recipe_s_probability(share):
    plan = recipe(model={"caption_dropout": share})
    found = [drop_caption("a chair", plan, generator("drop", i)) for i in range(2000)]
    assert set(found) <= {"", "a chair"}
    assert found.count("") / 2000 == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)


def test_seeds_differ_where_any_key_does_and_nowhere_else():
    keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 11), (0, "a1", 1), (0, "a1")]
    seeds = [derive_seed(*k) for k in keys]
    assert len({*seeds}) == len(keys)
    assert all(0 <= s < 2**63 for s in seeds)
    assert torch.equal(*(torch.rand(4, generator=generator(3, "x")) for _ in range(2)))


@pytest.mark.parametrize("limit", [{"fraction": 0.3}, {"limit": 30}])
def test_a_random_selection_is_a_seed_s_own_and_grows_with_the_fraction(limit):
    used = Source(path="x", selection="random", selection_seed=7, **limit).indices(100)
    assert len(used) == len({*used}) == 30
    assert used == sorted(used)
    assert used == Source(path="x", selection="random", selection_seed=7, **limit).indices(100)
    assert used != Source(path="x", selection="random", selection_seed=8, **limit).indices(100)
    assert {b - a for a, b in pairwise(used)} > {1, 2}
    more = Source(path="x", selection="random", selection_seed=7, fraction=0.6).indices(100)
    assert {*used} < {*more} and len(more) == 60
    assert Source(path="x", selection="random", fraction=1.0).indices(5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("limit", [{"fraction": 0.3}, {"limit": 30}])
def test_limits_and_fractions_take_samples_evenly(limit):
    used = Source(path="x", **limit).indices(100)
    assert len(used) == len({*used}) == 30
    assert used == sorted(used)
    assert {b - a for a, b in pairwise(used)} <= {3, 4}
    assert Source(path="x", **limit).indices(1) == [0]
    assert Source(path="x", limit=5).indices(3) == [0, 1, 2]
    assert Source(path="x").indices(4) == [0, 1, 2, 3]


def test_fractions_of_a_data_set_have_their_count():
    """Table 12's halvings of a data set: the count is the fraction of it to the nearest, and never none."""
    for fraction in (1.0, 0.5, 0.25, 0.125, 0.01):
        assert len(Source(path="x", fraction=fraction).indices(1000)) == fraction * 1000
    assert len(Source(path="x", fraction=0.001).indices(10)) == 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three data folders; the second has no normals."""
    root = tmp_path_factory.mktemp("order")
    made = [world.folder(root / name, count, 16) for name, count in (("a", 3), ("b", 4), ("c", 5))]
    lines = (made[1] / "metadata.jsonl").read_text()
    (made[1] / "metadata.jsonl").write_text(lines.replace('"normals"', '"albedo"'))
    return [Folder(path, targets=("depth", "normals")) for path in made]


def test_a_number_of_labels_is_taken_from_the_first_sources_for_each_task(folders):
    tasks = {t: get_task(t) for t in ("depth", "normals")}
    usable = [list(range(len(f))) for f in folders]
    for labels, depth, normals in (
        (0, [3, 4, 5], [3, 0, 5]),
        (5, [3, 2, 0], [3, 0, 2]),
        (2, [2, 0, 0], [2, 0, 0]),
    ):
        found = pools(recipe(data={"label_limit": labels}), tasks, folders, usable)
        assert [len(p) for p in found["depth"]] == depth
        assert [len(p) for p in found["normals"]] == normals
        assert [len(p) for p in found["image"]] == [3, 4, 5], "pictures need no labels"
    # What cannot be used is not counted among the labels.
    found = pools(recipe(data={"label_limit": 3}), tasks, folders, [[1], [0, 3], [2, 3, 4]])
    assert found["depth"] == [[1], [0, 3], []]
    assert found["normals"] == [[1], [], [2, 3]]


def test_a_task_without_a_source_is_reported():
    lonely = {**{k: [[0], [0], [0]] for k in KINDS}, "normals": [[], [], []]}
    with pytest.raises(ValueError, match=r"no source with a share above 0 has a target of normals"):
        DeterministicSampler(recipe(), lonely)
    without_share = recipe(data={"sources": (Source(path="a", share=0), Source(path="b"))})
    with pytest.raises(ValueError, match=r"no source with a share above 0 has a target of depth"):
        DeterministicSampler(without_share, {"image": [[0], [0]], "depth": [[0], []], "normals": [[0], [0]]})
