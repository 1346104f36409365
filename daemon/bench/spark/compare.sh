#!/usr/bin/env bash
# Drains one topic with Spark Structured Streaming and Delta, and with silverd, and compares them.
#
#   daemon/bench/spark/compare.sh HOST:PORT [EVENTS] [FOLDER]
#
# HOST:PORT is an Apache Kafka (scripts/kafka starts one). Needs Java 17, Maven, and Python 3 with venv; PySpark and the jars
# are downloaded once into ~/.cache/silverd. FOLDER has silverd and silverd-bench, by default target/release.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
[[ $# -ge 1 ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
brokers=$1
events=${2:-2000000}
binaries=${3:-$root/target/release}

say() { echo "compare: $*" >&2; }
for needed in "$binaries/silverd" "$binaries/silverd-bench"; do
  [[ -x $needed ]] || { say "$needed is missing"; exit 1; }
done
cache=$("$here/fetch.sh")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
topic=compare-$(date +%s)
"$binaries/silverd" generate --bootstrap "$brokers" --topic "$topic" --count "$events" --eps 0 --seed 1 --log warn
export SPARK_JARS=$cache/jars SPARK_LOCAL_IP=127.0.0.1 PYSPARK_PYTHON=$cache/venv/bin/python

cd "$root"
for _ in 1 2 3; do
  "$binaries/silverd-bench" --once --brokers "$brokers" --topic "$topic" --json --log warn >>"$work/silverd"
done
# MODE EVENTS_PER_BATCH [cache]
spark() {
  local mode=$1
  shift
  say "Spark: $mode"
  if ! "$cache/venv/bin/python" "$here/drain.py" "$brokers" "$topic" "$work/out" "$@" >"$work/json" 2>"$work/log"; then
    tail -n 20 "$work/log" >&2
    exit 1
  fi
  rm -rf "$work/out"
  tail -n 1 "$work/json" | sed "s/^{/{\"mode\": \"$mode\", /" >>"$work/spark"
}
spark "one batch" 0
spark "one batch, cached" 0 cache
spark "batches of 500,000, cached" 500000 cache

"$cache/venv/bin/python" - "$work" <<'PYTHON'
import json, sys
read = lambda name: [json.loads(line) for line in open(f"{sys.argv[1]}/{name}")]
ours = sorted(read("silverd"), key=lambda run: run["events_per_second"])[1]
print(f"{'':30} {'events/s':>10} {'peak RSS MiB':>13} {'first commit s':>15}")
for run in (runs := read("spark")):
    # silverd quarantines invalid events; Spark checks nothing.
    assert run["events"] == ours["events"], (run["events"], ours["events"])
    print(f"Spark, {run['mode']:23} {run['events_per_second']:10,} {run['peak_rss_mib']:13,} {run['first_commit_seconds']:15}")
print(f"{'silverd, median of three':30} {ours['events_per_second']:10,.0f} {ours['peak_rss_mib']:13,}")
best = max(run["events_per_second"] for run in runs)
print(f"silverd drains {ours['events_per_second'] / best:.1f} times as many events a second as the best of Spark")
PYTHON
