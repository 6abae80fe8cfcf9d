#!/usr/bin/env bash
# The paper's pre-training on ChestX-ray14, 2D. Started again, it goes on where it stopped.
#   bash scripts/pretrain_chest.sh chest14_data_path pretrained_model_save_path [more flags of main.py]
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash scripts/pretrain_chest.sh DATA OUTPUT [more flags of main.py]" >&2; exit 2; }
data=$1 output=$2
shift 2
main=$(dirname "${BASH_SOURCE[0]}")/../main.py
exec python "$main" --data "$data" --output "$output" --phase pretask --model pcrl --n chest --d 2 --b 64 --epochs 240 \
    --lr 1e-3 --optimizer sgd --inchannel 3 --outchannel 3 --ratio 1.0 --resume auto "$@"
