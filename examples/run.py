"""Runs an example as its README says: ``make example NAME=scopes``. Without a name it lists the examples.

The commands are those in the README's console blocks. They run in the root of the checkout, with a store of their own
in ``.doteval/examples``, which is made anew each time, and without a broker, models or settings of yours.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"^\$ (.+)$", re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main(words):
    examples = {page.parent.name: page for page in sorted(ROOT.glob("examples/*/README.md"))}
    wanted = " ".join(words)
    if not wanted:
        print("make example NAME=...\n")
        for name, page in examples.items():
            print(f"  {name:15} {title(page)}")
        return 0
    if wanted not in examples:
        print(f"There is no example {wanted!r}. `make example` lists them.", file=sys.stderr)
        return 2
    return run(wanted, examples[wanted].read_text(encoding="utf-8"))


def title(page):
    """What the first line of a README says behind the name."""
    with page.open(encoding="utf-8") as lines:
        return next(lines).partition(": ")[2].strip()


def run(name, page):
    directory = ROOT / ".doteval" / "examples" / name
    shutil.rmtree(directory, ignore_errors=True)
    store = directory / "doteval.db"
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("DOTEVAL_", "OPENAI_"))}
    environment = {
        **mine,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "DOTEVAL_STORAGE": str(store),
        # Replies of an earlier run would be found there.
        "DOTEVAL_CACHE_PATH": str(directory / "cache.db"),
    }
    blocks = CONSOLE.findall(page)
    # One shell, as on a terminal. It shows each command before it runs it, and stops at the first that fails.
    script = "".join(
        f"echo {shlex.quote(f'$ {command}')}\n{command} || exit\n" for command in COMMAND.findall("".join(blocks))
    )
    ended = subprocess.run(["/bin/sh", "-c", script], cwd=ROOT, env=environment, check=False).returncode
    if ended == 0:
        shown = store.relative_to(Path.cwd()) if store.is_relative_to(Path.cwd()) else store
        print(f"\nexamples/{name}/README.md says what to look at. To go on with these results:")
        print(f"  export DOTEVAL_STORAGE={shown}\n  doteval list\n  doteval view --open")
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
