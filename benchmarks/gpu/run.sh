#!/usr/bin/env bash
# Runs the GPU tests, compute-sanitizer on a part of them and the GPU benchmarks. Where Python has
# torch, the published algorithm too: first against the golden layers, where these are, then timed.
#   benchmarks/gpu/run.sh [PROGRAMS] [RESULTS]
# PROGRAMS: folder of the built programs; empty or left out: they are built in build/.
# RESULTS: folder for tests.log, sanitizer.log, machine.json, solver.json, search.json, model.json,
# packed.json, rotate.json, peer_*.json and llm_compressor.json; default build/gpu. render.py joins
# them and renders the page.
# PARE_GPU_STEPS names what runs, by default "tests sanitizer benchmarks peers".
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${1:-}
out=${2:-$root/build/gpu}
tests=(cuda cuda_split_product cuda_packed_product cuda_calibration cuda_quantization cuda_importance cuda_solver
       cuda_mixed_precision cuda_solver_behaviour cuda_golden cuda_mask_search cuda_custom_parts
       cuda_forward cuda_families cuda_storage_types cuda_perplexity cuda_precision)
if [ -z "$bin" ]; then
  source "$root/cmake/setup.sh"
  pare_build "${tests[@]/%/_test}" gpu_solver_benchmark gpu_search_benchmark gpu_model_benchmark \
    gpu_packed_benchmark gpu_rotate_benchmark ||
    exit 1
  bin=$root/build/bin
fi
steps=" ${PARE_GPU_STEPS:-tests sanitizer benchmarks peers} "
runs() { [[ $steps == *" $1 "* ]]; }
mkdir -p "$out"
export OMP_WAIT_POLICY=passive
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.limit --format=csv
logs=$(mktemp -d)
verdict='No errors|ERROR SUMMARY|RACECHECK SUMMARY|failure'
status=0

# name seconds command...: runs in the background, keeps the log and the exit code.
start() {
  local name=$1 limit=$2
  shift 2
  { timeout "$limit" "$@" >"$logs/$name" 2>&1; echo $? >"$logs/$name.rc"; } &
}
# Prints one line per log, failures in full, and adds all of them to a file.
report() {
  local file=$1 name rc
  shift
  for name in "$@"; do
    rc=$(cat "$logs/$name.rc")
    echo "== $name: exit $rc: $(grep -E "$verdict" "$logs/$name" | tail -n 2 | tr '\n' ' ')"
    if [ "$rc" != 0 ]; then
      status=1
      grep -v '^Running' "$logs/$name" | cut -c1-300 | head -n 25
    fi
    { echo "==== $name: exit $rc"; cat "$logs/$name"; } >>"$out/$file"
  done
}

if runs tests; then
  rm -f "$out/tests.log"
  for name in "${tests[@]}"; do start "$name" 150 "$bin/${name}_test" --log_level=error; done
  wait
  report tests.log "${tests[@]}"
fi

if ! runs sanitizer; then
  :
