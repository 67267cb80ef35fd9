"""Where sweeps on a cluster log to: what the cluster file can say, and what the head does about it."""

import asyncio
import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from segbench.cluster import head, mlflow_head
from segbench.cluster.check import check_cluster
from segbench.cluster.commands import remote_sweep
from segbench.cluster.head import pack
from segbench.cluster.mlflow_head import head_server, private_address, with_driver
from segbench.cluster.tunnel import _relay
from segbench.cluster.verbs import cluster_group
from segbench.core.errors import SpecError, UserError
from segbench.core.paths import SweepPaths
from segbench.tracking.server import start_server

SWEEP = Path("sweeps/quickstart.yaml")
DATABASE = "postgresql://segbench@10.0.0.5/mlflow"

# what is planted as metadata.mlflow, and what the sentence must say
MISTAKES = {
    "a word": ("postgres", "'postgres' is unknown; allowed: server (one on the head"),
    "a mapping": ("{type: server}", "is unknown; allowed: server"),
    "another database": ("mysql://me@10.0.0.5/mlflow", "'mysql://me@10.0.0.5/mlflow' is unknown"),
    "a file": ("sqlite:///mlflow.db", "'sqlite:///mlflow.db' is unknown; allowed: server"),
    "a password of the database": ("postgresql://me:hush@10.0.0.5/mlflow", "holds a password; leave it out, and"),
    "a password as an option": ("postgresql://me@10.0.0.5/mlflow?password=hush", "holds a secret; everyone who reads"),
    "a password in what is unknown": ("mysql://me:hush@10.0.0.5/mlflow", "'mysql://me:...@10.0.0.5/mlflow'"),
    "no database": ("postgresql://me@10.0.0.5", "lacks user, host or database; write postgresql://USER@HOST/DATABASE"),
    "no user": ("postgresql://10.0.0.5/mlflow", "lacks user, host or database"),
    "a port that is none": ("http://10.0.0.5:mlflow", "is unknown"),
    "this machine": ("http://localhost:5000", "is this machine, but the sweep runs on the head"),
    "a password of the server": ("https://me:hush@mlflow.example.com", "$MLFLOW_TRACKING_PASSWORD of the head"),
}


def plant(mlflow: str, cluster: str = "local.yaml") -> Path:
    path = Path("cluster") / cluster
    text = path.read_text()
    assert text.count("  # mlflow: server ") == 1
    path.write_text(text.replace("  # mlflow: server ", f"  mlflow: {mlflow} "))
    return path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line(mistake: str, own_machine: Path) -> None:
    wrong, sentence = MISTAKES[mistake]
    path = plant(wrong)
    with pytest.raises(SpecError) as caught:
        check_cluster(path)
    line = 1 + next(number for number, text in enumerate(path.read_text().splitlines()) if "  mlflow: " in text)
    message = str(caught.value)
    assert message.startswith(f"cluster/local.yaml:{line} metadata.mlflow: ")
    assert sentence in message
    assert "hush" not in message
    assert "\n" not in message


@pytest.mark.parametrize("cluster", ["local.yaml", "gpu.yaml", "gcp.yaml"])
@pytest.mark.parametrize("mlflow", ["server", DATABASE, f"{DATABASE}?sslmode=require", "http://10.0.0.7:5000"])
def test_what_is_allowed_is_told_by_check(cluster: str, mlflow: str, own_machine: Path) -> None:
    path = plant(mlflow, cluster)
    checked = check_cluster(path, SWEEP)
    assert ("server" if mlflow == "server" else mlflow) in dict(checked.rows())["MLflow"]
    assert remote_sweep(checked).mlflow == (mlflow, checked.file.storage)


@pytest.mark.parametrize("override", ["mlflow.tracking_uri=http://10.0.0.9:5000", "mlflow.enabled=false"])
def test_the_sweep_file_has_the_last_word(override: str, own_machine: Path) -> None:
    assert remote_sweep(check_cluster(plant("server"), SWEEP, [override])).mlflow is None


def test_without_the_key_nothing_changes(own_machine: Path) -> None:
    checked = check_cluster(Path("cluster/local.yaml"), SWEEP)
    assert remote_sweep(checked).mlflow is None
    assert dict(checked.rows())["MLflow"].endswith("a database in the sweep's folder")


def test_the_address_is_the_one_that_ssh_came_to() -> None:
    assert private_address({"SSH_CONNECTION": "203.0.113.9 50000 10.0.0.1 22"}) == "10.0.0.1"
    assert private_address({"SSH_CONNECTION": "203.0.113.9 50000 100.64.0.1 22"}) == "100.64.0.1"


@pytest.mark.parametrize("address", ["8.8.8.8", "127.0.0.1", "2001:db8::1"])
def test_an_address_that_strangers_or_nobody_reach_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=f"{address} is not one of a private IPv4 network"):
        private_address({"SSH_CONNECTION": f"192.168.1.9 50000 {address} 22"})


