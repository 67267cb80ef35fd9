#!/bin/sh
# Installs requirements.lock into an environment: by uv, which checks hashes and takes a third of the time, or by pip
# where uv cannot be had or fails. torch is always left to pip, whose configuration says which build this machine has.
#
#     sh tools/install.sh .venv/bin/python
set -eu
python=$1
lock=requirements.lock
torch=$(sed -n 's/^# apart: //p' $lock)

pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
configured() { "$python" -m pip config get "global.$1" 2>/dev/null || true; }

by_uv() {
  # uv reads none of pip's configuration: a mirror and the certificates are told to it
  index=${PIP_INDEX_URL:-$(configured index-url)}
  certificates=${PIP_CERT:-$(configured cert)}
  [ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
  [ -z "$certificates" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$certificates}"
  sed -n '/^uv==/,/[^\\]$/p' $lock | pip install --requirement /dev/stdin &&
    "$python" -m uv pip install --quiet --python "$python" --require-hashes --requirement $lock
}

pip install --no-deps --no-compile "$torch" &   # unpacked while the others are fetched
apart=$!
by_uv || {
  echo "uv could not install requirements.lock here; pip does, which takes longer" >&2
  pip install --require-hashes --no-deps --requirement $lock   # all are there; pip takes coverage[toml] for another
}
wait $apart
pip install --no-compile "$torch"               # what its build needs besides: nothing on a CPU
