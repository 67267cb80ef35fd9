#!/bin/bash
# Makes a machine ready to train: Python 3.11 with the versions of requirements.lock, in ~/.segbench/venv.
# The cluster files copy it with the lock to every node and run it there. Where the locked versions are installed
# already it ends at once: in a machine image, or in a venv on a shared disk that ~/.segbench/venv is a link to.
set -euo pipefail
cd ~/.segbench
chmod 600 ~/.ray/auth_token

is_ready() {
  [ -x venv/bin/python ] && venv/bin/python - <<'PYTHON'
import re, sys
from importlib.metadata import distributions
name = lambda text: re.sub(r"[-_.]+", "-", text).lower()
have = {name(d.metadata["Name"]): d.version.split("+")[0] for d in distributions()}  # 2.13.0+cpu is 2.13.0
lock = re.findall(r"^(?:# apart: )?([\w.-]+)==([\w.!+]+)", open("requirements.lock").read(), re.MULTILINE)
wrong = [f"{package} {have.get(name(package), 'missing')}, not {version}" for package, version in lock
         if have.get(name(package)) != version.split("+")[0]]
if sys.version_info[:2] != (3, 11):
    wrong.insert(0, f"Python {sys.version.split()[0]}, not 3.11")
if wrong:
    sys.exit("~/.segbench/venv: " + "; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""))
PYTHON
}

if ! is_ready; then
  if [ -L venv ]; then
    echo "~/.segbench/venv is a link, so it is left as it is: install requirements.lock there, or remove the link" >&2
    exit 1
  fi
  # uv brings Python 3.11 with it where there is none
  [ -x uv/bin/uv ] || python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target uv uv==0.13.9
  uv/bin/uv venv --quiet --clear --python 3.11 venv
  uv/bin/uv pip install --quiet --python venv/bin/python --require-hashes -r requirements.lock
  uv/bin/uv pip install --quiet --python venv/bin/python "$(sed -n 's/^# apart: //p' requirements.lock)"
  is_ready
fi

if command -v nvidia-smi >/dev/null && ! venv/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
then
  echo "this machine has a GPU that torch cannot use; it needs driver 580 or newer (CUDA 13), and has:" >&2
  nvidia-smi >&2
  exit 1
fi

# at the end of ~/.bashrc, which every command of `ray up` and `ray exec` reads
grep -qs segbench/venv ~/.bashrc ||
  echo 'export PATH="$HOME/.segbench/venv/bin:$PATH" RAY_AUTH_MODE=token' >>~/.bashrc
