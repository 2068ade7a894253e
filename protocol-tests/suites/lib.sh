# Sourced by each suite's `run`, which sets `settings` (of the broker) and defines
#   prepare          fetches and builds the suite in $work once, through the registries' ordinary clients
#   suite BOOTSTRAP  runs the tests and prints `pass NAME`, `fail NAME` or `skip NAME` for each on standard output
#   explain NAME     prints what a failed test has said; optional, the default takes Go's tests from $work/output.log
# and then calls `main "$@"`. With `brokers=3`, which SUITE_BROKERS=3 sets for a suite that needs only one, it has that
# many brokers in one cluster, each of them a voter of the metadata quorum: broker N has the address 127.0.0.N, with port
# 9092 for clients and 9091 for other brokers. In `settings`, {id} stands for the broker's id.
#
#   run              starts $OTTLA_BIN, or else the workspace's build, on 127.0.0.1:9092 of its own network namespace
#   run HOST:PORT    uses a running broker in this namespace, for comparison with Apache Kafka
#   run --prepare    only prepares
#   run --start ID   starts one broker, and run --stop ID stops it: for the suite itself, while it runs
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
brokers=${SUITE_BROKERS:-1}

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

explain() {
  awk -v name="$1" '$1 == "===" { shown = $3 == name || index($3, name "/") == 1 } $2 == "FAIL:" && $3 == name { print; shown = 0 } shown' \
    "$work/output.log"
}

# Reads the lines of compare, passes them on, and adds what each test has said that failed unexpectedly.
explain_failures() {
  local line
  while read -r line; do
    echo "$line"
    [[ ! $line =~ ^([^ ]+):\ (expected|not\ listed).*got\ fail$ ]] || explain "${BASH_REMATCH[1]}" | tail -n 60 || true
  done
}

