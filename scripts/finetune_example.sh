#!/usr/bin/env bash
# From nothing to a table of results on phantoms: pre-training, fine-tuning with what it learned, and from scratch.
#   bash scripts/finetune_example.sh chest|nodules [FOLDER]
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements.txt
task=${1:-} out=${2:-finetune_example_${1:-}}
case $task in chest | nodules) ;; *)
    echo "usage: bash scripts/finetune_example.sh chest|nodules [FOLDER]" >&2
    exit 2
    ;;
esac
rm -rf "$out/pretrained" "$out/finetuned" "$out/scratch"  # of an earlier run
step() { printf '\n== %s\n' "$1"; }

if [ "$task" = chest ]; then
    step "1/4 X-rays of phantoms, with true labels"
    python preprocess/phantoms.py --save "$out/phantoms" --scans 0 --patients 40 --xrays_per_patient 1 --size 256
    data=$out/phantoms/Chest14
    pretraining=(--data "$data" --n chest --b 14)
    finetuning=(--data "$data" --n chest --b 7)
else
    step "1/4 CT scans of phantoms, pairs of crops for pre-training, and crops around their nodules"
    python preprocess/phantoms.py --save "$out/phantoms" --scans 11 --patients 0
    small=(--input_rows 32 --input_cols 32 --input_deps 16)
    python preprocess/luna_pre.py --data "$out/phantoms/LUNA16" --save "$out/pairs" --scale 4 "${small[@]}"
    python preprocess/nodule_crops.py --data "$out/phantoms/LUNA16" --save "$out/crops" --max_negatives 8 "${small[@]}"
    pretraining=(--data "$out/pairs" --n luna --b 4)
    finetuning=(--data "$out/crops" --n nodules --b 4)
fi
step "2/4 pre-training without labels (minutes of what takes days: it shows the way, not the result)"
python main.py "${pretraining[@]}" --output "$out/pretrained" --epochs 2 --optimizer adamw --ratio 1.0 --workers 1
weight=$(ls "$out"/pretrained/pcrl_*_pretask_1.0_2.pt)

finetuning+=(--phase finetune --optimizer adamw --lr 1e-3 --epochs 4 --ratio 1.0 --workers 1)
step "3/4 fine-tuning with what it learned"
python main.py "${finetuning[@]}" --output "$out/finetuned" --weight "$weight"
step "4/4 the same from scratch"
python main.py "${finetuning[@]}" --output "$out/scratch"

printf '\nThe tables are those above, and in %s and %s.\n' "$out/finetuned/metrics.json" "$out/scratch/metrics.json"
