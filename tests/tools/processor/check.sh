#!/usr/bin/env bash
# A program says that it was built for another processor instead of dying.
#   check.sh COMPILER ROOT FOLDER PROGRAMS...: the programs of the build have the check
set -euo pipefail
compiler=$1 root=$2 folder=$3
mkdir -p "$folder"
case $("$compiler" -dumpmachine) in
x86_64*) ;;
*) echo "not for $("$compiler" -dumpmachine)"; exit 0 ;;
esac
cd "$folder"
for program in "${@:4}"; do  # grep -q would end nm by a signal
  nm -C "$program" | grep 'check_processor()' >symbols.txt || { echo "$program checks nothing" >&2; exit 1; }
done

common=(-std=c++20 "-I$root/include" "-I$root/examples")
"$compiler" "${common[@]}" -march=x86-64 -c "$root/examples/common/processor.cpp" -o check.o
build() {  # build NAME FLAGS...: main.cpp compiled with the flags
  "$compiler" "${common[@]}" "${@:2}" -c "$root/examples/common/built_with.cpp" -o built_with.o &&
    "$compiler" "${common[@]}" "${@:2}" -c "$root/tests/tools/processor/main.cpp" -o main.o &&
    "$compiler" main.o built_with.o check.o -o "$1"
}
for flags in -march=native -march=x86-64; do
  build here "$flags"
  [ "$(./here)" = initialised ] || { echo "$flags: did not run" >&2; exit 1; }
done

# Instructions that few processors have, each of which this one may lack.
tried=0
for feature in fma4 xop tbm avx512er avx512fp16 avxneconvert sha512; do
  grep -qwE "$feature|${feature/avx512/avx512_}" /proc/cpuinfo && continue
  build elsewhere "-m$feature" 2>/dev/null || continue
  tried=$((tried + 1))
  code=0
  out=$(./elsewhere 2>error.txt) || code=$?
  if [ "$code" != 1 ] || [ -n "$out" ] || [ "$(wc -l <error.txt)" != 1 ] ||
    ! grep -q "^elsewhere: built for another processor: this one lacks .*\b$feature\b" error.txt; then
    echo "-m$feature: code $code, output '$out', error:" >&2
    cat error.txt >&2
    exit 1
  fi
done
[ "$tried" -gt 0 ] || { echo "no instruction was found that this processor lacks" >&2; exit 1; }
