"""`segbench cluster check`: the shipped files are right, and planted mistakes are named with file, line and key."""

import re
from pathlib import Path

import pytest

from segbench.cluster.check import check_cluster
from segbench.errors import SpecError

CLUSTERS = ("local.yaml", "gpu.yaml", "gcp.yaml", "kuberay.yaml")
ON_ALL_NODES = "data.root=/shared/cityscapes"
IMAGE = (
    "ImageId: resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)

# name -> (cluster file, what stands in it, what is planted there, the key, what the sentence must say); the line of the
# message is the one of the key
CLUSTER_MISTAKES: dict[str, tuple[str, str, str, str, str]] = {
    # Ray's schema
    "misspelt key": ("gpu.yaml", "max_workers: 8   ", "max_worker: 8   ", "max_worker", "did you mean 'max_workers'?"),
    "text for a number": ("gpu.yaml", "max_workers: 8   ", "max_workers: many", "max_workers", "not of type 'integer'"),
    "unknown provider": ("gpu.yaml", "type: aws", "type: awz", "provider.type", "did you mean 'aws'?"),
    "no such head": (
        "gpu.yaml",
        "head_node_type: head",
        "head_node_type: haed",
        "file",
        "`head_node_type` must be one",
    ),
    "more at least than at most": (
        "gpu.yaml",
        "min_workers: 0\n    max_workers: 4",
        "min_workers: 9",
        "file",
        "smaller",
    ),
    # AWS
    "misspelt key for AWS": (
        "gpu.yaml",
        "InstanceType: g6.12xlarge",
        "InstanceTyp: g6.12xlarge",
        "available_node_types.gpu4-spot.node_config.InstanceTyp",
        "did you mean 'InstanceType'?",
    ),
    "instance type that is none": (
        "gpu.yaml",
        "InstanceType: g6.12xlarge",
        "InstanceType: g66.12xlarge",
        "available_node_types.gpu4-spot.node_config.InstanceType",
        "unknown instance type 'g66.12xlarge'; did you mean",
    ),
    "more GPUs than the machine has": (
        "gpu.yaml",
        "resources: {CPU: 48, GPU: 4}",
        "resources: {CPU: 48, GPU: 8}",
        "available_node_types.gpu4-spot.resources.GPU",
        "says 8, but g6.12xlarge has 4",
    ),
    "GPU too old for the locked torch": (
        "gpu.yaml",
        "InstanceType: g6.12xlarge",
        "InstanceType: p3.16xlarge",
        "available_node_types.gpu4-spot.node_config.InstanceType",
        "V100, too old for CUDA 13",
    ),
    "ARM": (
        "gpu.yaml",
        "InstanceType: m7i.xlarge",
        "InstanceType: m7g.xlarge",
        "available_node_types.head.node_config.InstanceType",
        "ARM cores",
    ),
    "market that is none": (
        "gpu.yaml",
        "MarketType: spot",
        "MarketType: sport",
        "available_node_types.gpu1-spot.node_config.InstanceMarketOptions.MarketType",
        "did you mean 'spot'?",
    ),
    "size of a disk as text": (
        "gpu.yaml",
        "VolumeSize: 150",
        "VolumeSize: 150 GB",
        "available_node_types.head.node_config.BlockDeviceMappings[0].Ebs.VolumeSize",
        "must be of type int, got '150 GB'",
    ),
    "no image": (
        "gpu.yaml",
        IMAGE,
        "",
        "available_node_types.head.node_config",
        "ImageId is missing: Ray's own is Ubuntu",
    ),
    "image that is none": (
        "gpu.yaml",
        IMAGE,
        "ImageId: ami-deep-learning",
        "available_node_types.head.node_config.ImageId",
        "'ami-deep-learning' is no image",
    ),
    "region that is none": ("gpu.yaml", "us-west-2 ", "us-wset-2 ", "provider.region", "did you mean 'us-west-2'?"),
    "zone of another region": (
        "gpu.yaml",
        "  cache_stopped",
        "  availability_zone: us-west-2a,us-east-1a\n  cache_stopped",
        "provider.availability_zone",
        "'us-east-1a' is no zone of us-west-2",
    ),
    "port open to the world by default": (
        "gpu.yaml",
        "SecurityGroupIds: [sg-0123456789abcdef0]",
        "",
        "available_node_types.head.node_config",
        "port 22 open to the world",
    ),
    "port open to the world by a rule": (
        "gpu.yaml",
        "  cache_stopped",
        "  security_group: {IpPermissions: [{FromPort: 8265, ToPort: 8265, IpRanges: [{CidrIp: 0.0.0.0/0}]}]}\n"
        "  cache_stopped",
        "provider.security_group.IpPermissions[0]",
        "opens port 8265 to the world",
    ),
    "head on the spot market": (
        "gpu.yaml",
        "InstanceType: m7i.xlarge",
        "InstanceMarketOptions: {MarketType: spot}\n      InstanceType: m7i.xlarge",
        "available_node_types.head.node_config.InstanceMarketOptions",
        "must not be a spot instance",
    ),
    "all rights for the head": (
        "gpu.yaml",
        "IamInstanceProfile: {Name: segbench-head}",
        "",
        "available_node_types.head.node_config",
        "IamInstanceProfile is missing",
    ),
    # what every file needs
    "head that runs trials": (
        "gpu.yaml",
        "resources: {CPU: 0, GPU: 0}",
        "resources: {CPU: 4, GPU: 0}",
        "available_node_types.head.resources",
        "must have CPU: 0",
    ),
    "head that runs trials by its command": (
        "local.yaml",
        "--num-cpus=0 ",
        "",
        "head_start_ray_commands[1]",
        "--num-cpus=0 is missing",
    ),
    "autoscaler v2": (
        "local.yaml",
        " RAY_enable_autoscaler_v2=0",
        "",
        "head_start_ray_commands[1]",
        "RAY_enable_autoscaler_v2=0 is missing",
    ),
    "workers without the token": (
        "local.yaml",
        "RAY_AUTH_MODE=token\n    ray start --address",
        "ray start --address",
        "worker_start_ray_commands[1]",
        "RAY_AUTH_MODE=token is missing",
    ),
    "token that is not brought": (
        "local.yaml",
        "  ~/.ray/auth_token: ~/.ray/auth_token\n",
        "",
        "file_mounts",
        "~/.ray/auth_token is missing",
    ),
    "file that is not there": (
        "local.yaml",
        "cluster/setup.sh\n",
        "cluster/set-up.sh\n",
        "file_mounts.~/.segbench/setup.sh",
        "there is no 'cluster/set-up.sh'",
    ),
    "dashboard for everybody": (
        "local.yaml",
        "--dashboard-host=127.0.0.1",
        "--dashboard-host=0.0.0.0",
        "head_start_ray_commands[1]",
        "shows the dashboard to others",
    ),
    "another Ray than the lock's": (
        "local.yaml",
        "  - bash ~/.segbench/setup.sh",
        "  - bash ~/.segbench/setup.sh\n  - pip install 'ray[default]==2.50.1'",
        "setup_commands[1]",
        "installs ray 2.50.1, but requirements.lock has 2.60.0",
    ),
    "image of another Python": (
        "local.yaml",
        "provider:",
        "docker: {image: rayproject/ray:2.60.0-py310-gpu, container_name: ray}\nprovider:",
        "docker.image",
        "has Python 3.10",
    ),
    "nothing installed": (
        "local.yaml",
        "  - bash ~/.segbench/setup.sh",
        "  - pip install torch",
        "setup_commands",
        "do not install requirements.lock",
    ),
    "no storage": ("local.yaml", "  storage: /shared/segbench", "  note: none", "metadata", "storage is missing"),
    "storage on each node's own disk": (
        "local.yaml",
        "/shared/segbench  ",
        "/tmp/segbench  ",
        "metadata.storage",
        "on each node's own disk",
    ),
    "bucket that cannot be": (
        "gpu.yaml",
        "s3://segbench-example/runs",
        "s3://My_Bucket/runs",
        "metadata.storage",
        "'My_Bucket' cannot be a bucket",
    ),
    "key that is not there": (
        "local.yaml",
        "~/.ssh/id_ed25519  ",
        "~/.ssh/id_rsa  ",
        "auth.ssh_private_key",
        "there is no file '~/.ssh/id_rsa'",
    ),
    "head among the workers": (
        "local.yaml",
        "[192.168.1.11,",
        "[192.168.1.10,",
        "provider.worker_ips[0]",
        "'192.168.1.10' is given twice",
    ),
    "address that is none": ("local.yaml", "192.168.1.10 ", "192.168.1.300 ", "provider.head_ip", "neither an address"),
    "secret": (
        "gpu.yaml",
        "  - bash ~/.segbench/setup.sh",
        "  - bash ~/.segbench/setup.sh\n  - export MLFLOW_TRACKING_PASSWORD=hunter2",
        "setup_commands[1]",
        "holds a secret",
    ),
    # Kubernetes
    "misspelt key for KubeRay": (
        "kuberay.yaml",
        "maxReplicas: 8",
        "maxReplica: 8",
        "spec.rayClusterSpec.workerGroupSpecs[0].maxReplica",
        "did you mean 'maxReplicas'?",
    ),
    "another Ray for KubeRay": (
        "kuberay.yaml",
        "rayVersion: 2.60.0",
        "rayVersion: 2.46.0",
        "spec.rayClusterSpec.rayVersion",
        "is 2.46.0, but requirements.lock has Ray 2.60.0",
    ),
    "no token for KubeRay": (
        "kuberay.yaml",
        "authOptions: {mode: token}",
        "authOptions: {mode: disabled}",
        "spec.rayClusterSpec",
        "authOptions: {mode: token} is missing",
    ),
    "head of KubeRay on the internet": (
        "kuberay.yaml",
        "serviceType: ClusterIP",
        "serviceType: LoadBalancer",
        "spec.rayClusterSpec.headGroupSpec",
        "opens the head to the outside",
    ),
    "image without version": (
        "kuberay.yaml",
        "segbench:0.1.0    #",
        "segbench:latest    #",
        "spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].image",
        "names no version",
    ),
}

# name -> (cluster file, --set for sweeps/compare.yaml, the key, what the sentence must say)
SWEEP_MISTAKES: dict[str, tuple[str, str, str, str]] = {
    "more GPUs than any machine has": (
        "gpu.yaml",
        "resources.gpu=8",
        "resources.gpu",
        "a trial asks for 8, and no type of",
    ),
    "more cores than any machine has": ("gpu.yaml", "resources.cpu=64", "resources.cpu", "gpu4-spot 48"),
    "cores and GPUs that no machine has together": (
        "kuberay.yaml",
        "resources.cpu=6",
        "resources.cpu",
        "a trial asks for 6, and no type of node has so many: gpu 4",
    ),
    "storage on the head only": ("gpu.yaml", "storage=/tmp/runs", "storage", "on each node's own disk"),
    "unknown kind of storage": ("gpu.yaml", "storage=hdfs://x/y", "storage", "unknown scheme hdfs"),
    "data of the laptop": ("local.yaml", "data.root=data/cityscapes", "data.root", "is a folder of this machine"),
    "earlier sweep of the laptop": (
        "local.yaml",
        "search.warm_start=[runs/old]",
        "search.warm_start",
        "is a folder of this",
    ),
    "tracking server of the laptop": (
        "local.yaml",
        "mlflow.tracking_uri=http://localhost:5000",
        "mlflow.tracking_uri",
        "is this machine, but the sweep runs on the head",
    ),
    "password of the tracking server": (
        "local.yaml",
        "mlflow.tracking_uri=https://me:hunter2@mlflow.example.com",
        "mlflow.tracking_uri",
        "holds a password",
    ),
    "database that ends with the job": (
        "local.yaml",
        "mlflow.tracking_uri=sqlite:///mlflow.db",
        "mlflow.tracking_uri",
        "in a folder that ends with the job",
    ),
    "mistake of the sweep itself": ("local.yaml", "budget.trials=0", "budget.trials", "must be at least 1"),
}

OWN = "name: own\ntrain: {train}\nparameters:\n  x: {{min: 0.0, max: 1.0}}\n"


def message_of(cluster: str, sweep: str | None = None, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        check_cluster(Path("cluster") / cluster, Path(sweep) if sweep else None, overrides)
    return str(caught.value)


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("sweep", [None, "compare.yaml", "unet.yaml", "segformer.yaml", "quickstart.yaml"])
def test_the_shipped_files_are_right(cluster: str, sweep: str | None, own_machine: Path) -> None:
    overrides = [ON_ALL_NODES] if sweep not in (None, "quickstart.yaml") else []
    checked = check_cluster(Path("cluster") / cluster, Path("sweeps") / sweep if sweep else None, overrides)
    assert checked.file.max_nodes >= 3


def test_spot_instances_without_the_script_that_hears_the_notice_are_mentioned(own_machine: Path) -> None:
    path = Path("cluster/gpu.yaml")
    assert not [note for note in check_cluster(path).notes() if "drain_on_notice" in note]
    path.write_text(re.sub(r".*drain_on_notice.*\n", "", path.read_text()))
    assert [note for note in check_cluster(path).notes() if "drain_on_notice" in note]


@pytest.mark.parametrize("mistake", CLUSTER_MISTAKES)
def test_a_mistake_in_a_cluster_file_is_named_with_its_line(mistake: str, own_machine: Path) -> None:
    name, right, wrong, key, sentence = CLUSTER_MISTAKES[mistake]
    path = Path("cluster") / name
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    lines = message_of(name).splitlines()
    found = [line for line in lines if re.match(rf"cluster/{name}:\d+ {re.escape(key)}: ", line) and sentence in line]
    assert found, lines
    last = re.split(r"[.\[]", key)[-1].rstrip("]")
    if not last.isdecimal() and key != "file" and "~" not in key:
        number = int(found[0].split(":")[1].split()[0])
        assert re.search(rf"\b{re.escape(last)}\b", path.read_text().splitlines()[number - 1]), found[0]


@pytest.mark.parametrize("mistake", SWEEP_MISTAKES)
def test_a_sweep_that_cannot_run_on_the_cluster_is_named_with_its_key(mistake: str, own_machine: Path) -> None:
    cluster, override, key, sentence = SWEEP_MISTAKES[mistake]
    message = message_of(cluster, "sweeps/compare.yaml", ON_ALL_NODES, override)
    assert "\n" not in message, message
    assert f"--set {override} {key}" in message
    assert sentence in message


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ("nowhere:train", "'nowhere' is neither among the files that are copied to the cluster"),
        ("mine:trian", "mine.py has no 'trian'; it has: train"),
        ("hypothesis:given", None),  # installed on the nodes too, by the lock
        ("mine:train", None),
    ],
)
def test_a_training_function_that_the_nodes_would_not_have(train: str, sentence: str | None, own_machine: Path) -> None:
    Path("mine.py").write_text(
        "raise SystemExit('is not run by a check')\n\n\ndef train(config, context):\n    yield {}\n"
    )
    Path("own.yaml").write_text(OWN.format(train=train))
    if sentence is None:
        check_cluster(Path("cluster/local.yaml"), Path("own.yaml"))
    else:
        message = message_of("local.yaml", "own.yaml")
        assert message.startswith("own.yaml:2 train: ")
        assert sentence in message


