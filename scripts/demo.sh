#!/usr/bin/env bash
# The whole way on an embedded sample: phantoms -> preprocessing -> 3D and 2D pre-training -> pictures.
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements.txt
out=${1:-demo_output}
# A demo that was completed begins anew; one that was interrupted goes on (--resume auto).
if [ -e "$out/.complete" ]; then rm -rf "$out/luna" "$out/chest" "$out/.complete"; fi
step() { printf '\n== %s\n' "$1"; }

step "1/4 phantoms of thoraces: CT scans as LUNA16 has them, X-rays as ChestX-ray14 has them"
python preprocess/phantoms.py --save "$out/phantoms" --scans 4 --patients 12 --xrays_per_patient 2

step "2/4 pairs of overlapping crops from the CT scans"
python preprocess/luna_pre.py --data "$out/phantoms/LUNA16" --save "$out/pairs" --scale 4 \
    --input_rows 32 --input_cols 32 --input_deps 16

step "3/4 pre-training in 3D (a few minutes of what takes days: it shows the way, not the result)"
python main.py --data "$out/pairs" --output "$out/luna" --n luna --d 3 --b 4 --epochs 4 --ratio 1.0 \
    --lr 1e-2 --log_every 1 --workers 1 --resume auto

step "4/4 pre-training in 2D"
python main.py --data "$out/phantoms/Chest14" --output "$out/chest" --n chest --d 2 --b 8 --epochs 4 --ratio 1.0 \
    --lr 1e-2 --log_every 1 --workers 1 --resume auto

touch "$out/.complete"
printf '\nThe demo is done. In %s:\n' "$out"
printf '  %-34s %s\n' \
    "phantoms/" "the sample: scans, X-rays, labels" \
    "pairs/" "what 3D training reads" \
    "luna/, chest/" "a run each: checkpoint (.pt), run.json, metrics.jsonl, tensorboard/" \
    "*/curves.png" "the loss terms of single steps, which jump; of the means of the epochs, printed above," \
    "" "the reconstruction falls, and the contrast rises while its queue fills" \
    "*/reconstructions/" "pictures of views, targets and reconstructions"
find "$out/luna" "$out/chest" \( -name '*.pt' -o -name '*.png' \) | sort
printf 'What each number should do, and by when: docs/LEARNING.md\n'
if [ "$VIRTUAL_ENV" = "$PWD/.venv" ]; then
    printf 'Commands of your own need the environment, in each new terminal: source .venv/bin/activate\n'
fi
