"""Seeds, shards and JSONL lines: each has one definition in `twofold.io`."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.io import Shard, append_line, complete_lines, derive_seed, sha256_file, truncate_partial_line


def test_seeds_depend_on_all_keys_and_their_order() -> None:
    keys = [(0,), (1,), (0, 1), (1, 0), (0, "a"), ("0", 1, 2)]
    assert len({derive_seed(*k) for k in keys}) == len(keys)
    assert all(0 <= derive_seed(*k) < 2**63 for k in keys)


def test_a_seed_is_the_same_on_every_machine() -> None:
    """SHA-256 of "5/selection", its first 8 bytes as a little-endian number, without the last bit."""
    assert derive_seed(5, "selection") == derive_seed("5/selection") == 3157579667319566849


@pytest.mark.parametrize("total", [0, 1, 7, 12])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_are_disjoint_and_complete(total: int, count: int) -> None:
    items = list(range(total))
    shares = [Shard(index, count) for index in range(count)]
    assert sorted(i for shard in shares for i in shard.select(items)) == items
    assert [shard.size(total) for shard in shares] == [len(shard.select(items)) for shard in shares]


def test_shards_are_written_counted_from_one() -> None:
    assert Shard.parse("1/4") == Shard(0, 4)
    assert [str(Shard.parse(text)) for text in ("1/1", "2/3", "3/3")] == ["1/1", "2/3", "3/3"]
    for text in ("0/2", "3/2", "1", "a/b", "-1/2", "1/2/3", ""):
        with pytest.raises(ValueError, match="I from 1 to N"):
            Shard.parse(text)
    with pytest.raises(ValueError, match="no shard 3 of 2"):
        Shard(2, 2)


def test_a_line_that_a_kill_cut_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_line(path, '{"é": 1}')
    append_line(path, "{}")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"half": ')
    assert complete_lines(path) == ['{"é": 1}', "{}"]
    assert truncate_partial_line(path) == len(whole)
    assert path.read_bytes() == whole
    path.write_bytes(b"half")
    assert truncate_partial_line(path) == 0 and complete_lines(path) == []


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
