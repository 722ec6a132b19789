"""`doteval rescore` runs changed evaluations on recorded replies: requests are counted at the server."""

from __future__ import annotations

import os
import signal

from doteval.mock_openai import MockOpenAI
from tests.support.project import Project, wait_until
from tests.support.troubleshooting import assert_shown

ROWS = 40

# Row 7 fails after the first of its two calls.
BEFORE = """
from doteval import Score, foreach

def ask(client, text):
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])

@foreach("number", [(number,) for number in range(40)])
def eval_it(number, openai_client):
    ask(openai_client, f"the number {number}")
    if number == 7:
        raise KeyError("a mistake")
    ask(openai_client, f"again {number}")
    return Score("ok", number % 2 == 0, ["accuracy"])
"""
# With a judge, and another score. One row waits for a file.
AFTER = """
import time
from pathlib import Path
from doteval import Score, foreach

def ask(client, text):
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])

@foreach("number", [(number,) for number in range(40)])
def eval_it(number, openai_client):
    ask(openai_client, f"the number {number}")
    ask(openai_client, f"again {number}")
    ask(openai_client, f"judge {number}")
    if number == 30:
        tell("held")
    while number == 30 and not Path("go").exists():
        time.sleep(0.01)
    tell(f"row {number}")
    return Score("ok", number % 4 == 0, ["accuracy"])
"""
IN_LISTS = BEFORE.replace("foreach", "batch")
WITHOUT_JUDGE = AFTER.replace('    ask(openai_client, f"judge {number}")\n', "")


def is_stored(project: Project) -> bool:
    """Whether all rows that have run, and the calls of the held one, are stored."""
    with project.store() as store:
        (judged,) = store.evaluations.of(store.experiments.find("judged"))
        ran = sum(what.startswith("row ") for what in project.counts())
        # Row 7 has sent two, the others one.
        return judged.counts.finished == ran and store.calls.count([judged.id]) == ran + project.counts()["row 7"] + 1


def test_rescored_rows_send_nothing_but_what_is_new(project: Project) -> None:
    project.write("eval_it.py", BEFORE)
    with MockOpenAI() as mock:
        project.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "then"}
        with project.started("eval_it.py", "--experiment", "first", module="pytest") as first:
            assert first.wait(120) == 0
        assert mock.stats()["requests"] == 2 * ROWS - 1

        project.write("eval_it.py", AFTER)
        command = ("rescore", "first", "--as", "judged", "--missing", "live", "--workers", "1")
        with project.started(*command) as killed:
            wait_until(lambda: project.counts()["held"], what="the held row")
            wait_until(lambda: is_stored(project), what="the calls to the judge in the store")
            (worker,) = [each.info.pid for each in project.workers() if each.left_at is None]
            for pid in (worker, killed.pid):
                os.kill(pid, signal.SIGKILL)
            killed.wait(120)
        (project.path / "go").touch()
        project.run(*command)
        assert project.counts() == {"held": 2} | {f"row {number}": 1 for number in range(ROWS)}
        # A judge for each row, which was new, and the call that row 7 had not come to.
        assert mock.stats()["requests"] == 2 * ROWS - 1 + ROWS + 1

        # The server of then need not be there any more.
        project.environment |= {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "now"}
        project.write("eval_it.py", WITHOUT_JUDGE)
        done = project.run("rescore", "first", "--as", "strict", "--workers", "1")
        assert_shown("no-recorded-reply", done.stdout)
    (strict,) = project.json("show", "strict", "--row", "7")["evaluations"]
    assert (strict["rows"]["done"], strict["rows"]["failed"]) == (ROWS - 1, 1)
    assert strict["dataset_notes"] == ["rescored from 'first', with the replies of models that were recorded there"]
    (record,) = strict["records"]
    assert record["error"]["message"].startswith("call 2 of the row (/chat/completions, m) has no recorded reply")
    assert record["error"]["traceback"].splitlines()[1:] == [
        '-       "content": "the number 7"',
        '+       "content": "again 7"',
    ]
    assert [call["source"] for call in strict["calls"]] == ["replay"]
    project.write("eval_it.py", IN_LISTS)
    refused = project.run("rescore", "first", "--as", "lists", check=None)
    assert refused.returncode != 0
    assert "eval_it is a @batch evaluation in these files" in refused.stderr
    compared = project.json("compare", "first", "strict")
    assert "was rescored from 'first'" in str(compared)
