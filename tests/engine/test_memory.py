"""The plan never gives out more than there is, says where it goes, and refuses by how much it falls short."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import settings
from pipeline.engine import free_memory, memory
from pipeline.errors import ResourceError

MEDIUM = settings.model("phi3-medium").shape
CUDA = torch.device("cuda")


@given(st.integers(1500, 60_000), st.sampled_from(["cpu", "cuda"]), st.sampled_from([torch.bfloat16, torch.float32]))
def test_what_is_given_out_is_what_is_there(free_mib: int, device: str, dtype: torch.dtype) -> None:
    if free_mib < 3500:  # too little for one context in float32; what then: below
        free_mib += 3500
    planned = memory.plan(MEDIUM, dtype, torch.device(device), free_mib * memory.MIB)
    given_out = planned.margin_bytes + planned.workspace_bytes + planned.pass_bytes + planned.kv_bytes
    assert given_out <= planned.free_bytes
    assert planned.limits.slots >= MEDIUM.max_positions
    assert planned.pass_bytes >= planned.limits.budget_rows * memory.activation_bytes_per_row(MEDIUM, dtype)
    assert planned.margin_bytes >= 0.09 * planned.free_bytes


def test_more_memory_never_means_less() -> None:
    plans = [memory.plan(MEDIUM, torch.bfloat16, CUDA, mib * memory.MIB) for mib in range(2000, 40_000, 500)]
    for less, more in pairwise(plans):
        assert more.limits.budget_rows >= less.limits.budget_rows
        assert more.pass_bytes + more.kv_bytes >= less.pass_bytes + less.kv_bytes


def test_too_little_is_refused_by_how_much() -> None:
    with pytest.raises(ResourceError) as caught:
        memory.plan(MEDIUM, torch.bfloat16, CUDA, 800 * memory.MIB)
    assert caught.value.code == "R302"
    assert "are missing" in caught.value.actual


def test_a_small_model_on_a_small_device_gets_a_plan() -> None:
    small = replace(MEDIUM, hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, intermediate=1536)
    assert memory.plan(small, torch.float32, torch.device("cpu"), 1024 * memory.MIB).limits.budget_rows == 256


# What is free


def group(root: Path, where: str, files: dict[str, object]) -> None:
    folder = root / "sys/fs/cgroup" / where
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n", encoding="ascii")


def v2(limit: object, used: int, cache: int) -> dict[str, object]:
    return {"memory.max": limit, "memory.current": used, "memory.stat": f"anon 7\ninactive_file {cache}"}


def test_without_a_limit_nothing_is_said(tmp_path: Path) -> None:
    assert free_memory.container_room_bytes(tmp_path) is None
    group(tmp_path, "", v2("max", 500, 100))
    assert free_memory.container_room_bytes(tmp_path) is None


def test_a_containers_limit_counts_less_what_is_used_but_not_its_cache(tmp_path: Path) -> None:
    group(tmp_path, "", v2(1000, 500, 200))
    assert free_memory.container_room_bytes(tmp_path) == 700


def test_a_limit_above_our_own_group_counts_too(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user/ours\n", encoding="ascii")
    group(tmp_path, "user/ours", v2("max", 10, 0))
    group(tmp_path, "user", v2(900, 100, 50))
    assert free_memory.container_room_bytes(tmp_path) == 850


def test_version_1_of_the_kernels_groups_is_read_as_well(tmp_path: Path) -> None:
    stat = "total_inactive_file 30"
    group(tmp_path, "memory", {"memory.limit_in_bytes": 400, "memory.usage_in_bytes": 100, "memory.stat": stat})
    assert free_memory.container_room_bytes(tmp_path) == 330
    group(tmp_path, "memory", {"memory.limit_in_bytes": 2**63 - 4096})
    assert free_memory.container_room_bytes(tmp_path) is None


def test_this_machine_has_something_free() -> None:
    free = free_memory.free_bytes(torch.device("cpu"))
    assert 0 < free <= psutil.virtual_memory().total
