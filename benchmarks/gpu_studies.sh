#!/usr/bin/env bash
# All studies on JHMDB at 112 pixels on one GPU, three seeds: bash benchmarks/gpu_studies.sh JHMDB OUT [SHAPES]
# Nine minutes at most; type it again until it ends with 0 (75: stopped, there is more to do).
# SMALL=1: a few steps of everything, to see on a CPU that all of it runs.
set -euo pipefail
data=$1 out=$2 other=${3:-}
options=(--preset laptop --device cuda --precision bf16 --seeds 3 --dir "$out" --jobs "${JOBS:-2}" --threads 4
    --search.augment.short_side_min 112 --search.augment.short_side_max 160 --search.augment.crop 112
    --train.augment.short_side_min 112 --train.augment.short_side_max 160 --train.augment.crop 112
    --train.augment.first_crop 64 --test.short_side 128 --test.crop 112 --search.width 16 --train.width 24)
if [ -n "${SMALL:-}" ]; then
    options=(--preset tiny --seeds 1 --dir "$out" --search.width 2 --train.width 2 --tensorboard false)
fi
if [ -n "$other" ]; then options+=(--searched-on "$other"); fi
exec timeout --preserve-status --signal TERM 540 "${PYTHON:-python}" -m pvnas study all "$data" "${options[@]}"
