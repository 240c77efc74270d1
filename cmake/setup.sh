# Sourced by tests/run.sh, examples/demo.sh and benchmarks/run.sh: installs what is missing on a
# Debian or Ubuntu machine, configures and builds the targets given, in build/.
# Quiet where nothing is wrong: a step's output is shown only when it fails.

pare_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

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

pare_install_missing() {
  local packages=(g++ cmake ninja-build pkg-config libeigen3-dev nlohmann-json3-dev libcli11-dev
                  libpcre2-dev libboost-test-dev libbenchmark-dev)
  local missing=() package
  command -v dpkg-query >/dev/null || return 0  # not Debian: the build says what it lacks
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing: ${missing[*]}"
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  pare_quietly "package lists" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update
  pare_quietly "packages" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"
}

pare_build() {  # pare_build TARGET...
  pare_install_missing
  pare_quietly "configure" cmake -S "$pare_root" -B "$pare_root/build" -G Ninja
  echo "building: $*"
  pare_quietly "build" cmake --build "$pare_root/build" --target "$@"
}
