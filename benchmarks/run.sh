#!/usr/bin/env bash
# Runs the benchmarks and renders docs/benchmarks/cpu.md from their JSON. With PARE_PYTHON set to a
# Python that has torch, the published algorithm is timed as well, on problems of the same shape.
# "benchmarks/run.sh packed" times the packed product instead, and renders packed_cpu.md.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
out=docs/benchmarks
if [ "${1:-}" = packed ]; then
  pare_build packed_benchmark
  cd "$pare_root"
  OMP_WAIT_POLICY=passive build/bin/packed_benchmark --benchmark_repetitions=60 \
    --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true \
    --benchmark_out="$out/packed_cpu.json" --benchmark_out_format=json
  sed -i '/"host_name"/d' "$out/packed_cpu.json"
  python3 benchmarks/render.py "$out" packed >"$out/packed_cpu.md"
  echo "rendered $out/packed_cpu.md"
  exit
fi
pare_build solver_benchmark opt_benchmark
cd "$pare_root"
mkdir -p "$out"
for name in solver opt; do
  result=$out/cpu$([ $name = solver ] || echo _$name).json
  build/bin/${name}_benchmark --benchmark_out="$result" --benchmark_out_format=json
  sed -i '/"host_name"/d' "$result"
done
if [ -n "${PARE_PYTHON:-}" ]; then
  "$PARE_PYTHON" benchmarks/peers/sparsegpt_torch.py bench \
    --shape 768x768 --shape 3072x768 --shape 768x3072 --shape 2048x2048 \
    --config 50+4 --config prune50 --config 2:4 --config gptq4 \
    --threads "$(nproc)" --repeat 5 >"$out/cpu_peer.json"
fi
python3 benchmarks/render.py "$out" >"$out/cpu.md"
echo "rendered $out/cpu.md"
