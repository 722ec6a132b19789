"""Uses a model server as a worker process does. It reads one command a line and answers each with a line of JSON.

``python -m tests.support.model_server_user SETTINGS``: SETTINGS are the arguments of `ServerProvider.setup`, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from doteval.errors import DotEvalError
from doteval.providers.shared_models import ModelProviders


def main() -> None:
    settings = json.loads(sys.argv[1])
    providers = ModelProviders()
    loop = asyncio.new_event_loop()
    handle: Any = None
    for line in sys.stdin:
        try:
            match line.strip():
                case "setup":
                    handle = loop.run_until_complete(providers["server"].setup(**settings))
                    answer: Any = handle.model.base_url
                case "chat":
                    answer = loop.run_until_complete(handle.model.chat("hello")).choices[0].message.content
                case "status":
                    status = handle.model.status
                    answer = [status.state, status.pid, status.restarts]
                case "client":
                    answer = str(handle.model.client.base_url)
                case "close":
                    answer = providers.close()
                case command:
                    raise AssertionError(command)
        except DotEvalError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
