#!/usr/bin/env bash
# Runs the benchmarks and renders docs/benchmarks/cpu.md from their JSON. With PARE_PYTHON set to a
# Python that has torch, the peer is timed on the same problem, in turn with ours.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
pare_build solver_benchmark pare-opt
out=$pare_root/docs/benchmarks
mkdir -p "$out"
"$pare_root/build/bin/solver_benchmark" --benchmark_out="$out/cpu.json" \
  --benchmark_out_format=json "$@"
if [ -n "${PARE_PYTHON:-}" ]; then
  "$PARE_PYTHON" "$pare_root/benchmarks/peers/sparsegpt_torch.py" bench --shape 2048x2048 \
    --config 50+4 --config prune50 --config 2:4 --config gptq4 \
    --threads "$(nproc)" --repeat 5 >"$out/cpu_peer.json"
fi
python3 "$pare_root/benchmarks/render.py" "$out" >"$out/cpu.md"
echo "rendered docs/benchmarks/cpu.md"
