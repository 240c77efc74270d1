#!/usr/bin/env bash
# Runs the CPU benchmarks and renders docs/benchmarks/cpu.md from their JSON: ten minutes on two
# idle cores. The published algorithm is timed as well, on problems of the same shapes, by the
# Python of PARE_PYTHON (default python3) where that has torch, numpy and safetensors.
#   benchmarks/run.sh         measures for docs/benchmarks
#   benchmarks/run.sh packed  measures the packed product instead and renders packed_cpu.md, or
#                             packed_avx512.md where the processor has AVX-512 VBMI2
#   benchmarks/run.sh groups  times packed products with grids per group beside those with a grid per
#                             row, and the evaluation of packed folders, and renders packed_groups.md;
#                             PARE_MODELS lists the models as NAME=FOLDER
#   benchmarks/run.sh quick   tries the script: two minutes of small shapes, into
#                             build/benchmarks_quick
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
cd "$pare_root"
case ${1:-} in
  '') quick= ;;
  quick) quick=1 ;;
  packed)
    pare_build packed_benchmark
    OMP_WAIT_POLICY=passive build/bin/packed_benchmark --benchmark_repetitions=60 \
      --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true \
      --benchmark_out=build/packed.json --benchmark_out_format=json
    result=docs/benchmarks/packed_cpu
    grep -q '"vectors": "AVX-512 VBMI2"' build/packed.json && result=docs/benchmarks/packed_avx512
    sed '/"host_name"/d' build/packed.json >"$result.json"
    python3 benchmarks/render.py packed "$result.json" >"$result.md"
    python3 benchmarks/readme.py
    echo "rendered $result.md and README.md"
    exit
    ;;
  groups)
    pare_build packed_benchmark pare-tool
    OMP_WAIT_POLICY=passive build/bin/packed_benchmark '--benchmark_filter=^bits_4(_group_[0-9]+)?/' \
      --benchmark_repetitions=1000 --benchmark_enable_random_interleaving=true \
      --benchmark_report_aggregates_only=true --benchmark_out=build/packed_groups.json \
      --benchmark_out_format=json
    sed '/"host_name"/d' build/packed_groups.json >docs/benchmarks/packed_groups.json
    read -ra models <<<"${PARE_MODELS:-opt-tiny=examples/data/opt-tiny}"
    python3 benchmarks/packed_evaluate.py docs/benchmarks/packed_evaluate.json \
      examples/data/sampled.calib.txt examples/data/sampled.eval.txt "${models[@]}"
    python3 benchmarks/render.py groups docs/benchmarks >docs/benchmarks/packed_groups.md
    echo "rendered docs/benchmarks/packed_groups.md"
    exit
    ;;
  *) echo "usage: benchmarks/run.sh [packed | groups | quick]" >&2; exit 2 ;;
esac
rm -f build/bin/stage_*_benchmark  # those of a backend that is no longer built
pare_build solver_benchmark opt_benchmark stage_benchmarks

raw=build/benchmark_results
out=docs/benchmarks
shapes=(768x768 3072x768 768x3072 2048x2048)
stage_shapes=(768x768 1024x1024 2048x2048 3072x768 768x3072)
stages=(--benchmark_min_time=0.02 --benchmark_repetitions=3
        --benchmark_enable_random_interleaving=true)
solves=(--benchmark_filter=-^search)
searches=(--benchmark_filter=^search)
repeat=5
if [ -n "$quick" ]; then
  out=build/benchmarks_quick
  shapes=(768x768)
  stage_shapes=(768x768 1024x1024)
  stages+=(--benchmark_filter=-/in:[34])
  solves=(--benchmark_filter='^[^s].*out:768/in:768')
  searches=(--benchmark_filter='^search.*out:768/in:768')
  repeat=1
fi
rm -rf "$raw"
mkdir -p "$raw" "$out"

# measure PROGRAM RESULT OPTIONS...: quiet, but for its name.
measure() {
  local program=$1 result=$2
  shift 2
  echo "measuring: $program"
  pare_quietly "$program" "build/bin/$program" --benchmark_out="$result" \
    --benchmark_out_format=json "$@"
  sed -i '/"host_name"/d' "$result"
}

# The machine first, on all backends: with Eigen the shapes of LLaMA too.
results=()
for backend in eigen xtensor thrust; do
  program=stage_${backend}_benchmark
  [ -x "build/bin/$program" ] || { echo "skipped: no $backend backend"; continue; }
  filter=()
  [ "$backend" = eigen ] || [ -n "$quick" ] || filter=(--benchmark_filter=-/in:4096)
  measure "$program" "$raw/$backend.json" "${stages[@]}" "${filter[@]}"
  results+=("$raw/$backend.json")
done
python3 benchmarks/render.py join "${results[@]}" >"$out/cpu_stages.json"
measure solver_benchmark "$out/cpu.json" "${solves[@]}"
measure solver_benchmark "$out/cpu_search.json" "${searches[@]}"
rm -f "$out/cpu_opt.json"
[ -n "$quick" ] || measure opt_benchmark "$out/cpu_opt.json"

python=${PARE_PYTHON:-python3}
rm -f "$out/cpu_peer_stages.json"
if "$python" -c 'import torch, numpy, safetensors' 2>/dev/null; then
  echo "measuring: the peer"
  peer() {  # peer COMMAND RESULT OPTIONS...
    "$python" benchmarks/peers/sparsegpt_torch.py "$1" --threads "$(nproc)" "${@:3}" >"$2"
  }
  peer bench "$out/cpu_peer.json" "${shapes[@]/#/--shape=}" --repeat "$repeat" \
    --config 50+4 --config prune50 --config 2:4 --config gptq4
  peer stages "$out/cpu_peer_stages.json" "${stage_shapes[@]/#/--shape=}" --repeat 3
else
  echo "skipped: $python has no torch, numpy and safetensors; PARE_PYTHON names another"
  echo '{"missing": "the Python of the run had no torch"}' >"$out/cpu_peer.json"
fi

rm -f "$out/cpu_stages.svg"
if command -v gnuplot >/dev/null; then
  python3 benchmarks/render.py plot "$out" | gnuplot
else
  echo "skipped: no gnuplot for the picture"
fi
python3 benchmarks/render.py page "$out" >"$out/cpu.md"
[ -n "$quick" ] || python3 benchmarks/readme.py
echo "rendered $out/cpu.md"