# Prints the directory of Apache Kafka's jars, which the tests of the workspace use too (protocol-tests/src/kafka.rs): the
# first that needs it fills it, while others wait.
kafka_jars() {
  local java=$workspace/protocol-tests/clients/java
  if [ -n "${APACHE_KAFKA_JARS:-}" ]; then
    echo "$APACHE_KAFKA_JARS"
    return
  fi
  mkdir -p "$java/target"
  (cd "$java" && flock target/jars.lock sh -ec '[ -d target/jars ] && exit
    mvn -q -B dependency:copy-dependencies -DoutputDirectory=target/jars.incomplete >&2
    mv target/jars.incomplete target/jars')
  echo "$java/target/jars"
}

# The log of a broker; what it needs besides is in $data/ID: its data, its process id, and its status when it has ended.
log_of() { if [ "$brokers" = 1 ]; then echo "$work/broker.log"; else echo "$work/broker-$1.log"; fi; }

# Begins the start of a broker; its output is appended to its log.
launch() {
  local id=$1 setting arguments=() begun voters
  if [ "$brokers" = 1 ]; then
    arguments+=(--set listeners=PLAINTEXT://127.0.0.1:9092)
  else
    voters=$(seq 1 "$brokers" | sed 's/.*/&@127.0.0.&:9093/' | paste -sd ,)
    arguments+=(
      --set "node.id=$id" --set process.roles=broker,controller --set "controller.quorum.voters=$voters"
      --set "listeners=PLAINTEXT://127.0.0.$id:9092,INTERNAL://127.0.0.$id:9091,CONTROLLER://127.0.0.$id:9093"
      --set listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
      --set inter.broker.listener.name=INTERNAL --set controller.listener.names=CONTROLLER
    )
  fi
  for setting in "${settings[@]}"; do arguments+=(--set "${setting//\{id\}/$id}"); done
  mkdir -p "$data/$id"
  rm -f "$data/$id/status"
  started "$id" >"$data/$id/starts"
  # Runs in the data directory, without settings from the caller's environment. The shell around it notes its status.
  (
    cd "$data/$id"
    env -i PATH="$PATH" HOME="$HOME" "$OTTLA_BIN" serve --set "log.dirs=$data/$id/data" \
      --set group.initial.rebalance.delay.ms=0 "${arguments[@]}" &
    echo $! >pid
    status=0
    wait $! || status=$?
    echo $status >status.new
    mv status.new status
  ) </dev/null >>"$(log_of "$id")" 2>&1 &
}

# Prints how many starts a broker's log shows.
started() { grep -c 'Kafka Server started' "$(log_of "$1")" 2>/dev/null || true; }

# Waits until a broker that was launched serves.
await_start() {
  local waited=0
  until [ "$(started "$1")" -gt "$(<"$data/$1/starts")" ]; do
    [ ! -e "$data/$1/status" ] && [ $((waited += 1)) -lt 600 ] || { say "broker $1 did not start"; tail -n 40 "$(log_of "$1")" >&2; exit 1; }
    sleep 0.1
  done
}

start_brokers() {
  local id
  data=$(mktemp -d "${TMPDIR:-/tmp}/ottla-suite-XXXXXX")
  export OTTLA_SUITE_DATA=$data
  trap kill_brokers EXIT
  # They start at the same time, for most of them must be there to elect a controller.
  for ((id = 1; id <= brokers; id++)); do
    : >"$(log_of "$id")"
    launch "$id"
  done
  for ((id = 1; id <= brokers; id++)); do await_start "$id"; done
}

kill_brokers() {
  local id
  for ((id = 1; id <= brokers; id++)); do
    [ -e "$data/$id/status" ] || kill -KILL "$(<"$data/$id/pid")" || true
  done 2>/dev/null
  rm -rf "$data"
}

# Stops a broker by a controlled shutdown.
stop_broker() {
  local id=$1 waited=0
  kill -TERM "$(<"$data/$id/pid")"
  until [ -e "$data/$id/status" ]; do
    [ $((waited += 1)) -lt 1200 ] || { say "broker $id does not stop"; return 1; }
    sleep 0.05
  done
  [ "$(<"$data/$id/status")" = 0 ] || { say "broker $id ended with status $(<"$data/$id/status")"; tail -n 20 "$(log_of "$id")" >&2; return 1; }
}

# Stops all brokers and checks their logs for unexpected warnings; the file `log-allowed` has one extended regular
# expression per line for lines that are allowed.
stop_brokers() {
  local id status=0 allowed=$here/log-allowed complaints
  for ((id = 1; id <= brokers; id++)); do
    if [ -e "$data/$id/status" ]; then
      say "broker $id was not running at the end"
      status=1
    else
      stop_broker "$id" || status=1
    fi
  done
  [ -e "$allowed" ] || allowed=/dev/null
  for ((id = 1; id <= brokers; id++)); do
    complaints=$(sed 's/\x1b\[[0-9;]*m//g' "$(log_of "$id")" | grep -E '^[^ ]+ +(WARN|ERROR) |panicked at' | grep -vEf "$allowed" || true)
    [ -z "$complaints" ] || { say "unexpected in the log $(log_of "$id"):"; head -n 20 <<<"$complaints" >&2; status=1; }
  done
  return $status
}

main() {
  if [ "${1:-}" = --inside ]; then
    ip link set lo up
    start_brokers
    suite "$(seq -f '127.0.0.%g:9092' -s , 1 "$brokers")" >"$work/results" || say "the suite's own status was $?"
    stop_brokers
    exit
  fi
  if [ "${1:-}" = --start ] || [ "${1:-}" = --stop ]; then
    data=$OTTLA_SUITE_DATA
    if [ -e "$data/$2/status" ]; then
      [ "$1" = --stop ] || { launch "$2" && await_start "$2"; }
    else
      [ "$1" = --start ] || stop_broker "$2"
    fi
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
  "$here/../compare" "$here/expected" "$work/results" ${FULL:+--full} 2>&1 | explain_failures >&2 || status=1
  say "$((SECONDS - begun)) s"
  exit $status
}
