#!/usr/bin/env bash
# The whole way on phantoms: images, pre-training in 2D and 3D, what it has learnt, fine-tuning, predictions, one page.
# bash scripts/demo.sh [FOLDER] [EPOCHS of pre-training in 2D]
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements.txt
out=${1:-demo_output}
epochs=${2:-16}
# A demo that was completed begins anew; one that was interrupted goes on (--resume auto).
if [ -e "$out/.complete" ]; then rm -rf "$out"/{chest,luna,finetuned,scratch,predicted,knn_before,knn_after,.complete}; fi
step() { printf '\n== %s\n' "$1"; }
# What waits for nothing runs beside the pre-training in 2D, and is shown when its turn comes. So small networks are no
# faster with more threads: each of the two gets half of the cores.
cores=$(nproc 2> /dev/null || sysctl -n hw.ncpu)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(((cores + 1) / 2))}
beside=""
ended() {
    [ -z "$beside" ] || kill -- "-$beside" 2> /dev/null || true
    [ -e "$out/.complete" ] || printf 'The demo is not done; started again, it goes on where it stopped.\n'
}
trap ended EXIT
chest=$out/phantoms/Chest14
xrays=(--data "$chest" --n chest --size 64 --narrow 4 --ratio 1.0 --train_list "$out/train.csv")
parts=(--valid_list "$out/valid.csv" --test_list "$out/test.csv")
learn="--optimizer adamw --workers 1 --resume auto"

step "1/8 phantoms of thoraces: X-rays as ChestX-ray14 has them, CT scans as LUNA16 has them"
if [ -e "$chest/chest_test.txt" ]; then
    echo "they are there already, in $out/phantoms"
else
    python preprocess/phantoms.py --save "$out/phantoms" --scans 3 --patients 160 --xrays_per_patient 2 --size 96
fi
# Half of the patients to learn from, a tenth to choose by, and as many as possible to judge on: so scores scatter less.
# Of NIH's 14 findings those that phantoms have.
for part in train valid test; do
    echo image,Cardiomegaly,Effusion,Mass,Nodule,Pneumothorax,Consolidation > "$out/$part.csv"
done
sort "$chest"/chest_{train,valid,test}.txt | awk -v lists="$out/" -v OFS=, '{
    digit = substr($1, 8, 1)
    print $1, $3, $4, $6, $7, $9, $10 >> (lists (digit < 5 ? "train" : digit < 6 ? "valid" : "test") ".csv") }'

step "2/8 pairs of overlapping crops from the CT scans"
python preprocess/luna_pre.py --data "$out/phantoms/LUNA16" --save "$out/pairs" --scale 8 \
    --input_rows 32 --input_cols 32 --input_deps 16

views() { python main.py "${xrays[@]}" --preview 3 --output "$out/views"; }
untrained() { python main.py "${xrays[@]}" "${parts[@]}" --phase knn --weight none --output "$out/knn_before"; }
pretrain_3d() {
    python main.py --data "$out/pairs" --n luna --narrow 4 --b 4 --epochs 4 --ratio 1.0 $learn --lr 1e-3 \
        --report --output "$out/luna"
}
finetune() { # FOLDER WEIGHTS
    python main.py "${xrays[@]}" "${parts[@]}" --phase finetune --b 16 --epochs 20 --val_every 20 $learn --lr 1e-3 \
        --output "$out/$1" --weight "$2"
}

step "3/8 pre-training in 2D, without labels"
set -m # a process group of its own, to be ended as one
{
    views &> "$out/views.log" && untrained &> "$out/untrained.log" && pretrain_3d &> "$out/luna.log" &&
        finetune scratch none &> "$out/scratch.log"
} &
beside=$!
set +m
python main.py "${xrays[@]}" --b 8 --epochs "$epochs" $learn --lr 1.5e-3 --report --output "$out/chest"
weights=$out/chest/last.pt

step "4/8 what the features know of the labels: nearest neighbours, before and after pre-training"
wait "$beside" || { cat "$out"/{views,untrained,luna,scratch}.log 2> /dev/null; exit 1; }
beside=""
cat "$out/untrained.log"
python main.py "${xrays[@]}" "${parts[@]}" --phase knn --weight "$weights" --output "$out/knn_after"

step "5/8 pre-training in 3D, a moment of it (it ran beside that in 2D)"
cat "$out/luna.log"

step "6/8 fine-tuning in 2D, from the pre-trained weights and from random ones"
finetune finetuned "$weights"
cat "$out/scratch.log"

step "7/8 two X-rays that nobody has labelled: predictions"
mkdir -p "$out/unseen"
for name in $(cut -d, -f1 "$out/test.csv" | grep _000 | head -2); do
    cp "$chest/images/$name" "$out/unseen"
done
python main.py --phase predict --weight "$out/finetuned/best.pt" --data "$out/unseen" --output "$out/predicted"

step "8/8 one page of all that"
python scripts/report.py --demo "$out"

touch "$out/.complete"
printf '\nThe demo is done: open %s/report.html in a browser.\n' "$out"
if [ "$VIRTUAL_ENV" = "$PWD/.venv" ]; then
    printf 'Commands of your own need the environment, in each new terminal: source .venv/bin/activate\n'
fi
