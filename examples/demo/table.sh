#!/usr/bin/env bash
# What the demo shows: the shipped model compressed in five ways, side by side.
#   bash examples/demo/table.sh [PROGRAM]    (default: build/bin/pare)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
program=$(realpath "${1:-$root/build/bin/pare}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$root/examples/data/opt-tiny" "$work/MODEL"
ln -s "$root/examples/data/sampled.calib.txt" "$work/TEXT"
head -c 40000 "$root/examples/data/sampled.eval.txt" >"$work/sampled.txt"  # a part of it: seconds each
cd "$work"
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # on a busy machine spinning takes longer

reports=()
compress() {  # compress NAME OPTION...
  local name=$1 report=$((${#reports[@]} + 1)).json
  shift
  echo "  $*"
  "$program" compress MODEL TEXT --sparsity 0.5 "$@" --nsamples 16 --eval sampled=sampled.txt \
    --report "$report" >output || { cat output; exit 1; }
  reports+=("$name=$report")
}

echo "pare compress MODEL TEXT --sparsity 0.5 with"
# As scripts have it that score bits and never apply them: nothing says how to quantize.
refused=(--target-avg-bits 4 --bit-method quantile)
echo "  ${refused[*]}"
if "$program" compress MODEL TEXT --sparsity 0.5 "${refused[@]}" 2>refusal; then
  echo "this was to be refused" >&2
  exit 1
fi
compress "uniform 4" --wbits 4
compress "quantile 4.0" --wbits 4 --target-avg-bits 4 --bit-method quantile
compress "quantile, no target" --wbits 4 --bit-method quantile
compress "budget 3.5, distortion" --wbits 4 --target-avg-bits 3.5 --importance distortion
compress "preset best, 3.5" --wbits 4 --target-avg-bits 3.5 --preset best

echo
# The refusal is a row too: its reason, without what was written and the advice.
refusal=$(sed -e 's/^pare: [^:]*: //' -e 's/;.*//' -e 's/, otherwise.*//' refusal)
"$program" table "${reports[@]}" | sed "/^dense /a mixed, no --wbits       refused: $refusal"
