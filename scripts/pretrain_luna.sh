#!/usr/bin/env bash
# The paper's preprocessing of LUNA16 and pre-training on it, 3D. Started again, it goes on where it stopped.
#   bash scripts/pretrain_luna.sh LUNA_dataset_path processedLUNA_save_path pretrained_model_save_path [more flags]
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash scripts/pretrain_luna.sh LUNA PAIRS OUTPUT [more flags of main.py]" >&2; exit 2; }
luna=$1 pairs=$2 output=$3
shift 3
project=$(dirname "${BASH_SOURCE[0]}")/..
mkdir -p "$pairs" && touch "$pairs/.begun"
python "$project/preprocess/luna_pre.py" --input_rows 64 --input_cols 64 --input_deps 32 --data "$luna" --save "$pairs" || {
    status=$?
    # 1 and a new list: some scans are broken, and named above; the pairs of the others are made.
    [ "$status" -eq 1 ] && [ "$pairs/luna_train.txt" -nt "$pairs/.begun" ] || exit "$status"
    echo "pre-training on the pairs of the scans that could be read" >&2
}
exec python "$project/main.py" --data "$pairs" --output "$output" --phase pretask --model pcrl --n luna --d 3 --b 16 \
    --epochs 240 --lr 1e-3 --optimizer sgd --inchannel 1 --outchannel 1 --ratio 1.0 --resume auto "$@"
