"""Builds an image of a Dockerfile without a Docker engine: buildah, in a chroot, on a base that mmdebstrap makes.

No image is pulled: the base has the name that the Dockerfile asks for, the same release of Debian, and Debian's own
Python. The build reaches package indexes through this machine's pip configuration, which it gets as a build secret.
Needs root.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROGRAMS = ("buildah", "mmdebstrap")
# What images of Python bring, of Debian's packages.
_PACKAGES = ("python3", "python3-venv", "ca-certificates")
_BUILD_SECONDS = 1500


class Buildah:
    """Images and containers in `directory`, which nobody else sees. `close` removes them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._store = [*("--root", str(directory / "store")), *("--runroot", str(directory / "run"))]
        # vfs copies all files for each layer, but works on every file system; overlay does not in most containers.
        works = subprocess.run(
            ["buildah", *self._store, "--storage-driver", "overlay", "info"], capture_output=True, check=False
        )
        self._store += ["--storage-driver", "overlay" if works.returncode == 0 else "vfs"]

    def make_base(self, name: str) -> None:
        """Make an image of Debian with Python, and call it `name`, whose tag ends with the release."""
        archive = self._directory / "base.tar"
        _run(
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(_PACKAGES)}",
            # Nobody reads it, and it need not survive a power cut.
            *(f"--dpkgopt=path-exclude=/usr/share/{place}/*" for place in ("doc", "man", "locale")),
            "--dpkgopt=force-unsafe-io",
            '--customize-hook=ln -s python3 "$1/usr/bin/python"',
            name.rpartition("-")[2],
            str(archive),
        )
        container = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", container, str(archive), "/")
        self._buildah("config", "--env", f"PATH={os.defpath}:/usr/sbin:/sbin", container)
        self._buildah("commit", "--quiet", "--rm", container, name)
        archive.unlink()

    def build(self, dockerfile: Path, context: Path) -> str:
        """Build a Dockerfile. Returns the id of the image."""
        configuration, places = pip_configuration()
        secret = self._directory / "pip.conf"
        secret.write_text(configuration)
        image = self._directory / "image"
        self._buildah(
            *("build", "--isolation", "chroot", "--format", "docker", "--pull-never"),
            *("--secret", f"id=pip.conf,src={secret}"),
            *(f"--volume={place}:{place}:ro" for place in places),
            *("--file", str(dockerfile), "--iidfile", str(image), str(context)),
        )
        return image.read_text().strip()

    def config(self, image: str) -> dict[str, Any]:
        """What the image says of the processes that are started from it."""
        config: dict[str, Any] = json.loads(self._buildah("inspect", "--type", "image", image))["Docker"]["config"]
        return config

    def mount(self, image: str) -> Path:
        """The root directory of a container that is made from the image."""
        return Path(self._buildah("mount", self._buildah("from", "--pull-never", image)))

    def close(self) -> None:
        for words in (("unmount", "--all"), ("rm", "--all"), ("rmi", "--all", "--force")):
            subprocess.run(["buildah", *self._store, *words], capture_output=True, check=False)
        shutil.rmtree(self._directory)

    def _buildah(self, *words: str) -> str:
        return _run("buildah", *self._store, *words)


def base_of(dockerfile: Path) -> str:
    """The one image that a Dockerfile starts from."""
    (name,) = set(re.findall(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE))
    return str(name)


def pip_configuration() -> tuple[str, list[str]]:
    """This machine's configuration of pip as one file, and the files and directories of this machine that it names."""
    listed = _run(sys.executable, "-m", "pip", "config", "list")
    parser = configparser.RawConfigParser()
    parser.add_section("global")
    from_environment = {}
    for key, value in re.findall(r"^(\S+?)='(.*)'$", listed, re.MULTILINE):
        section, _, name = key.rpartition(".")
        if section == ":env:":
            from_environment[name] = value
            continue
        if not parser.has_section(section):
            parser.add_section(section)
        parser.set(section, name, value)
    # Variables are stronger than files.
    for name, value in from_environment.items():
        parser.set("global", name, value)
    words = [word for section in parser.sections() for _, value in parser.items(section) for word in value.split()]
    # The pages of an index in a directory may refer to files beside it.
    paths = [str(Path(urlsplit(word).path).parent) if word.startswith("file:") else word for word in words]
    places = [path for path in dict.fromkeys(paths) if path.startswith("/") and Path(path).exists()]
    text = "".join(
        f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in parser.items(section))
        for section in parser.sections()
    )
    return text, places


def _run(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    return ran.stdout.strip()
