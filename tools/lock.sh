#!/bin/sh
# Makes requirements.lock again from pyproject.toml: at the versions that it has, or with a second argument at the newest.
#
#     sh tools/lock.sh .venv/bin/uv [upgrade]
set -eu
lock=requirements.lock
torch=$(sed -n 's/^# apart: //p' $lock)
new=$(mktemp)
trap 'rm -f "$new" "$new".*' EXIT
# torch at its locked version, from pip's own place for builds if there is one: a CUDA build would bring its libraries
links=${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}
echo "$torch" >"$new.constraints"
if [ -z "${2:-}" ]; then cp $lock "$new"; fi  # uv keeps the versions that stand in its output file
"$1" pip compile pyproject.toml --quiet --extra dev --extra gcp --generate-hashes --no-annotate --no-header \
  --python-version 3.11.7 --python-platform x86_64-manylinux_2_28 ${links:+--find-links "$links"} \
  --constraints "$new.constraints" --no-emit-package torch --output-file "$new"
if grep -q '^nvidia-' "$new"; then
  echo "a CUDA build of torch was found, so its libraries would be locked: name the folder of a CPU build in PIP_FIND_LINKS" >&2
  exit 1
fi
sed -n '/^#/p' $lock | cat - "$new" >"$new.lock"
cp "$new.lock" $lock
