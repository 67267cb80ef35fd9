"""`ray up cluster/gpu.yaml` on a mock of AWS: what is asked for, and the whole of it on instances that are machines.

Only what the file tells its user to change is changed, except for what the mock cannot do: `ssh_user` is root, for the
machines have no other, and one more setup command writes AWS_ENDPOINT_URL, for the nodes would ask Amazon otherwise.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cloud import ENDPOINT, HUB, NET, PATH, REGION, Account, Cloud, open_account
from machines import ROOT, Machines, change_marked, why_not
from ruamel.yaml import YAML

from segbench.core.address import sweep_paths
from segbench.core.ledger import read_ledger
from segbench.core.paths import STAGES, SweepPaths
from segbench.core.records import Cause, TrialRecord, TrialState
from segbench.storage.mirror import fetch_sweep

pytestmark = pytest.mark.skipif(
    shutil.which("aws", path=PATH) is None, reason="no AWS command line: pip install awscli"
)

FILE = "cluster/gpu.yaml"
BUCKET = "segbench-e2e"
ACCOUNT = "123456789012"
"""Of moto."""
IMAGE = "ami-dca37ea5"
"""A deep learning image that moto knows."""


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    with open_account() as found:
        for key, value in found.environment.items():
            monkeypatch.setenv(key, value)
        yield found


def change_five(folder: Path, group: str, image: str, max_workers: int) -> dict[str, Any]:
    """Do what cluster/gpu.yaml tells its user to do; return what is in it then."""
    values = {
        "max_workers": str(max_workers),
        "region": REGION,
        "storage": f"s3://{BUCKET}/runs",
        "ImageId": image,
        "SecurityGroupIds": f"[{group}]",
    }
    change_marked(folder / FILE, values)
    tree: dict[str, Any] = YAML(typ="safe").load(folder / FILE)
    return tree


@pytest.mark.slow
def test_ray_up_asks_for_what_the_file_says(account: Account, own_machine: Path, tmp_path: Path) -> None:
    group = account.prepare(BUCKET, "192.0.2.7/32")
    image = YAML(typ="safe").load(own_machine / FILE)["available_node_types"]["head"]["node_config"]["ImageId"]
    told = change_five(own_machine, group, image, 8)
    assert_account(account, group, "192.0.2.7/32")

    command = [str(Path(sys.executable).parent / "ray"), "up", "-y", "--no-config-cache", FILE]
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(account.instances, 60, lambda: (tmp_path / "up.log").read_text())
    finally:
        os.killpg(up.pid, signal.SIGKILL)  # it waits for SSH, and there is no machine
        up.wait()
    start_workers(told)
    kinds = Counter((each["InstanceType"], each.get("InstanceLifecycle")) for each in account.instances())
    assert kinds == {
        ("m7i.xlarge", None): 1,
        ("g6.xlarge", "spot"): 2,
        ("g6.12xlarge", "spot"): 2,
        ("g6.xlarge", None): 2,
    }
    assert_instances(account, told, group)


def start_workers(told: dict[str, Any]) -> None:
    """Ask for two nodes of each type of worker, as the autoscaler on the head does."""
    from ray.autoscaler import tags
    from ray.autoscaler._private.aws.utils import client_cache, resource_cache
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    for cache in (client_cache, resource_cache):
        cache.cache_clear()  # of the region as it was in another test
    config = _bootstrap_config(told, no_config_cache=True)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name, kind in config["available_node_types"].items():
        if name != "head":
            labels = {tags.TAG_RAY_NODE_KIND: tags.NODE_KIND_WORKER, tags.TAG_RAY_USER_NODE_TYPE: name}
            provider.create_node(kind["node_config"], labels, 2)


def assert_account(account: Account, group: str, ssh_from: str) -> None:
    """What cluster/aws-account.sh has made is what stands in it and in the policies beside it."""
    iam, s3 = account.client("iam"), account.client("s3")
    for name in ("head", "worker"):
        profile = iam.get_instance_profile(InstanceProfileName=f"segbench-{name}")["InstanceProfile"]
        assert [role["RoleName"] for role in profile["Roles"]] == [f"segbench-{name}"]
        policy = iam.get_role_policy(RoleName=f"segbench-{name}", PolicyName="segbench")["PolicyDocument"]
        text = (ROOT / f"cluster/aws-{name}-policy.json").read_text().replace("segbench-example", BUCKET)
        assert policy == json.loads(text)
        assert not iam.list_attached_role_policies(RoleName=f"segbench-{name}")["AttachedPolicies"]
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())
    (found,) = account.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
    opened = [(rule["FromPort"], one["CidrIp"]) for rule in found["IpPermissions"] for one in rule["IpRanges"]]
    assert opened == [(22, ssh_from)]
    assert [pair["GroupId"] for rule in found["IpPermissions"] for pair in rule["UserIdGroupPairs"]] == [group]
    (budget,) = account.client("budgets").describe_budgets(AccountId=ACCOUNT)["Budgets"]
    assert budget["BudgetLimit"] == {"Amount": "100", "Unit": "USD"}


def assert_instances(account: Account, told: dict[str, Any], group: str) -> None:
    """Each running instance in the mock, and what RunInstances was asked for, is what the file says of its type."""
    ec2 = account.client("ec2")
    (key,) = ec2.describe_key_pairs()["KeyPairs"]
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    for instance in account.instances("running"):
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        node = told["available_node_types"][tags["ray-user-node-type"]]["node_config"]
        is_spot = "InstanceMarketOptions" in node
        assert instance["InstanceType"] == node["InstanceType"]
        assert instance.get("InstanceLifecycle", "on demand") == ("spot" if is_spot else "on demand")
        assert instance["ImageId"] == node["ImageId"]
        assert instance["KeyName"] == key["KeyName"]
        assert instance["VpcId"] == vpc["VpcId"]
        assert [each["GroupId"] for each in instance["SecurityGroups"]] == [group]
        assert instance["IamInstanceProfile"]["Arn"].endswith(f"/{node['IamInstanceProfile']['Name']}")
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert tags["project"] == "segbench"
        assert tags["ray-cluster-name"] == told["cluster_name"]
        assert_disk(ec2, instance)
    for asked in account.requests:
        spec = next(spec for spec in asked["TagSpecifications"] if spec["ResourceType"] == "instance")
        kind = next(tag["Value"] for tag in spec["Tags"] if tag["Key"] == "ray-user-node-type")
        node = told["available_node_types"][kind]["node_config"]
        own = ("TagSpecifications", "SecurityGroupIds")  # Ray adds its tags to the first
        assert {name: asked[name] for name in node if name not in own} == {
            name: value for name, value in node.items() if name not in own
        }


def assert_disk(ec2: Any, instance: dict[str, Any]) -> None:
    (attached,) = instance["BlockDeviceMappings"]
    assert attached["DeviceName"] == "/dev/sda1"
    assert attached["Ebs"]["DeleteOnTermination"]
    (disk,) = ec2.describe_volumes(VolumeIds=[attached["Ebs"]["VolumeId"]])["Volumes"]
    assert (disk["Size"], disk["VolumeType"], disk["Encrypted"]) == (150, "gp3", True)
    assert disk["Tags"] == [{"Key": "project", "Value": "segbench"}]


def assert_least_privilege(account: Account) -> None:
    """Each call of head and workers is allowed by their policies; conditions are not looked at."""
    assert {role for role, *_ in account.calls} == {"segbench-head", "segbench-worker"}
    for role, action, resource in sorted(account.calls):
        policy = account.client("iam").get_role_policy(RoleName=role, PolicyName="segbench")["PolicyDocument"]
        assert any(
            any(fnmatchcase(action, pattern) for pattern in statement["Action"])
            and (resource == "*" or fnmatchcase(resource, statement["Resource"]))
            for statement in policy["Statement"]
        ), (role, action, resource)


def wait_for(ask: Callable[[], Any], timeout_s: float, say: Callable[[], object] = lambda: "") -> Any:
    """Return what ``ask`` returns as soon as that is something."""
    deadline = time.monotonic() + timeout_s
    while not (found := ask()):
        assert time.monotonic() < deadline, say()
        time.sleep(0.2)
    return found


SWEEP = "sweeps/quickstart.yaml"
SETTINGS = (
    "name=spot data.num_images=[48,16,16] baselines=[] search.algorithm=random search.seed=2 scheduler.type=none "
    "scheduler.max_epochs=16 budget.trials=3 budget.max_concurrent=2 resources.gpu=1 retrain.seeds=1"
)
OPTIONS = " ".join(f"--set {text}" for text in SETTINGS.split())
REST = f"{FILE} {SWEEP} {OPTIONS}"


class Watch:
    """A sweep in the bucket, from outside of the cluster."""

    def __init__(self) -> None:
        self.paths = sweep_paths(f"s3://{BUCKET}/runs/spot", "views")

    def search(self) -> list[TrialRecord]:
        """Return the trials as they are now."""
        fetch_sweep(self.paths, with_results=False)
        return read_ledger(self.paths.ledger("search"))

    def have_begun(self) -> bool:
        """Whether two trials run, both some epochs after their beginning and many before their end."""
        running = [record.epochs_done for record in self.search() if not record.state.is_finished]
        return len(running) == 2 and all(2 <= done <= 7 for done in running)

    def moved(self) -> TrialRecord | None:
        """Return the trial that had to leave its node, when it has."""
        return next((record for record in self.search() if record.attempts), None)

    def gone_on(self) -> TrialRecord | None:
        """Return that trial when it has trained an epoch elsewhere."""
        record = self.moved()
        return record if record is not None and record.epochs_done > record.attempts[0].epoch else None


def runs_a_trial(machines: Machines, name: str) -> bool:
    """Whether Ray has a trial's process on a machine."""
    return bool(machines.run(name, "pgrep -f ^ray::.*Trainable", is_checked=False).strip())


