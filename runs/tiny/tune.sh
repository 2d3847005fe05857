#!/bin/sh
# The tiny checkpoint, tuned: runs/tiny/tune.sh START, where START is the checkpoint that runs/tiny/export.py wrote.
#
# Six answers are drawn to each question; where the world's judge tells them apart, the model is unsure. It learns from
# the truth about those alone, and in another run from all questions and more about sizes; what ships is the mean of
# both. Half an hour of one core. It can be interrupted: prefer and train go on, worlds are written anew, alike.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
start=$(cd "$1" && pwd)
out=$here/out/tune
mkdir -p "$out"
captions="caption,detailed caption"

write() { name=$1; shift; llava-next-video world write "$out/$name" "$@"; }
write a --turns 1000 --seed 72011 --clips 300 --things 3 --families "$captions"
write b --turns 1000 --seed 72012 --clips 130 --images 60 --things 2 --families "$captions"
write c --turns 1000 --seed 72013 --clips 160 --images 40 --things 2 --families "choice,size"
write d --turns 1000 --seed 72014 --clips 240 --things 3 --families "choice,size"
write e --turns 16 --seed 72015 --clips 160 --images 40
write s --turns 1000 --seed 73001 --clips 800 --things 3 --families size
write t --turns 1000 --seed 73002 --clips 700 --things 2 --families size

for name in a b c d; do
    llava-next-video prefer "$out/$name/world.json" --model "$start" --output "$out/feedback-$name" \
        --max-tokens 80 --temperature 1.2 --top-p 1 --rule best_worst --seed 1
done
python "$here/hard.py" --worlds "$out"/[abcd]/world.json --feedback "$out"/feedback-[abcd] --out "$out/hard.json"
llava-next-video train sft "$here/tune.toml" --set "model=$start"

all=$(for name in a b c d e s t; do printf '{path="out/tune/%s/world.json",apart=true},' "$name"; done)
llava-next-video train sft "$here/tune.toml" --set "model=$start" --set output=out/tune/all \
    --set "data.sources=[$all]" --set data.pack=true --set learning.lr=1.5e-4

python "$here/mix.py" "$out/hard/final" "$out/all/final" "$out/mean"
echo "$out/mean"
