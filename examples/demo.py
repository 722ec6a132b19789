"""Starts the mock server and submits the examples in this folder, which use it: ``make demo``."""

import os
import subprocess
import sys
from pathlib import Path

from doteval.mock_openai import MockOpenAI


def main():
    examples = Path(__file__).parent
    command = [sys.executable, "-m", "doteval", "submit", str(examples), "--experiment", "demo", *sys.argv[1:]]
    print("doteval", *command[3:], flush=True)
    with MockOpenAI(latency=0.1) as server:
        environment = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "any"}
        return subprocess.call(command, env={**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main())
