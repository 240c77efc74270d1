#!/usr/bin/env bash
# Installs what is missing, builds pare-opt, and compresses the shipped OPT model: 50 % of the
# weights pruned, the rest at 4.0 bits on average.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
pare_eigen_alone
pare_build pare-opt
data=$pare_root/examples/data
set -x
"$pare_root/$pare_folder/bin/pare-opt" compress "$data/opt-tiny" "$data/sampled.calib.txt" \
  --sparsity 0.5 --wbits 4 --target-avg-bits 4.0 --bit-method budget \
  --eval sampled="$data/sampled.eval.txt"