def test_the_driver_of_the_lock_is_named() -> None:
    assert with_driver(DATABASE) == "postgresql+psycopg2://segbench@10.0.0.5/mlflow"
    assert with_driver("sqlite:////home/me/mlflow.db") == "sqlite:////home/me/mlflow.db"


def test_the_database_is_in_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = {}

    def popen(command: list[str], **options: object) -> None:
        started.update(options, command=command)

    monkeypatch.setattr("subprocess.Popen", popen)
    start_server("postgresql://me:hush@db/mlflow", "s3://b/mlflow", "10.0.0.1", 5000, tmp_path / "log", "10.0.0.1:*")
    assert "hush" not in " ".join(started["command"])
    assert started["env"]["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:hush@db/mlflow"
    assert started["start_new_session"]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something answers at the head's address."""
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 50000 10.0.0.1 22")
    monkeypatch.setattr(mlflow_head, "answers", lambda url: True)


def test_a_server_of_somebody_else_is_not_taken_for_ours(taken: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"something listens at http://10\.0\.0\.1:5000 that was not started from here"):
        head_server("server", "/shared", tmp_path)


def test_a_server_on_another_database_is_left_alone(taken: None, tmp_path: Path) -> None:
    note = {
        "url": "http://10.0.0.1:5000",
        "database": f"sqlite:///{tmp_path}/mlflow.db",
        "artifacts": "s3://bucket/runs/mlflow",
        "pid": 7,
    }
    (tmp_path / mlflow_head.NOTE).write_text(json.dumps(note))
    assert head_server("server", "s3://bucket/runs/", tmp_path) == "http://10.0.0.1:5000"
    with pytest.raises(UserError, match=rf"has the database .*, not {DATABASE}; end it on the head .*\(kill 7\)"):
        head_server(DATABASE, "s3://bucket/runs", tmp_path)
    with pytest.raises(UserError, match="has the artifacts s3://bucket/runs/mlflow, not file:///shared/mlflow; end it"):
        head_server("server", "/shared", tmp_path)


def test_a_database_that_is_not_there_is_told_before_a_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 50000 10.0.0.1 22")
    monkeypatch.setattr(mlflow_head, "answers", lambda url: False)
    monkeypatch.setattr(mlflow_head, "start_server", lambda *arguments: pytest.fail("started"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UserError, match=rf"metadata\.mlflow: postgresql://me@127.0.0.1:{port}/x: .*refused"):
        head_server(f"postgresql://me@127.0.0.1:{port}/x", "/shared", tmp_path)


def test_an_existing_server_needs_none_on_the_head() -> None:
    assert head._tracking_uri("https://mlflow.example.org", "/shared") == "https://mlflow.example.org"


@pytest.mark.parametrize(("mlflow", "verb"), [(None, "dashboard"), ("http://10.0.0.7:5000", "dashboard")])
def test_the_dashboard_alone_is_rays_own_command(
    mlflow: str | None, verb: str, own_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr("segbench.cluster.commands.run_ray", lambda *words: said.append(words))
    path = plant(mlflow) if mlflow else Path("cluster/local.yaml")
    CliRunner().invoke(cluster_group, ["dashboard", str(path)], catch_exceptions=False)
    assert said == [(verb, str(path), "--port", "8265")]


def test_the_dashboard_brings_the_heads_mlflow_too(own_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr("segbench.cluster.commands.run_ray", lambda *words: said.append(words))
    arguments = ["dashboard", str(plant("server")), "--mlflow-port", "5001"]
    CliRunner().invoke(cluster_group, arguments, catch_exceptions=False)
    assert said[0][:6] == ("exec", "--port-forward", "8265", "--port-forward", "5001", "cluster/local.yaml")
    assert "python -m segbench.cluster.head tunnel 8265 5001" in said[0][6]


def test_the_tunnel_carries_both_ways_and_ends_with_either_end() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        writer.close()

    async def ask() -> bytes:
        far = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = far.sockets[0].getsockname()[:2]
        near = await asyncio.start_server(lambda r, w: _relay(address, r, w), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*near.sockets[0].getsockname()[:2])
        writer.write(b"hello")
        heard = await reader.read()
        writer.close()
        far.close()
        near.close()
        return heard

    assert asyncio.run(ask()) == b"HELLO"


@pytest.mark.parametrize("is_on_server", [True, False])
def test_what_was_given_to_a_server_is_fetched_and_found_there(is_on_server: bool, tmp_path: Path) -> None:
    import tarfile

    paths = SweepPaths(tmp_path / "sweep")
    for path in (paths.spec, paths.sweep_id, paths.mlflow_state, *([] if is_on_server else [paths.mlflow_db])):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    pack(str(paths.root), tmp_path / "out.tar.gz")
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        names = set(archive.getnames())
    assert names == {"sweep.yaml", "state/sweep_id", *(["state/mlflow.json"] if is_on_server else [])}
