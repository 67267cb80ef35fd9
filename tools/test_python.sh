#!/bin/sh
# The wheel under another Python: resolved, built, imported, and all tests that need no torch, in a fresh environment.
# A Python that this machine does not have is skipped, and said.
#
#     sh tools/test_python.sh .venv/bin/uv python3.13
set -eu
uv=$1
version=${2#python}
python=""
for candidate in "$2" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do  # on the PATH, or pyenv's
  if "$candidate" -c '' 2>/dev/null; then python=$candidate; fi
done
if [ -z "$python" ]; then
  echo "skipped: there is no Python $version on this machine"
  exit 0
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
folder=build/python$version
rm -rf "$folder"
"$uv" venv --quiet --python "$python" "$folder/venv"
"$uv" build --quiet --python "$python" --out-dir "$folder/dist"   # the sdist, and from it the wheel
echo 'torch; python_version < "3"' >"$folder/no-torch.txt"
"$uv" pip install --quiet --python "$folder/venv" --overrides "$folder/no-torch.txt" "$folder"/dist/*.whl \
  boto3 cityscapesscripts hypothesis 'moto[server]' onnxruntime psutil psycopg2-binary pytest pytest-timeout vl-convert-python
"$uv" pip list --quiet --python "$folder/venv" | grep -iE '^(ray|optuna|mlflow|transformers|numpy|pandas|pyarrow|pydantic) '
# -P and importlib mode: the installed wheel is tested, not the checkout's folder. Ray's workers train, so they need torch.
"$folder/venv/bin/python" -P tools/import_all.py
"$folder/venv/bin/python" -P -m pytest -q -p no:cacheprovider --timeout 300 \
  -m 'not ray and not chaos and not cluster and not e2e and not package' tests
