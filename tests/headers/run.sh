#!/usr/bin/env bash
# Compiles a program of two files that both include all headers of pare, and before it, with the word
# alone, each header in a file that includes it twice. A warning is an error.
#   tests/headers/run.sh alone|together FOLDER COMPILER FLAGS HEADER...  (headers as they are included)
# FOLDER holds what is made. CCACHE=ccache in the environment lets it serve again.
set -euo pipefail
how=$1 folder=$2 compiler=$3 flags=$4
shift 4
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"

suffix=cpp
[[ $1 == *.cuh ]] && suffix=cu
for header; do
  name=${header//\//_}
  [ "$how" = together ] || printf '#include "%s"\n%.0s' "$header" "$header" >"$name.$suffix"
  echo "#include \"$header\"" >>all.inc
done
{ cat all.inc; echo 'int other_file() { return 0; }'; } >"other_file.$suffix"
{ cat all.inc; echo 'int one_file() { return 0; }'; } >"one_file.$suffix"

ls ./*."$suffix" | xargs -P "$(nproc)" -I{} ${CCACHE:-} "$compiler" $flags -c {} -o {}.o ||
  { echo "failed: $compiler $flags" >&2; exit 1; }
# What both files define is an error here; what libraries define is not asked.
ld -r "one_file.$suffix.o" "other_file.$suffix.o" -o all.o
echo "$# headers $how, and in two files of one program: no warning of $compiler"
