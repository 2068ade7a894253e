# Sourced by each suite's `run`, which sets `settings` (of the broker) and defines
#   prepare          fetches and builds the suite in $work once, through the registries' ordinary clients
#   suite BOOTSTRAP  runs the tests and prints `pass NAME`, `fail NAME` or `skip NAME` for each on standard output
# and then calls `main "$@"`.
#
#   run              starts $OTTLA_BIN, or else the workspace's build, on 127.0.0.1:9092 of its own network namespace
#   run HOST:PORT    uses a running broker in this namespace, for comparison with Apache Kafka
#   run --prepare    only prepares
#   FULL=1 run       also runs the tests that `expected` marks `full`, which take too long for every change
#
# The results must match the file `expected` (see compare). The broker's log is checked as well.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
name=$(basename "$here")
workspace=$(cd "$here/../../.." && pwd)
work=${OTTLA_SUITES_DIR:-$workspace/target/suites}/$name
self=$here/$(basename "${BASH_SOURCE[1]}")
settings=()

say() { echo "$name: $*" >&2; }

# Prints the names with one of these states in `expected`, one per line.
listed() {
  awk -v states=" $* " '!/^#/ && NF && index(states, " " $1 " ") { print $2 }' "$here/expected"
}

# Prints the names of the tests to run.
chosen() { if [ -n "${FULL:-}" ]; then listed pass fail skip racy full; else listed pass fail skip racy; fi; }

# crate_source NAME VERSION: fetches a crate with cargo and prints the directory of its sources.
crate_source() {
  mkdir -p "$work/fetch/src"
  : >"$work/fetch/src/lib.rs"
  printf '[package]\nname = "fetch"\nversion = "0.0.0"\n[workspace]\n[dependencies]\n%s = "=%s"\n' "$1" "$2" >"$work/fetch/Cargo.toml"
  cargo metadata --format-version 1 --manifest-path "$work/fetch/Cargo.toml" | python3 -c '
import json, os, sys
print(next(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == sys.argv[1]))' "$1"
}

start_broker() {
  local setting arguments=()
  for setting in "${settings[@]}"; do arguments+=(--set "$setting"); done
  data=$(mktemp -d "${TMPDIR:-/tmp}/ottla-suite-XXXXXX")
  # Runs in the data directory, without settings from the caller's environment.
  (cd "$data" && exec env -i PATH="$PATH" HOME="$HOME" "$OTTLA_BIN" serve --set "log.dirs=$data/data" \
    --set listeners=PLAINTEXT://127.0.0.1:9092 --set group.initial.rebalance.delay.ms=0 \
    "${arguments[@]}") >"$work/broker.log" 2>&1 &
  broker=$!
  trap 'kill -KILL "$broker" 2>/dev/null || true; rm -rf "$data"' EXIT
  local waited=0
  until grep -q 'Kafka Server started' "$work/broker.log"; do
    kill -0 "$broker" 2>/dev/null && [ $((waited += 1)) -lt 600 ] || { say "the broker did not start"; cat "$work/broker.log" >&2; exit 1; }
    sleep 0.1
  done
}

# Stops the broker by a controlled shutdown and checks its log for unexpected warnings; the file `log-allowed` has one
# extended regular expression per line for lines that are allowed.
stop_broker() {
  kill -TERM "$broker"
  wait "$broker" || { say "the broker ended with status $?"; tail -n 20 "$work/broker.log" >&2; return 1; }
  local allowed=$here/log-allowed complaints
  [ -e "$allowed" ] || allowed=/dev/null
  complaints=$(sed 's/\x1b\[[0-9;]*m//g' "$work/broker.log" | grep -E '^[^ ]+ +(WARN|ERROR) |panicked at' | grep -vEf "$allowed" || true)
  [ -z "$complaints" ] || { say "unexpected in the broker's log ($work/broker.log):"; head -n 20 <<<"$complaints" >&2; return 1; }
}

main() {
  if [ "${1:-}" = --inside ]; then
    ip link set lo up
    start_broker
    suite 127.0.0.1:9092 >"$work/results" || say "the suite's own status was $?"
    stop_broker
    exit
  fi
  mkdir -p "$work"
  if [ "${1:-}" = --prepare-here ]; then
    prepare
    exit
  fi
  # Runs in its own process: before `||` bash would not stop at the first error.
  # The lock makes it wait if ../run prepares the suite at this moment.
  flock "$work/prepare.lock" sh -c '"$0" --prepare-here >"$1" 2>&1' "$self" "$work/prepare.log" || { say "could not be prepared"; tail -n 40 "$work/prepare.log" >&2; exit 1; }
  [ "${1:-}" = --prepare ] && exit
  local begun=$SECONDS status=0
  rm -f "$work/results"
  if [ -n "${1:-}" ]; then
    suite "$1" >"$work/results" || say "the suite's own status was $?"
  else
    if [ -z "${OTTLA_BIN:-}" ]; then
      cargo build --quiet --manifest-path "$workspace/Cargo.toml" --bin ottla
      OTTLA_BIN=$workspace/target/debug/ottla
    fi
    OTTLA_BIN=$(realpath "$OTTLA_BIN")
    export OTTLA_BIN
    # Root creates the namespace directly, other users through their own user namespace.
    local namespace=(unshare --net)
    [ "$(id -u)" = 0 ] || namespace+=(--map-root-user)
    "${namespace[@]}" -- "$self" --inside || status=1
  fi
  "$here/../compare" "$here/expected" "$work/results" ${FULL:+--full} || status=1
  say "$((SECONDS - begun)) s"
  exit $status
}
