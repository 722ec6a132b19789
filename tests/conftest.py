"""What every test can ask for: a fresh project, real services, and pytest's own test bench."""

pytest_plugins = [
    "pytester",
    "tests.services.commands",
    "tests.services.openai",
    "tests.services.postgres",
    "tests.services.processes",
    "tests.services.rabbitmq",
    "tests.services.redis",
    # Last: it imports from the others, which are imported as plugins first.
    "tests.e2e.project",
]
