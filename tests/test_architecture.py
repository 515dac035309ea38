"""Which way imports run: the contracts of pyproject.toml, and what they cannot say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_import_contracts_are_kept() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 5 kept, 0 broken." in done.stdout


def test_the_mover_imports_itself_the_standard_library_and_blake3_alone() -> None:
    graph = grimp.build_graph("staging", include_external_packages=True)
    modules = {"staging.mover", *graph.find_descendants("staging.mover")}
    allowed = modules | sys.stdlib_module_names | {"blake3"}
    imported = {found for module in modules for found in graph.find_modules_directly_imported_by(module)}
    assert "staging.mover.errors" in imported
    assert imported - allowed == set()


@pytest.mark.parametrize("module", ["cluster.door", "cluster.commands.status", "scheduler_hooks.stage"])
def test_what_must_start_fast_loads_no_heavy_module(module: str) -> None:
    heavy = {"asyncio", "dask", "distributed", "cryptography", "rich", "ClusterShell"}
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
