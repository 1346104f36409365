#!/usr/bin/env bash
# Fetches PySpark and the jars of Delta and Kafka once into ~/.cache/silverd, and prints the folder: venv and jars are in it.
#
#   daemon/bench/spark/fetch.sh
#
# Needs Java 17, Maven, and Python 3 with venv.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=3.5.7
cache=${SILVERD_CACHE:-$HOME/.cache/silverd}/spark-$version

for needed in java mvn python3; do
  command -v "$needed" >/dev/null || { echo "fetch.sh: $needed is missing" >&2; exit 1; }
done
if [[ ! -e $cache/ready ]]; then
  echo "fetch.sh: downloading PySpark and Delta into $cache" >&2
  mkdir -p "$cache"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install -q "pyspark==$version"
  (cd "$here" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$cache/jars") >&2
  touch "$cache/ready"
fi
echo "$cache"
