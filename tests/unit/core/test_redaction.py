"""URLs are shown without their passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.core.redaction import hide_in_text, hide_password, hide_secrets, without_arguments


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:hunter2@localhost:6379/0", "redis://:***@localhost:6379/0"),
        ("postgresql://ann:hunter2@db.example/x", "postgresql://ann:***@db.example/x"),
        ("postgresql://ann@db.example/x", "postgresql://ann@db.example/x"),
        ("redis://ann:hun@ter/2@host/1", "redis://ann:***@host/1"),
        (
            "redis+socket:///tmp/a.sock?virtual_host=0&password=hunter2",
            "redis+socket:///tmp/a.sock?virtual_host=0&password=***",
        ),
        ("postgresql:///x?sslpassword=hunter2&host=/tmp", "postgresql:///x?sslpassword=***&host=/tmp"),
        ("amqp://a:hunter2@one//;amqp://b:hunter2@two//", "amqp://a:***@one//;amqp://b:***@two//"),
        ("redis://:hun;ter2@host/0", "redis://:***@host/0"),
        ("results.db", "results.db"),
    ],
)
def test_only_the_password_is_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@given(password=st.text(min_size=1).filter(lambda text: "://" not in text))
def test_any_password_is_hidden(password: str) -> None:
    assert hide_password(f"redis://ann:{password}@host:1/0") == "redis://ann:***@host:1/0"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (
            "submit eval_x.py --experiment first --max-tokens 500",
            "submit eval_x.py --experiment first --max-tokens 500",
        ),
        ("pytest -k token eval_x.py::eval_y[a=b]", "pytest -k token eval_x.py::eval_y[a=b]"),
        ("pytest --api-key hunter2 x", "pytest --api-key *** x"),
        ("pytest --api_key=hunter2 x", "pytest --api_key=*** x"),
        ("pytest --hf-token hunter2 --verbose", "pytest --hf-token *** --verbose"),
        ("pytest --password --verbose", "pytest --password --verbose"),
        ("pytest -o OPENAI_API_KEY=hunter2", "pytest -o OPENAI_API_KEY=***"),
        ("run sk-proj-abcdefghijklmnop0123 end", "run *** end"),
        ("run --header=Bearer:ghp_abcdefghijklmnop0123", "run --header=Bearer:***"),
        ("run --storage=postgresql://a:hunter2@h/x", "run --storage=postgresql://a:***@h/x"),
        ("run --broker redis://:hunter2@h/0", "run --broker redis://:***@h/0"),
        ("run task-skipping-everything-else.py", "run task-skipping-everything-else.py"),
    ],
)
def test_a_command_line_is_kept_without_secrets(arguments: str, shown: str) -> None:
    assert " ".join(hide_secrets(arguments.split())) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("POST https://h/v1?api_key=abc&n=1 200", "POST https://h/v1?api_key=***&n=1 200"),
        ("(https://h/x?n=1&access_token=a.b-c)", "(https://h/x?n=1&access_token=***"),
        ("'https://me:pw@h/?sig=abc'", "'https://me:***@h/?sig=***'"),
        ("https://h/?X-Amz-Signature=f00#top", "https://h/?X-Amz-Signature=***#top"),
        ("https://h/?monkey&page=2", "https://h/?monkey&page=2"),
        ("what is ?api_key=abc", "what is ?api_key=abc"),
    ],
)
def test_secrets_of_urls_in_a_text_are_hidden(text: str, shown: str) -> None:
    assert hide_in_text(text) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("unknown command 'AUTH', with args beginning with: 'me' 'hunter2' ", "unknown command 'AUTH'"),
        ("unknown command `HELLO`, with args beginning with: `3`, `AUTH`", "unknown command `HELLO`"),
        ("NOAUTH Authentication required.", "NOAUTH Authentication required."),
    ],
)
def test_a_server_does_not_repeat_a_password(said: str, shown: str) -> None:
    assert without_arguments(said) == shown
