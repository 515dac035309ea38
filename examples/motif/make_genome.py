#!/usr/bin/env python3
"""Make the genome that the example searches: synthetic, but shaped like a real one.

The GC content drifts along each chromosome, about a quarter is repeats (diverged copies of a short and a long
element, and microsatellites) in lower case as genome browsers ship them, the ends are gaps of N, and binding
sites are planted at known places. The bytes follow from the seed and the number of bases alone.

`make_genome.py --planted` prints the planted sites as find_motif.py reports them, so that this prints nothing
once all of them were found:

    comm -23 <(./make_genome.py --planted | sort) <(sort results/hits-*.txt)
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = 60
WINDOW = 50_000  # bases of one GC content
MIN_BASES = 10_000
WEIGHTS = {"chr1": 30, "chr2": 25, "chr3": 20, "chr4": 15, "chr5": 10}
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")

# One site of each motif in params/motifs.txt and the strands to plant it on; "." for the motifs that are their
# own reverse complement.
SITES = (
    ("CTCF", b"CCGCGAGGTGGCAG", "+-"),
    ("REST", b"TTCAGCACCACGGACAG", "+-"),
    ("p53", b"AGACATGCCTGGGCATGTCC", "."),
    ("CREB", b"TGACGTCA", "."),
    ("NF-kB", b"GGGACTTTCC", "+-"),
    ("TATA", b"TATAAAAG", "+-"),
)
BASES_PER_SITE = 100_000


def chromosomes(bases: int) -> dict[str, int]:
    """The length of each chromosome; together `bases`."""
    lengths = {name: bases * weight // sum(WEIGHTS.values()) for name, weight in WEIGHTS.items()}
    lengths["chr1"] += bases - sum(lengths.values())
    return lengths


def header(name: str, length: int, seed: int) -> bytes:
    """The FASTA header line, from which an existing file is recognised."""
    return f">{name} synthetic length={length} seed={seed}\n".encode()


def file_size(bases: int, seed: int) -> int:
    """The size of the FASTA file in bytes."""
    lengths = chromosomes(bases).items()
    return sum(len(header(name, size, seed)) + size + -(-size // COLUMNS) for name, size in lengths)


def gap(length: int) -> int:
    """How many N a chromosome has at each end."""
    return length // 200


def planted(bases: int, seed: int) -> Iterator[tuple[str, int, str, str, bytes]]:
    """The planted sites: chromosome, position from 1, strand, motif, and the sequence along that strand."""
    for chromosome, length in chromosomes(bases).items():
        rng = random.Random(f"{seed} {chromosome} sites")
        count = max(len(SITES), length // BASES_PER_SITE)
        room = (length - 2 * gap(length)) // count  # one site in each, so that none overlap
        for index in range(count):
            motif, site, strands = SITES[index % len(SITES)]
            at = gap(length) + index * room + rng.randrange(room - len(site))
            yield chromosome, at + 1, rng.choice(strands), motif, site


def random_bases(rng: random.Random, length: int, gc: float) -> bytes:
    """`length` independent bases of which the fraction `gc` is G or C."""
    strong = round(gc * 128)
    table = b"G" * strong + b"C" * strong + b"A" * (128 - strong) + b"T" * (128 - strong)
    return rng.randbytes(length).translate(table)


def reverse_complement(sequence: bytes) -> bytes:
    """The other strand of a sequence of A, C, G and T."""
    return sequence[::-1].translate(COMPLEMENT)


def copies(rng: random.Random, element: bytes, shortest: int, count: int = 200) -> list[bytes]:
    """Copies of a repeat element as they are found in genomes: diverged, truncated at the start, either strand."""
    made = []
    for _ in range(count):
        copy = bytearray(element[rng.randrange(len(element) - shortest + 1) :])
        for at in rng.sample(range(len(copy)), round(len(copy) * rng.uniform(0.02, 0.2))):
            copy[at] = rng.choice(b"ACGT")
        made.append(bytes(copy) if rng.random() < 0.5 else reverse_complement(bytes(copy)))
    return made


def repeat_families(seed: int) -> list[tuple[int, list[bytes]]]:
    """The repeats, the same for all chromosomes: bases of genome per copy, and the copies to choose from."""
    rng = random.Random(f"{seed} repeats")
    units = [random_bases(rng, size, 0.4) for size in (2, 2, 3, 4, 4, 5)]
    return [
        (3_000, copies(rng, random_bases(rng, 300, 0.6), 250)),
        (10_000, copies(rng, random_bases(rng, 3_000, 0.42), 300)),
        (20_000, [rng.choice(units) * rng.randrange(8, 30) for _ in range(200)]),
    ]


def make_chromosome(name: str, length: int, seed: int, repeats: list[tuple[int, list[bytes]]]) -> bytearray:
    """The sequence of one chromosome before sites are planted in it."""
    rng = random.Random(f"{seed} {name}")
    sequence = bytearray()
    gc = 0.42
    while len(sequence) < length:
        sequence += random_bases(rng, min(WINDOW, length - len(sequence)), gc)
        gc = min(max(gc + rng.uniform(-0.04, 0.04), 0.34), 0.60)
    for spacing, choices in repeats:
        for _ in range(length // spacing):
            repeat = rng.choice(choices).lower()
            at = rng.randrange(length - len(repeat))
            sequence[at : at + len(repeat)] = repeat
    ends = gap(length)
    sequence[:ends] = sequence[length - ends :] = b"N" * ends
    return sequence


def write_genome(path: Path, bases: int, seed: int) -> None:
    """Write the FASTA file at once: to a temporary name, then renamed."""
    sites: dict[str, list[tuple[int, bytes]]] = {name: [] for name in WEIGHTS}
    for chromosome, position, strand, _, site in planted(bases, seed):
        sites[chromosome].append((position - 1, reverse_complement(site) if strand == "-" else site))
    repeats = repeat_families(seed)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            for name, length in chromosomes(bases).items():
                sequence = make_chromosome(name, length, seed, repeats)
                for at, site in sites[name]:
                    sequence[at : at + len(site)] = site
                file.write(header(name, length, seed))
                file.write(b"\n".join(sequence[at : at + COLUMNS] for at in range(0, length, COLUMNS)) + b"\n")
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_made(path: Path, bases: int, seed: int) -> bool:
    """Whether the file is there already, by its size and first line."""
    if not path.is_file() or path.stat().st_size != file_size(bases, seed):
        return False
    with path.open("rb") as file:
        return file.readline() == header("chr1", chromosomes(bases)["chr1"], seed)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make the synthetic genome of the motif example.")
    parser.add_argument("out", nargs="?", type=Path, default=Path(__file__).with_name("genome.fa"))
    parser.add_argument("--bases", type=int, default=54_000_000, help="length of the genome (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes another genome")
    parser.add_argument("--planted", action="store_true", help="only print where sites are planted")
    args = parser.parse_args()
    if args.bases < MIN_BASES:
        parser.error(f"--bases must be at least {MIN_BASES}")
    if args.planted:
        for chromosome, position, strand, motif, site in planted(args.bases, args.seed):
            print(chromosome, position, strand, motif, site.decode(), sep="\t")
        return 0
    if is_made(args.out, args.bases, args.seed):
        print(f"{args.out.name} is there already")
        return 0
    write_genome(args.out, args.bases, args.seed)
    print(f"{args.out.name}: {args.out.stat().st_size} bytes, {args.bases} bases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
