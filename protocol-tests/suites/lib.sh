# Sourced by each suite's `run`, which sets `settings` (of the broker) and defines
#   prepare          fetches and builds the suite into $work; network through the registries' ordinary clients, nothing twice
#   suite BOOTSTRAP  runs the tests and prints `pass NAME`, `fail NAME` or `skip NAME` for each on standard output
# and then calls `main "$@"`.
#
#   run              the broker ($OTTLA_BIN, else the workspace's, built) on 127.0.0.1:9092 of a network namespace of its own
#   run HOST:PORT    a broker that runs already, in this namespace: for comparison with Apache Kafka
#   run --prepare    prepares only
#   FULL=1 run       also the tests that `expected` marks `full`: they take too long for every change
#
# The result is right when it is what `expected` says: see compare. The broker's log is checked as well.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
name=$(basename "$here")
workspace=$(cd "$here/../../.." && pwd)
work=${OTTLA_SUITES_DIR:-$workspace/target/suites}/$name
self=$here/$(basename "${BASH_SOURCE[1]}")
settings=()

say() { echo "$name: $*" >&2; }

# The names that `expected` gives one of these states, one per line.
listed() {
  awk -v states=" $* " '!/^#/ && NF && index(states, " " $1 " ") { print $2 }' "$here/expected"
}

# The names to run now.
chosen() { if [ -n "${FULL:-}" ]; then listed pass fail skip racy full; else listed pass fail skip racy; fi; }

# crate_source NAME VERSION: the directory of a crate's sources, fetched by cargo.
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
  # From the data directory, without settings of the caller's environment.
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

# A controlled shutdown, and a log without unexpected warnings; `log-allowed` holds one extended expression per line.
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
  # In a process of its own: bash would not stop at its first error before `||`.
  "$self" --prepare-here >"$work/prepare.log" 2>&1 || { say "could not be prepared"; tail -n 40 "$work/prepare.log" >&2; exit 1; }
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
    # Root makes the namespace directly, others through a user namespace of their own.
    local namespace=(unshare --net)
    [ "$(id -u)" = 0 ] || namespace+=(--map-root-user)
    "${namespace[@]}" -- "$self" --inside || status=1
  fi
  "$here/../compare" "$here/expected" "$work/results" ${FULL:+--full} || status=1
  say "$((SECONDS - begun)) s"
  exit $status
}
