"""The motif example: the search against a slow and obvious one, and the genome generator's promises."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "motif"
MOTIFS = EXAMPLE / "params" / "motifs.txt"
BASES = 300_000
MEANS = {"A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT"}
MEANS |= {"K": "GT", "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"motif_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


find = load("find_motif")
make = load("make_genome")


def call(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(EXAMPLE / script), *map(str, args)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def write_fasta(path: Path, chromosomes: list[str], columns: int = 7, newline: str = "\n") -> Path:
    lines = []
    for number, sequence in enumerate(chromosomes):
        lines.append(f">c{number} of a test")
        lines += [sequence[at : at + columns] for at in range(0, len(sequence), columns)]
    path.write_bytes(newline.join([*lines, ""]).encode())
    return path


def found(genome: Path, motifs: list[Any], part: int = 0, parts: int = 1) -> list[tuple[object, ...]]:
    return [tuple(hit) for _, hits in find.search(genome, motifs, part, parts) for hit in hits]


def obvious(chromosomes: list[str], consensus: str) -> Counter[tuple[object, ...]]:
    """All hits, by comparing each window and its reverse complement base by base."""
    size = len(consensus)
    hits: Counter[tuple[object, ...]] = Counter()
    for number, sequence in enumerate(chromosomes):
        for at in range(len(sequence) - size + 1):
            window = sequence[at : at + size].upper()
            reverse = "".join({"A": "T", "C": "G", "G": "C", "T": "A"}.get(base, "N") for base in window[::-1])
            for strand, text in (("+", window), ("-", reverse)):
                if set(window) <= set("ACGT") and all(b in MEANS[c] for b, c in zip(text, consensus, strict=True)):
                    hits[f"c{number}", at + 1, strand, "m", text] += 1
    return hits


@given(
    chromosomes=st.lists(st.text("ACGTacgtN", min_size=1, max_size=60), min_size=1, max_size=4),
    consensus=st.text("".join(MEANS), min_size=1, max_size=5),
    parts=st.integers(1, 7),
    columns=st.integers(1, 20),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_parts_together_report_every_hit_exactly_once(
    tmp_path_factory: pytest.TempPathFactory,
    chromosomes: list[str],
    consensus: str,
    parts: int,
    columns: int,
    newline: str,
) -> None:
    genome = write_fasta(tmp_path_factory.getbasetemp() / "small.fa", chromosomes, columns, newline)
    motif = find.Motif("m", consensus)
    strands = [strand for strand, _ in motif.patterns()]
    hits = Counter(hit for part in range(parts) for hit in found(genome, [motif], part, parts))
    expected = obvious(chromosomes, consensus)
    if strands == ["."]:
        forward = {hit for hit in expected if hit[2] == "+"}
        assert {hit[1] for hit in forward} == {hit[1] for hit in expected if hit[2] == "-"}
        expected = Counter((hit[0], hit[1], ".", hit[3], hit[4]) for hit in forward)
    assert hits == expected


def test_each_part_searches_its_share_of_the_bases(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", ["A" * 50, "C" * 31, "G" * 20])
    shares = [sum(bases for bases, _ in find.search(genome, [], part, 4)) for part in range(4)]
    assert shares == [25, 25, 25, 26]


def test_a_motif_across_lines_and_parts_belongs_to_the_part_of_its_first_base(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", ["TTTTTTTGATTACATTTTTT"], columns=9)
    motif = find.Motif("m", "GATTACA")
    assert found(genome, [motif], 0, 2) == [("c0", 8, "+", "m", "GATTACA")]
    assert found(genome, [motif], 1, 2) == []


def test_a_motif_does_not_run_from_one_chromosome_into_the_next(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", ["CCGAT", "TACACC"])
    assert found(genome, [find.Motif("m", "GATTACA")]) == []


def test_reverse_strand_is_read_along_itself_at_its_leftmost_position(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", ["cctgtaatcgg"])
    assert found(genome, [find.Motif("m", "GATTWCA")]) == [("c0", 3, "-", "m", "GATTACA")]


def test_overlapping_hits_and_palindromes(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", ["ATATAT"])
    expected = [("c0", 1, ".", "m", "ATAT"), ("c0", 3, ".", "m", "ATAT")]
    assert found(genome, [find.Motif("m", "ATAT")]) == expected


def test_command_writes_hits_log_and_one_line(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", ["AAGATTACAAA"])
    (tmp_path / "m.txt").write_text("# comment\n\nletter gattaca # mine\n")
    args = (genome, "--motifs", tmp_path / "m.txt", "--part", "0/2", "--out", tmp_path / "hits.txt")
    done = call("find_motif.py", *args, "--log", tmp_path / "new" / "log")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("part 0/2: 1 hits in 5 bases, ")
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "hits.txt").read_text() == "c0\t3\t+\tletter\tGATTACA\n"
    assert done.stdout.strip() in (tmp_path / "new" / "log" / "part-0-of-2.log").read_text()


@pytest.mark.parametrize(
    ("genome", "motifs", "message"),
    [
        (">c0\nACGT\n", "one ACGJ\n", "m.txt:1: 'ACGJ' is not a sequence of IUPAC codes"),
        (">c0\nACGT\n", "one AC\nACGT\n", "m.txt:2: expected a name and a motif"),
        (">c0\nACGT\n", "one AC\none GT\n", "m.txt:2: a second motif named 'one'"),
        (">c0\nACGT\n", "# none\n", "m.txt: no motif in it"),
        ("ACGT\n", "one AC\n", "g.fa: not a FASTA file"),
        ("", "one AC\n", "g.fa: not a FASTA file"),
    ],
)
def test_wrong_input_is_one_line_and_is_logged(tmp_path: Path, genome: str, motifs: str, message: str) -> None:
    (tmp_path / "g.fa").write_text(genome)
    (tmp_path / "m.txt").write_text(motifs)
    args = (tmp_path / "g.fa", "--motifs", tmp_path / "m.txt", "--out", tmp_path / "hits.txt", "--log", tmp_path)
    done = call("find_motif.py", *args)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert message in (tmp_path / "part-0-of-1.log").read_text()


@pytest.mark.parametrize("part", ["4/4", "1", "-1/4", "0/0", "a/b"])
def test_wrong_part_is_wrong_usage(part: str) -> None:
    done = call("find_motif.py", "g.fa", "--motifs", "m.txt", "--out", "o", f"--part={part}")
    assert done.returncode == 2
    assert "--part" in done.stderr


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    make.write_genome(path, BASES, 1)
    return path


def test_planted_sites_are_all_found_by_parts(genome: Path) -> None:
    motifs = find.read_motifs(MOTIFS)
    planted = {(*site[:4], site[4].decode()) for site in make.planted(BASES, 1)}
    hits = [hit for part in range(4) for hit in found(genome, motifs, part, 4)]
    assert {site[3] for site in planted} == {motif.name for motif in motifs}
    assert {site[2] for site in planted} == {"+", "-", "."}
    assert planted <= set(hits)
    assert len(hits) == len(set(hits))


def test_genome_has_the_size_and_shape(genome: Path) -> None:
    assert genome.stat().st_size == make.file_size(BASES, 1)
    lines = genome.read_text().splitlines()
    assert sum(line.startswith(">") for line in lines) == len(make.WEIGHTS)
    assert max(len(line) for line in lines if not line.startswith(">")) == make.COLUMNS
    records = {record.name: record.sequence for record in find.read_fasta(genome)}
    assert {name: len(sequence) for name, sequence in records.items()} == make.chromosomes(BASES)
    assert sum(base in "acgt" for line in lines if line[0] != ">" for base in line) > BASES // 10
    windows = [records["chr1"][at : at + 5_000] for at in range(5_000, 80_000, 5_000)]
    contents = [(w.count(b"G") + w.count(b"C")) / len(w) for w in windows]
    assert max(contents) - min(contents) > 0.02


def test_genome_by_default_is_over_50_mb() -> None:
    assert make.file_size(54_000_000, 1) > 50 * 2**20


def test_genome_follows_from_the_seed_alone(genome: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    argv = [sys.executable, str(EXAMPLE / "make_genome.py"), f"--bases={BASES}"]
    subprocess.run([*argv, str(tmp_path / "same.fa")], env=env, check=True, capture_output=True)
    subprocess.run([*argv, str(tmp_path / "other.fa"), "--seed=2"], env=env, check=True, capture_output=True)
    assert (tmp_path / "same.fa").read_bytes() == genome.read_bytes()
    assert (tmp_path / "other.fa").read_bytes() != genome.read_bytes()


def test_genome_that_is_there_is_kept_and_a_wrong_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "g.fa"
    args = (path, "--bases", make.MIN_BASES)
    assert call("make_genome.py", *args).returncode == 0
    made, inode = path.read_bytes(), path.stat().st_ino
    assert "there already" in call("make_genome.py", *args).stdout
    assert path.stat().st_ino == inode
    path.write_bytes(made[:-1])
    assert call("make_genome.py", *args).returncode == 0
    assert path.read_bytes() == made
    assert list(tmp_path.iterdir()) == [path]


def test_planted_are_printed_as_hits() -> None:
    lines = call("make_genome.py", "--planted", "--bases", BASES).stdout.splitlines()
    planted = make.planted(BASES, 1)
    assert lines == [f"{c}\t{at}\t{strand}\t{motif}\t{site.decode()}" for c, at, strand, motif, site in planted]


def test_scripts_can_be_executed() -> None:
    for script in ("find_motif.py", "make_genome.py"):
        assert os.access(EXAMPLE / script, os.X_OK)
        assert (EXAMPLE / script).read_text().startswith("#!/usr/bin/env python3\n")
    assert (EXAMPLE / "job.sh").read_text().startswith("#!")
