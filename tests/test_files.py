"""Files and folders that appear whole or not at all."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nbs_lib.files import (
    atomic_folder,
    link,
    open_to_others,
    read_jsonl,
    remove_stale_temporaries,
    write_atomic,
    write_jsonl,
)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 5)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_jsonl_skips_half_a_line(tmp_path):
    path, rows = tmp_path / "a.jsonl", [{"a": "one\u2028line\n"}, {"b": 2.5}]
    assert read_jsonl(path) == []
    write_jsonl(path, rows)
    with path.open("a") as file:
        file.write(json.dumps({"c": 1}))  # a process was killed before the line's end
    assert read_jsonl(path) == rows


def test_the_first_of_two_builders_wins(tmp_path):
    folder = tmp_path / "key"
    with atomic_folder(folder) as part:
        (part / "builder").write_text("slow")
        folder.mkdir()
        (folder / "builder").write_text("fast")
    assert (folder / "builder").read_text() == "fast" and list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "compare"
    with atomic_folder(folder, replace=True) as part:
        (part / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(folder, replace=True) as part:
        (part / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    with atomic_folder(folder, replace=True) as part:
        (part / "b").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["b"] and list(tmp_path.iterdir()) == [
        folder
    ]


def test_temporaries_of_running_processes_stay(tmp_path):
    with atomic_folder(tmp_path / "key") as part:
        remove_stale_temporaries(tmp_path)
        assert part.is_dir()


def test_a_link_moves_in_one_step_and_never_over_a_real_folder(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        link(tmp_path / "now", tmp_path / name)
        assert (tmp_path / "now").resolve() == tmp_path / name and not (
            tmp_path / "now"
        ).readlink().is_absolute()
    with pytest.raises(FileExistsError, match="in the way"):
        link(tmp_path / "one", tmp_path / "two")


def test_a_link_resolves_from_a_folder_that_is_a_link_itself(tmp_path):
    for name in ("cache", "elsewhere/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere" / "deep")
    link(tmp_path / "run" / "cache", tmp_path / "cache")
    assert (tmp_path / "run" / "cache").samefile(tmp_path / "cache")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    yield
    os.umask(before)


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o027, 0o077])
def test_safetensors_files_get_the_mode_that_the_umask_allows(tmp_path, mask):
    import torch
    from safetensors.torch import save_file

    from nbs_lib.cache.shards import write_shard

    tensors = {"a": torch.zeros(1)}
    with umask(mask):
        with atomic_folder(tmp_path / "export") as part:
            (part / "unet").mkdir()
            save_file(tensors, part / "unet" / "weights.safetensors")
            (part / "README.md").write_text("a card")
        write_shard(tmp_path / "cache" / "shard.safetensors", tensors)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    files = {name: mode for name, mode in modes.items() if "." in name}
    assert len(files) == 3 and set(files.values()) == {0o666 & ~mask}
    assert {mode for name, mode in modes.items() if name not in files} == {0o777 & ~mask}


def test_a_file_of_another_mode_keeps_it(tmp_path):
    # it may be a hard link into the cache of another user, who alone may change it
    file = tmp_path / "shard.safetensors"
    file.write_bytes(b"")
    file.chmod(0o640)
    open_to_others(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
