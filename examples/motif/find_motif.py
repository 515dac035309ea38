#!/usr/bin/env python3
"""Find IUPAC motifs on both strands of a FASTA file, or of the K-th of N parts of it.

The output has one line a hit, separated by tabs: chromosome, position of the leftmost base (from 1, on the
forward strand), strand, motif, and the matched sequence read along that strand. A motif that is its own
reverse complement is reported once, with strand ".". A hit belongs to the part that holds its leftmost base,
so N parts together report every hit exactly once, overlapping hits and those across a boundary included.
"""

from __future__ import annotations

import argparse
import logging
import mmap
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CODES = "ACGTRYSWKMBDHVN"
CLASSES = "A C G T [AG] [CT] [CG] [AT] [GT] [AC] [CGT] [AGT] [ACT] [ACG] [ACGT]"
IUPAC = dict(zip(CODES, CLASSES.split(), strict=True))
COMPLEMENT = str.maketrans(CODES, "TGCAYRSWMKVHDBN")
UPPER = bytes(range(256)).upper()

log = logging.getLogger("find_motif")


class InputError(ValueError):
    """A file that is not what it should be."""


class Hit(NamedTuple):
    """One line of the output."""

    chromosome: str
    position: int
    strand: str
    motif: str
    sequence: str


class Record(NamedTuple):
    """One sequence of a FASTA file, in upper case and without line ends."""

    name: str
    sequence: bytes


@dataclass(frozen=True)
class Motif:
    """A name and a consensus of IUPAC codes."""

    name: str
    consensus: str

    def __post_init__(self) -> None:
        if not self.consensus or set(self.consensus) - set(IUPAC):
            raise InputError(f"{self.consensus!r} is not a sequence of IUPAC codes ({CODES})")

    def patterns(self) -> Iterator[tuple[str, re.Pattern[bytes]]]:
        """Each strand to search, with the pattern that finds it on the forward strand."""
        reverse = reverse_complement(self.consensus)
        if reverse == self.consensus:
            yield ".", compile_iupac(self.consensus)
        else:
            yield "+", compile_iupac(self.consensus)
            yield "-", compile_iupac(reverse)


def reverse_complement(sequence: str) -> str:
    """The other strand of an upper-case sequence; characters that are not IUPAC codes stay."""
    return sequence[::-1].translate(COMPLEMENT)


def compile_iupac(consensus: str) -> re.Pattern[bytes]:
    """A pattern whose matches may overlap: it consumes one base and looks ahead at the others.

    Consuming one keeps `re`'s quick scan for the first character, which a mere lookahead would lose.
    """
    first, *others = (IUPAC[code] for code in consensus)
    return re.compile(f"{first}(?={''.join(others)})".encode())


def read_motifs(path: Path) -> list[Motif]:
    """The motifs of a file of `name consensus` lines; `#` begins a comment."""
    motifs: dict[str, Motif] = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            name, consensus = words
            motif = Motif(name, consensus.upper())
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        except ValueError:
            raise InputError(f"{path}:{number}: expected a name and a motif, not {line.strip()!r}") from None
        if name in motifs:
            raise InputError(f"{path}:{number}: a second motif named {name!r}")
        motifs[name] = motif
    if not motifs:
        raise InputError(f"{path}: no motif in it")
    return list(motifs.values())


def read_fasta(path: Path) -> Iterator[Record]:
    """The records of a FASTA file in order, one in memory at a time."""
    with path.open("rb") as file:
        if file.read(1) != b">":
            raise InputError(f"{path}: not a FASTA file, it does not begin with '>'")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = 0
            while start < len(data):
                end = data.find(b"\n>", start)
                end = len(data) if end < 0 else end
                header, _, body = data[start:end].partition(b"\n")
                name = header[1:].decode(errors="replace").split()
                yield Record(name[0] if name else "", body.translate(UPPER, b"\r\n\t "))
                start = end + 1


def search_record(record: Record, motifs: Sequence[Motif], start: int, end: int) -> list[Hit]:
    """The hits whose leftmost base is in [start, end), counted from 0, sorted by position."""
    hits = []
    for motif in motifs:
        length = len(motif.consensus)
        for strand, pattern in motif.patterns():
            for match in pattern.finditer(record.sequence, start, end + length - 1):
                at = match.start()
                found = record.sequence[at : at + length].decode()
                sequence = reverse_complement(found) if strand == "-" else found
                hits.append(Hit(record.name, at + 1, strand, motif.name, sequence))
    return sorted(hits, key=lambda hit: hit.position)


def search(genome: Path, motifs: Sequence[Motif], part: int, parts: int) -> Iterator[tuple[int, list[Hit]]]:
    """Search part `part` (from 0) of `parts`: for each chromosome in it, the bases searched and the hits."""
    total = sum(len(record.sequence) for record in read_fasta(genome))
    first, last = total * part // parts, total * (part + 1) // parts
    offset = 0
    for record in read_fasta(genome):
        length = len(record.sequence)
        start, end = max(first - offset, 0), min(last - offset, length)
        if start < end:
            yield end - start, search_record(record, motifs, start, end)
        offset += length


def run(genome: Path, motifs: Path, part: tuple[int, int], out: Path) -> str:
    """Write the hits of one part to `out` and return the summary line."""
    began = time.perf_counter()
    hits = bases = 0
    with out.open("w") as file:
        for searched, found in search(genome, read_motifs(motifs), *part):
            file.writelines("\t".join(map(str, hit)) + "\n" for hit in found)
            bases += searched
            hits += len(found)
    return f"part {part[0]}/{part[1]}: {hits} hits in {bases} bases, {time.perf_counter() - began:.2f} s"


def parse_part(text: str) -> tuple[int, int]:
    """`K/N` as two numbers, K counted from 0."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N with K from 0 to N-1")
    return int(match[1]), int(match[2])


def main() -> int:
    """Run the command line; 0 if the part was searched, 1 if a file could not be used, 2 for wrong usage."""
    parser = argparse.ArgumentParser(description="Find IUPAC motifs on both strands of a FASTA file.")
    parser.add_argument("genome", type=Path, metavar="GENOME", help="the FASTA file")
    parser.add_argument("--motifs", type=Path, required=True, help="file of `name motif` lines")
    parser.add_argument("--part", type=parse_part, default=(0, 1), metavar="K/N", help="search part K of N")
    parser.add_argument("--out", type=Path, required=True, help="file for the hits")
    parser.add_argument("--log", type=Path, metavar="DIR", help="directory for a log file")
    args = parser.parse_args()
    try:
        if args.log:
            args.log.mkdir(parents=True, exist_ok=True)
            name = "part-{}-of-{}.log".format(*args.part)
            logging.basicConfig(filename=args.log / name, level=logging.INFO, format="%(asctime)s %(message)s")
            log.info("search %s for %s", args.genome, args.motifs)
        summary = run(args.genome, args.motifs, args.part, args.out)
    except (OSError, InputError) as error:
        if args.log:
            log.error("failed: %s", error)
        print(f"find_motif.py: {error}", file=sys.stderr)
        return 1
    log.info("%s", summary)
    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
