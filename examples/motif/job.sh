#!/bin/bash
# Find transcription factor binding motifs in a genome, a part of it on each of four nodes.
# Make the input first: ./make_genome.py
#STAGE nodes 4
#STAGE in  genome.fa  genome.fa
#STAGE in  params/    params/            to=all
#STAGE out hits-%N.txt  results/         from=all  on=success
#STAGE out log/       results/logs-%N/   from=all  on=always
set -e
stage each -- ./find_motif.py "$STAGE_DIR/genome.fa" --motifs "$STAGE_DIR/params/motifs.txt" \
    --part "%n/$STAGE_NNODES" --out "$STAGE_DIR/hits-%N.txt" --log "$STAGE_DIR/log"
