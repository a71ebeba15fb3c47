#!/bin/sh
# Runs the Promela models: each must hold, and each refuted protocol must fail.
# usage: run-spin.sh SPIN CC BUILD
spin=$1 cc=$2 build=$3
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v "$spin" >/dev/null; then
    echo "model: spin is not installed (Debian: apt-get install spin); the Promela models were not run" >&2
    exit 2
fi
wrong=0

# try MODEL EXPECTED [VARIANT]
try() {
    dir=$build/$1${3:+-$3}
    rm -rf "$dir"
    mkdir -p "$dir"
    (
        cd "$dir" || exit 1
        "$spin" ${3:+-D$3} -a "$here/$1.pml" >spin.log && "$cc" -O2 -w -DSAFETY -DBFS -o pan pan.c && ./pan -E -m100000 >pan.log
    ) || { echo "model: $1 $3 does not build"; exit 1; }
    log=$dir/pan.log
    states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$log" | head -1)
    if grep -q 'errors: 0' "$log" && ! grep -q 'max search depth too small' "$log"; then
        found=holds
    elif grep -q 'assertion violated' "$log"; then
        found=refuted
    else
        found=unfinished
    fi
    mark=ok
    [ "$found" = "$2" ] || { mark=WRONG; wrong=$((wrong + 1)); }
    printf '%-6s spin %-10s %-24s %9s states  %s\n' "$mark" "$1" "$3" "$states" "$found"
}

try wake holds
for variant in NO_HAND_ON NO_EPOCH_CHANGE LOOK_BEFORE_R1 NO_BROADCAST_ON_DEATH W1_RELAXED; do
    try wake refuted $variant
done
try companion holds
for variant in TOLD_AFTER_THE_CHANGE LOOK_PAST_THE_LOCKS LEVEL_BEFORE_THE_FLAG; do
    try companion refuted $variant
done
[ "$wrong" = 0 ]
