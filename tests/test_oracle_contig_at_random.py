"""1 GiB pages from random memory, in core and oracle alike; on the smaller "1 GiB" pages of `test_small_giga.py` only."""

from dataclasses import replace
from random import Random

import pytest

from core_world import CoreWorld
from gmemlab.core.layout import BLOCK_PAGES, GIGA_BLOCKS, GIGA_ORDER, KIND_ANON, KIND_CACHE, KIND_SHMEM, SHARED
from oracle import OracleHost
from world import ANON_THP, SHMEM_THP, SMALL, Policy, World, free_pages, new, synthetic

MOVABLE_4K = Policy(kind=KIND_SHMEM, movable=True)
CACHE = Policy(KIND_CACHE, (0,), movable=True)


def fill_at_random(random: Random, model: World) -> list[int]:
    """Files of every kind that can leave a run, and a few pages that cannot, until memory is short."""
    policies = [CACHE, MOVABLE_4K, SHMEM_THP, ANON_THP, replace(ANON_THP, sizes=(4, 0)), replace(ANON_THP, sizes=(3, 1, 0))]
    files = [new(model, 4, SMALL)] if random.random() < 0.3 else []
    for file in files:
        model.allocate(file, 0, 4)
    while free_pages(model) > random.randint(200, 2000):
        policy = random.choice(policies)
        pages = random.choice([BLOCK_PAGES, 3 * BLOCK_PAGES, 700])
        file = new(model, pages, policy)
        if policy.kind == KIND_ANON:
            model.access(file, 0, pages, SHARED)
        else:
            model.allocate(file, 0, pages)
        files.append(file)
    return files


@pytest.mark.skipif(GIGA_ORDER == 18, reason="looks at a quarter of a million pages; test_small_giga.py takes it")
@pytest.mark.parametrize("seed", range(12))
def test_core_and_oracle_empty_runs_alike(seed: int) -> None:
    """Page cache, whole folios and ones mapped in part, pins, watermarks and lists of CPUs: who goes where, and who stays."""
    zones, reserved, blocks = synthetic(4 * GIGA_BLOCKS - 1)
    grown = []
    models = [make(zones, reserved, blocks) for make in (CoreWorld, OracleHost)]
    for model in models:
        if seed % 3 == 1:
            model.set_watermarks(300, 500, seed % 2 == 0)
        if seed % 4 == 1:
            model.set_cpus(2, 16, 64, 256)
        random = Random(f"runs {seed}")
        files = fill_at_random(random, model)
        for _ in range(random.randint(20, 200)):
            file = random.choice(files)
            pages = sorted(model.observe()["files"][file])
            if pages:
                model.punch(file, random.choice(pages), random.choice([1, 16, 300]))
        if seed % 2:
            model.pin(files[-1], 0, 1)
        grown.append(model.grow_pool(GIGA_ORDER, 3, False))
        model.check()
    assert grown[0] == grown[1]
    assert models[0].observe() == models[1].observe()
