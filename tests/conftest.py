"""What every test can ask for: a fresh project, real services, and pytest's own test bench."""

pytest_plugins = [
    "pytester",
    "tests.support.commands",
    "tests.support.openai",
    "tests.support.postgres",
    "tests.support.processes",
    "tests.support.rabbitmq",
    "tests.support.redis",
    # Last: it imports from the others, which are imported as plugins first.
    "tests.support.project",
]
