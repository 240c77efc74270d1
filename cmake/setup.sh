# Sourced by tests/run.sh, examples/demo.sh and benchmarks/run.sh: installs what is missing on a
# Debian or Ubuntu machine, configures and builds the targets given, in build/.
# Quiet where nothing is wrong: a step's output is shown only when it fails.

pare_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

pare_folder=build
pare_options=()
# What a build cannot do without, and groups without which it leaves something out and says so.
pare_required=(g++ ccache cmake ninja-build pkg-config libeigen3-dev nlohmann-json3-dev
               libcli11-dev libpcre2-dev libutf8proc-dev libboost-test-dev libbenchmark-dev)
pare_optional=("libthrust-dev libtbb-dev"
               "libxtensor-dev libxtensor-blas-dev libxsimd-dev libopenblas-dev" libhwy-dev
               gnuplot-nox)
pare_shown=no  # yes: the compiler's progress is shown

pare_quietly() {  # pare_quietly WHAT COMMAND...
  local what=$1 log
  shift
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    echo "failed: $what ($*)" >&2
    cat "$log" >&2
    rm -f "$log"
    exit 1
  fi
  rm -f "$log"
}

pare_missing() {  # pare_missing PACKAGE...: those that are not installed
  local package
  for package; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      echo "$package"
  done
}

pare_install_missing() {  # pare_install_missing [GROUP...]: more optional packages
  local required=("${pare_required[@]}") optional=("${pare_optional[@]}" "$@")
  local sudo=() missing group
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  command -v dpkg-query >/dev/null || return 0  # not Debian: the build says what it lacks
  [ -n "$(pare_missing "${required[@]}" ${optional[*]})" ] || return 0
  echo "asking apt for its list of packages"
  # When this fails, the installation says what cannot be had.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update >/dev/null 2>&1 || true
  local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive
                 apt-get install -y --no-install-recommends)
  missing=$(pare_missing "${required[@]}" | xargs)
  if [ -n "$missing" ]; then
    echo "installing: $missing"
    pare_quietly "packages" "${install[@]}" $missing
  fi
  for group in "${optional[@]}"; do  # backends that cannot be had are left out of the build
    missing=$(pare_missing $group | xargs)
    [ -n "$missing" ] || continue
    echo "installing: $missing"
    "${install[@]}" $missing >/dev/null 2>&1 ||
      echo "not to be had here, what needs it is skipped: $missing"
  done
}

pare_configure() {  # pare_configure FOLDER CMAKE-ARGUMENT...
  local build=$pare_root/$1 launcher=()
  shift
  mkdir -p "$build"
  if command -v ccache >/dev/null; then  # a second clone on this machine builds in no time
    # Objects are for this processor (-march=native), whose flags must be part of what is looked up.
    grep -m 1 -E '^(flags|Features)' /proc/cpuinfo >"$build/processor" || true
    export CCACHE_BASEDIR=$pare_root CCACHE_NOHASHDIR=1 CCACHE_EXTRAFILES=$build/processor
    launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
  fi
  pare_quietly "configure" cmake -S "$pare_root" -B "$build" -G Ninja "${launcher[@]}" "$@"
}

pare_build_in() {  # pare_build_in FOLDER TARGET...
  if [ "$pare_shown" = yes ]; then
    NINJA_STATUS="[%f of %t, %e s] " cmake --build "$pare_root/$1" --target "${@:2}"
    return
  fi
  pare_quietly "build" cmake --build "$pare_root/$1" --target "${@:2}"
}

pare_eigen_alone() {  # from here on the Eigen backend and what it needs, in a folder of its own, shown
  pare_folder=build-eigen
  pare_required=(g++ cmake ninja-build pkg-config libeigen3-dev nlohmann-json3-dev libcli11-dev
                 libpcre2-dev libutf8proc-dev)
  pare_optional=()
  # Optimised more, the compiler takes longer than the work that it saves here.
  pare_options=(-DPARE_THRUST=OFF -DPARE_XTENSOR=OFF -DPARE_CUDA=OFF -DPARE_TESTS=OFF
                -DPARE_BENCHMARKS=OFF -DPARE_EXAMPLES=ON "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -ftree-vectorize -DNDEBUG")
  pare_shown=yes
}

pare_build() {  # pare_build TARGET...; in pare_folder, configured with pare_options
  pare_install_missing
  pare_configure "$pare_folder" "${pare_options[@]}"
  echo "building: $*"
  pare_build_in "$pare_folder" "$@"
}