def test_mistakes_of_both_files_are_said_together(own_machine: Path) -> None:
    path = Path("cluster/local.yaml")
    path.write_text(path.read_text().replace("--num-gpus=0 ", ""))
    lines = message_of("local.yaml", "sweeps/compare.yaml").splitlines()
    assert [line.split(":")[0] for line in lines] == ["cluster/local.yaml", "sweeps/compare.yaml"]


CRD = """
spec:
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              properties:
                entrypoint: {type: string}
                backoffLimit: {type: integer}
"""


def test_a_rayjob_is_held_strictly_against_the_crd_of_its_cluster(own_machine: Path) -> None:
    Path("crd.yaml").write_text(CRD)
    with pytest.raises(SpecError) as caught:
        check_cluster(Path("cluster/kuberay.yaml"), crd=Path("crd.yaml"))
    keys = {line.split()[1] for line in str(caught.value).splitlines()}
    assert keys == {
        f"spec.{key}:"
        for key in ("submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec")
    }


def test_what_a_cluster_can_hold_at_a_time(own_machine: Path) -> None:
    def places(cluster: str, *overrides: str) -> int | None:
        return check_cluster(Path("cluster") / cluster, Path("sweeps/compare.yaml"), [ON_ALL_NODES, *overrides]).places

    assert places("gpu.yaml") == 2 * 4 + 6 * 1, "two machines with four GPUs, and six of eight with one"
    assert places("gpu.yaml", "resources.gpu=2") == 2 * 2
    assert places("kuberay.yaml") == 8
    assert places("local.yaml") is None, "only the machines know"
