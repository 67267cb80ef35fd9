"""Drains this node when AWS gives notice that it will take the instance away, so that trials leave it and lose nothing.

When they have left it ends the instance: as long as AWS has it, Ray's autoscaler counts it among the workers there may
be, and starts Ray on it again when it has heard nothing of it for half a minute.

Runs on every worker of cluster/gpu.yaml, with nothing but Python's own library, and asks the instance's metadata
(IMDSv2): for the notice two minutes before a spot instance is interrupted, and for the earlier recommendation to
rebalance. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ENDPOINT = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
PERIOD_S = float(os.environ.get("DRAIN_POLL_S", "5"))
"""AWS recommends to ask every five seconds."""
SPOT, REBALANCE = "spot/instance-action", "events/recommendations/rebalance"
LOCK = Path("~/.segbench/drain_on_notice.lock")


def ask(path: str) -> dict[str, str] | None:
    """Return what the instance's metadata has at ``path``; None if there is nothing, or no answer."""
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        with urlopen(Request(f"{ENDPOINT}/latest/api/token", headers=headers, method="PUT"), timeout=2) as answer:
            token = answer.read().decode()
        request = Request(f"{ENDPOINT}/latest/meta-data/{path}", headers={"X-aws-ec2-metadata-token": token})
        with urlopen(request, timeout=2) as answer:
            found = json.load(answer)
    except HTTPError as error:
        if error.code != 404:
            say(f"{path}: {error}")
        return None
    except (URLError, OSError, ValueError) as error:
        say(f"{path}: {error}")
        return None
    return found if isinstance(found, dict) else None


def remaining_s(notice: dict[str, str]) -> int | None:
    """Return how long the instance stays after a notice; None if that is not known."""
    if "time" not in notice:
        return None
    end = datetime.strptime(notice["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return max(0, int((end - datetime.now(UTC)).total_seconds()))


def drain(message: str, deadline_s: int | None) -> bool:
    """Tell Ray that this node goes away; return whether it has heard."""
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", message]
    command += [] if deadline_s is None else ["--deadline-remaining-seconds", str(deadline_s)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    say(f"{message}: drained" if result.returncode == 0 else f"{message}: {result.stderr.strip()[-500:]}")
    return result.returncode == 0


def is_told() -> bool:
    """Ask for a notice, and whether Ray knows what AWS says."""
    notice = ask(SPOT)
    if notice is not None:
        return drain(f"AWS: {notice.get('action', 'interruption')}", remaining_s(notice))
    return ask(REBALANCE) is not None and drain("AWS: rebalance recommendation", None)


def end() -> None:
    """Wait until Ray has left this machine, which it does when the last trial has, and shut the machine down."""
    while subprocess.run(["pgrep", "-x", "raylet"], capture_output=True, check=False).returncode == 0:
        time.sleep(min(PERIOD_S, 1.0))
    say("no trial is left; shutting down")
    try:
        subprocess.run(["sudo", "-n", "shutdown", "-h", "now"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"{error}; AWS will take the instance")


def say(text: str) -> None:
    """Write a line to the log, which the cluster file sends to a file."""
    sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    LOCK.expanduser().parent.mkdir(parents=True, exist_ok=True)
    lock = LOCK.expanduser().open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(0)  # `ray up` again: one of us runs already
    while not is_told():
        time.sleep(PERIOD_S)
    end()