elif command -v compute-sanitizer >/dev/null; then
  rm -f "$out/sanitizer.log"
  kernels=the_grid_fit*,rows_and*,rows_are*,copies*,columns*,faults*
  memcheck=(compute-sanitizer --tool memcheck --error-exitcode 9)
  # Of our kernels: those of the libraries take minutes.
  racecheck=(compute-sanitizer --tool racecheck --error-exitcode 9 --kernel-name kns=pare)
  start memcheck_kernels 150 "${memcheck[@]}" "$bin/cuda_test" \
    --run_test="the_tuned_sweep*,selection*,runs_of*,products*,$kernels"
  parts='errors*,zeros*,gram*,several*,matrices*'
  start memcheck_products 150 "${memcheck[@]}" "$bin/cuda_split_product_test" --run_test="$parts"
  # Racecheck fails on cuBLAS's products of halves; these tests have none.
  start racecheck_parts 150 "${racecheck[@]}" "$bin/cuda_split_product_test" \
    --run_test='several*,matrices*'
  start memcheck_solver 150 "${memcheck[@]}" "$bin/cuda_solver_behaviour_test" \
    --run_test='post_condition_7*'
  start memcheck_model 150 "${memcheck[@]}" "$bin/cuda_storage_types_test" \
    --run_test='sums*,products*,operations*,attention*,compression*'
  start memcheck_packed 150 "${memcheck[@]}" "$bin/cuda_packed_product_test" \
    --run_test='mixed_widths*,nothing_left*,every_group'
  start memcheck_forward 150 "${memcheck[@]}" "$bin/cuda_forward_test" \
    --run_test='layer_norms*,attention*,cross_entropies*,taps*'
  start racecheck_sweep 300 "${racecheck[@]}" "$bin/cuda_test" --run_test='the_tuned_sweep*'
  start racecheck_selection 300 "${racecheck[@]}" "$bin/cuda_test" --run_test='selection*,runs_of*'
  start racecheck_kernels 300 "${racecheck[@]}" "$bin/cuda_test" --run_test="$kernels"
  start racecheck_packed 150 "${racecheck[@]}" "$bin/cuda_packed_product_test" \
    --run_test='mixed_widths*,nothing_left*'
  start racecheck_solver 150 "${racecheck[@]}" "$bin/cuda_solver_behaviour_test" \
    --run_test='post_condition_7_same*'
  start racecheck_model 150 "${racecheck[@]}" "$bin/cuda_storage_types_test" \
    --run_test='operations*'
  # Racecheck cannot leave out the kernels of 16-bit products (it fails on a bare cuBLAS call).
  start racecheck_products 150 compute-sanitizer --tool racecheck --error-exitcode 9 \
    "$bin/cuda_storage_types_test" --run_test='products*,attention*'
  wait
  report sanitizer.log memcheck_kernels memcheck_products racecheck_parts memcheck_solver memcheck_model memcheck_packed \
    memcheck_forward racecheck_sweep racecheck_selection racecheck_kernels racecheck_packed \
    racecheck_solver racecheck_model racecheck_products
else
  echo "skipped: no compute-sanitizer"
fi

if runs benchmarks; then
  cuda=$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
  printf '{"date": "%s", "driver": "%s", "cuda": "%s"}\n' "$(date +%F)" "$driver" "$cuda" \
    >"$out/machine.json"
  timeout 200 "$bin/gpu_solver_benchmark" "$out/solver.json" || status=1
  timeout 200 "$bin/gpu_search_benchmark" "$out/search.json" || status=1
  timeout 200 "$bin/gpu_model_benchmark" "$out/model.json" || status=1
  timeout 200 "$bin/gpu_packed_benchmark" "$out/packed.json" || status=1
  timeout 200 "$bin/gpu_rotate_benchmark" "$out/rotate.json" || status=1
fi

peer=$root/benchmarks/peers/sparsegpt_torch.py
golden=${PARE_SHARED_DIR:-$root/../shared}/golden
if ! runs peers; then
  :
elif python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  if [ -d "$golden" ]; then
    python3 "$peer" check "$golden" --device cuda | tail -n 3 || status=1
  else
    echo "skipped: no golden layers to check the peer with"
  fi
  python3 "$peer" bench --device cuda --repeat 3 --config 50+4 --shape 768x768 --shape 4096x4096 \
    --shape 11008x4096 --shape 4096x11008 --shape 12288x12288 >"$out/peer_50.json" || status=1
  python3 "$peer" bench --device cuda --repeat 3 --config 2:4 --shape 4096x4096 \
    >"$out/peer_24.json" || status=1
  # llm-compressor's own functions, where Python has them.
  python3 "${peer%/*}/llm_compressor.py" --device cuda --shape 4096x4096 --shape 12288x12288 \
    >"$out/llm_compressor.json" || status=1
else
  echo "skipped: Python has no torch that sees the GPU"
fi
exit $status
