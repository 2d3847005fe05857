#!/bin/sh
# Several rounds of feedback: each samples from the model that the last one made, best against worst.
# Source of the scheme: LLaVA-OneVision-Chat (five samples, best against worst, one epoch a round, three rounds).
#
#   runs/rounds.sh QUESTIONS MODEL OUTPUT [ROUNDS]
#
# Every round can be interrupted and run again: answers, verdicts and steps that are there are not done twice.
set -eu

questions=$1 model=$2 output=$3 rounds=${4:-3}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$output"
output=$(cd "$output" && pwd)

round=1
while [ "$round" -le "$rounds" ]; do
    to=$output/round$round
    llava-next-video prefer "$questions" --model "$model" --output "$to/feedback" \
        --answers 5 --rule best_worst --seed "$round" ${JUDGE:+--judge "$JUDGE" --judge-model "$JUDGE_MODEL"}
    model=$(llava-next-video train dpo "$here/dpo.toml" --set "model=\"$model\"" --set "output=\"$to\"" \
        --set "data.sources=[\"$to/feedback/pairs.jsonl\"]" --set learning.epochs=1)
    round=$((round + 1))
done
echo "$model"
