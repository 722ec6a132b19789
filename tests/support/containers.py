"""Runs the services of a compose file as Docker would, without Docker.

Each service gets its own network, mount and process namespace, a root file system that is read-only where the file says
so, its volumes, its user, and exactly its command and environment. The programs are those of this machine, unless the
image names a root directory. Needs root.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.project import wait_until

ROOT = Path(__file__).parents[2]

# $1 is the directory to build in; the words after "--" are the command. The rest comes in variables.
_MAKE_ROOT = r"""
set -eu
mount -t tmpfs tmpfs "$1"
cd "$1"
shift 2
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=upper,workdir=work" root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount -t tmpfs -o mode=1777 tmpfs root/tmp
mount --bind "$HOSTS" root/etc/hosts
# Python may be installed below /root, which only root may read.
chmod o+x root/root
mkdir -p "root$DIRECTORY"
echo "$VOLUMES" | while read -r mode source target; do
    [ -n "$mode" ] || continue
    # A package of this machine may have made the directory readable by its own user only.
    parent="root$(dirname "$target")"
    mkdir -p "$parent"
    chmod o+x "$parent"
    if [ -d "$source" ]; then mkdir -p "root$target"; else : > "root$target"; fi
    mount --bind "$source" "root$target"
    if [ "$mode" = ro ]; then mount -o remount,bind,ro "root$target"; fi
done
if [ "$READ_ONLY" = yes ]; then mount -o remount,ro root; fi
exec chroot root "$@"
"""


@dataclass(frozen=True)
class Image:
    """What an image adds to the compose file. `user` is a user id; `root` is the directory with the image's files."""

    user: int
    directory: str = "/"
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    root: Path = Path("/")


def own_image() -> Image:
    """The image that workers/Dockerfile describes."""
    last = (ROOT / "workers" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    user, directory, entrypoint = (
        re.search(rf"^{word} (.+)$", last, re.MULTILINE) for word in ("USER", "WORKDIR", "ENTRYPOINT")
    )
    assert user
    assert directory
    assert entrypoint
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.+)$", last, re.MULTILINE))))
    # The packages are those of this machine's environment.
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.defpath}"
    return Image(int(user[1]), directory[1], tuple(json.loads(entrypoint[1])), environment)


@dataclass
class Container:
    """A running service. `address`: its IP address; `output`: the file with its output."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    output: Path
    runner: Sequence[str]

    @property
    def pid(self) -> int:
        """The id of the container's process 1 outside of the container."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(wait_until(lambda: children.read_text().split(), what=f"process 1 of {self.name}")[0])

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as ``docker compose exec`` does."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--root", "--wd=/"]
        return subprocess.run(
            [*enter, *self.runner, *command], capture_output=True, text=True, timeout=180, check=False
        )

    def stop(self, seconds: float) -> int:
        """Stop it as Docker does: SIGTERM, and SIGKILL after `seconds`. Returns its exit code."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
                return self.process.returncode
            self.process.kill()
        return self.process.wait()

    def logs(self) -> str:
        """What it has printed."""
        return self.output.read_text(errors="replace")


class Compose:
    """A network, and containers on it. `services` has the form of ``docker compose config``."""

    def __init__(self, directory: Path, services: Mapping[str, Any], images: Mapping[str, Image]) -> None:
        self._directory = directory
        self._services = services
        self._images = images
        self._bridge = f"dv{secrets.token_hex(3)}"
        self._subnet = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
        self._containers: list[Container] = []
        # Not below pytest's directory, which only its owner may read.
        self.volumes = Path(tempfile.mkdtemp(prefix="volumes-"))
        self.volumes.chmod(0o711)
        self._hosts = directory / "hosts"

    def __enter__(self) -> Compose:
        self._hosts.write_text("127.0.0.1 localhost\n")
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self._subnet}.1/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for container in reversed(self._containers):
            container.stop(10)
            _ip("netns", "delete", self._namespace(container.address))
        _ip("link", "delete", self._bridge)
        shutil.rmtree(self.volumes)

    def start(self, service: str, *arguments: str, name: str | None = None, program: Sequence[str] = ()) -> Container:
        """Start a service. `arguments` replace its command, as in ``docker compose run``; `program` the entrypoint."""
        config = self._services[service]
        image = self._images[config["image"].partition(":")[0]]
        address = f"{self._subnet}.{len(self._containers) + 2}"
        namespace = self._namespace(address)
        _ip("netns", "add", namespace)
        inside, outside = f"{namespace}i", f"{namespace}o"
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", outside, "master", self._bridge, "up")
        _ip("link", "set", inside, "netns", namespace)
        for words in (("link", "set", "lo", "up"), ("link", "set", inside, "up")):
            _ip("-netns", namespace, *words)
        _ip("-netns", namespace, "address", "add", f"{address}/24", "dev", inside)
        with self._hosts.open("a") as hosts:
            hosts.write(f"{address} {name or service}\n")
        environment = {**image.environment, **(config.get("environment") or {})}
        command = [
            *(program or config.get("entrypoint") or image.entrypoint),
            *(arguments or config.get("command") or image.command),
        ]
        runner = [
            *("env", "-i", *(f"{key}={value}" for key, value in environment.items())),
            *("setpriv", f"--reuid={image.user}", f"--regid={image.user}", "--clear-groups", "--no-new-privs"),
            *("--inh-caps=-all", "--bounding-set=-all"),
        ]
        root = self._directory / namespace
        root.mkdir()
        output = self._directory / f"{namespace}-{service}.log"
        with output.open("wb") as log:
            process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", namespace, "unshare", "--mount", "--pid", "--fork", "--kill-child"),
                    *("sh", "-c", _MAKE_ROOT, "sh", str(root), "--"),
                    *runner,
                    *("sh", "-c", 'cd "$0" && exec "$@"', image.directory, *command),
                ],
                env={
                    **os.environ,
                    "HOSTS": str(self._hosts),
                    "ROOT": str(image.root),
                    "DIRECTORY": image.directory,
                    "VOLUMES": self._mounts(config, image),
                    "READ_ONLY": "yes" if config.get("read_only") else "no",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        container = Container(name or service, address, process, output, runner)
        self._containers.append(container)
        return container

    def run(self, service: str, *arguments: str, program: Sequence[str] = ()) -> str:
        """Run a service to its end; fails unless it exits with 0. Returns its output."""
        container = self.start(service, *arguments, program=program)
        code = container.process.wait(120)
        assert code == 0, f"{service} exited with {code}\n{container.logs()}"
        return container.logs()

    def volume(self, name: str, user: int) -> Path:
        """The directory of a named volume, owned by `user` if it is new."""
        directory = self.volumes / name
        if not directory.exists():
            directory.mkdir(parents=True)
            shutil.chown(directory, user, user)
        return directory

    def _mounts(self, config: Mapping[str, Any], image: Image) -> str:
        lines = []
        for mount in config.get("volumes") or ():
            named = mount["type"] == "volume"
            source = self.volume(mount["source"], image.user) if named else mount["source"]
            lines.append(f"{'ro' if mount.get('read_only') else 'rw'} {source} {mount['target']}")
        return "\n".join(lines)

    def _namespace(self, address: str) -> str:
        # The name of a network interface has at most 15 characters.
        return f"{self._bridge}x{address.rpartition('.')[2]}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
