#!/usr/bin/env bash
# Objects of one program that were compiled for different processors.
#   check.sh COMPILER INCLUDE FOLDER
# No macro that an -march changes leaves PARE_TARGET as it is, unless it stands below; two objects
# have no function of pare in common, and a program of both computes with both.
set -euo pipefail
compiler=$1 include=$2 folder=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$folder"
cd "$folder"
case $("$compiler" -dumpmachine) in
x86_64*) base=-march=x86-64 ;;
*) echo "not for $("$compiler" -dumpmachine)"; exit 0 ;;
esac

echo '#include "pare/core/target.hpp"
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
TEXT(PARE_TARGET)' >name.cpp
name() { "$compiler" -std=c++20 "-I$include" -E -P "$@" name.cpp | tail -n 1; }

# Names of processors, properties of number types, and instructions that compilers make only of
# intrinsics, none of which the headers use. ABM is LZCNT and POPCNT.
others='^__([a-z0-9_]+|FP_FAST_.*|FLT16_.*|GCC_IEC.*|ABM__|AMX.*|SSE(2)?_MATH__)$'
others+='|^__(CLDEMOTE|CLFLUSHOPT|CLWB|CLZERO|ENQCMD|FSGSBASE|FXSR|HLE|HRESET|INVPCID|KL|WIDEKL|LWP)__$'
others+='|^__(MOVDIR64B|MOVDIRI|MOVRS|MWAITX?|PCONFIG|PKU|PREFETCHI|PREFETCHWT1|PRFCHW|PTWRITE)__$'
others+='|^__(RAOINT|RDPID|RDPRU|RDRND|RDSEED|RTM|SERIALIZE|SGX|SHSTK|TSXLDTRK|UINTR|USERMSR)__$'
others+='|^__(WAITPKG|WBNOINVD|XSAVE(|C|OPT|S))__$'
macros() { "$compiler" "$@" -dM -E -x c++ /dev/null 2>/dev/null | awk '{ print $2 }' | sort; }
macros "$base" >base.txt
plain=$(name "$base")
checked=0
for processor in native x86-64-v2 x86-64-v3 x86-64-v4 sapphirerapids graniterapids diamondrapids \
  alderlake arrowlake sierraforest tigerlake knl knm znver1 znver3 znver4 znver5 bdver4; do
  macros "-march=$processor" >other.txt || continue
  for macro in $(comm -13 base.txt other.txt | grep -Ev "$others" || true); do
    checked=$((checked + 1))
    if [ "$(name "$base" "-D$macro=1")" = "$plain" ]; then
      echo "PARE_TARGET does not depend on $macro, which -march=$processor defines" >&2
      exit 1
    fi
  done
done
[ "$checked" -gt 50 ] || { echo "only $checked macros were found" >&2; exit 1; }
if [ "$(name "$base" -fopenmp)" = "$plain" ]; then
  echo "PARE_TARGET does not depend on -fopenmp" >&2
  exit 1
fi

# Without optimisation every function is a symbol.
flags=(-std=c++20 "-I$include" -O0)
"$compiler" "${flags[@]}" "$base" -DPARE_UNIT=unit_a -c "$here/unit.cpp" -o a.o &
"$compiler" "${flags[@]}" -march=x86-64-v3 -DPARE_UNIT=unit_b -c "$here/unit.cpp" -o b.o
wait $!
"$compiler" "${flags[@]}" "$base" -c "$here/main.cpp" -o main.o
functions() { nm -C --defined-only "$1" | grep -E ' [TtWwVvuBbDd] ' | cut -c 20- | sort -u; }
functions a.o >a.txt
functions b.o >b.txt
grep -q 'pare::x86_' a.txt
if comm -12 a.txt b.txt | grep pare:: |
  grep -vE '^((vtable|typeinfo|typeinfo name) for )?pare::[a-z_]*error(::|$)'; then
  echo "these functions are in both objects" >&2
  exit 1
fi
# Either may come first.
for objects in "a.o b.o" "b.o a.o"; do
  "$compiler" $objects main.o -o program
  if grep -qw avx2 /proc/cpuinfo; then ./program; fi
done