@pytest.fixture
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("hosts"), 0, NET, HUB) as found:
        yield found


def bring_checkout(machines: Machines, account: Account, group: str) -> dict[str, Any]:
    """Give the laptop a checkout with five lines changed, and an account of AWS; return what is in the file."""
    told: dict[str, Any] = {}

    def change(folder: Path) -> None:
        told.update(change_five(folder, group, IMAGE, 3))
        text = (folder / FILE).read_text().replace("ssh_user: ubuntu", "ssh_user: root  ")
        command = f"  - echo export AWS_ENDPOINT_URL={ENDPOINT} >>~/.bashrc\n"
        text = text.replace("setup_commands:\n", f"setup_commands:\n{command}")
        (folder / FILE).write_text(text)

    machines.bring_checkout(change)
    keys = [f"{key.lower()} = {value}" for key, value in account.environment.items() if "ACCESS_KEY" in key]
    config = "\n".join(["[default]", f"region = {REGION}", f"endpoint_url = {ENDPOINT}", *keys])
    machines.run("laptop", f"mkdir ~/.aws && echo '{config}' >~/.aws/config")
    return told


@pytest.mark.cluster
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.timeout(900)
def test_a_sweep_whose_spot_instance_is_taken_away(
    account: Account, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    group = account.prepare(BUCKET, f"{NET}.254/32")
    assert account.prepare(BUCKET, f"{NET}.254/32") == group, "done again, it changes nothing"
    assert_account(account, group, f"{NET}.254/32")
    told = bring_checkout(machines, account, group)
    laptop = machines.laptop
    took: dict[str, float] = {}
    with Cloud(account, machines) as cloud:
        begun = time.time()
        laptop("ray get-auth-token --generate >/dev/null")
        laptop(f"segbench cluster check {REST}")
        laptop(f"ray up -y {FILE}")
        took["ray up"] = time.time() - begun
        (head,) = account.instances()

        submitted = time.time()
        laptop(f"segbench cluster submit {REST}")
        watch = Watch()
        workers = wait_for(lambda: cloud.booted.keys() - {head["InstanceId"]}, 120)
        took["submit to the first worker booted"] = min(cloud.booted[each] for each in workers) - submitted
        first = wait_for(lambda: [record for record in watch.search() if record.epochs], 180)[0]
        took["submit to the first epoch"] = first.epochs[0].at - submitted
        wait_for(watch.have_begun, 180, watch.search)

        take_away(cloud, machines, watch, head["InstanceId"], took)

        followed = laptop(f"segbench cluster logs --follow {REST}")
        took["sweep"] = time.time() - submitted
        assert "leaderboard  " in followed
        state = laptop(f"segbench cluster status {REST}")
        assert "Job 'segbench-spot' succeeded" in state
        laptop(f"segbench cluster fetch {REST} && segbench leaderboard runs/spot && cp -r runs/spot /shared/fetched")
        assert_instances(account, told, group)
        assert_least_privilege(account)
        ended = time.time()
        laptop(f"ray down -y {FILE}")
        wait_for(lambda: not account.instances("pending", "running") and not cloud.booted, 60, account.instances)
        took["ray down"] = time.time() - ended
    took["all of it"] = time.time() - begun
    print("\n" + "\n".join(f"| {name} | {seconds:.0f} s |" for name, seconds in took.items()))

    fetched = SweepPaths(machines.shared / "fetched")
    assert_nothing_lost(fetched)
    alone = "--executor local --set retrain=null --set mlflow.enabled=false --out /shared/calm"
    laptop(f"segbench sweep {SWEEP} {OPTIONS} {alone}")
    assert scores(fetched) == scores(SweepPaths(machines.shared / "calm"))


def take_away(cloud: Cloud, machines: Machines, watch: Watch, head: str, took: dict[str, float]) -> None:
    """Give notice to an instance that runs a trial, and wait until the trial goes on elsewhere."""
    before = set(cloud.booted)
    victim = next(each for each in before - {head} if runs_a_trial(machines, cloud.name(each)))
    noticed = time.time()
    print(f"\nnotice to {victim}, {cloud.name(victim)}", flush=True)
    cloud.give_notice(victim)
    left = wait_for(watch.moved, 60, watch.search).attempts[0].epoch
    took["notice until the trial has left"] = time.time() - noticed
    (replacement,) = wait_for(lambda: cloud.booted.keys() - before, 120)
    took["notice to the replacement booted"] = cloud.booted[replacement] - noticed
    assert victim not in cloud.booted, "an instance that nothing runs on is still there"
    took["notice to the trial's next epoch"] = wait_for(watch.gone_on, 180, watch.search).epochs[left].at - noticed


def assert_nothing_lost(paths: SweepPaths) -> None:
    """One trial was moved, no failure is counted, and no epoch was trained twice."""
    records = [record for stage in STAGES for record in read_ledger(paths.ledger(stage))]
    attempts = [attempt for record in records for attempt in record.attempts]
    assert [attempt.cause for attempt in attempts] == [Cause.DRAIN]
    assert {record.state for record in records} == {TrialState.COMPLETE}
    for stage in STAGES:
        told: dict[int, list[int]] = {}
        for event in map(json.loads, paths.ledger(stage).read_text().splitlines()):
            if event["event"] == "epoch":
                told.setdefault(event["number"], []).append(event["epoch"])
        assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in told.values()), told
    board = pd.read_csv(paths.leaderboard)
    assert board["test/miou mean"].between(0, 1).all()
    assert list(paths.model(board["name"][0]).glob("*.safetensors"))


def scores(paths: SweepPaths) -> dict[str, list[float]]:
    """Return the score of each epoch of each trial, whatever machine it was trained on."""
    records = read_ledger(paths.ledger("search"))
    return {record.assignment.name: [epoch.score for epoch in record.epochs] for record in records}
