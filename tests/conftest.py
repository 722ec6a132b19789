"""What every test can ask for: real services, and pytest's own test bench."""

pytest_plugins = [
    "pytester",
    "tests.services.openai",
    "tests.services.postgres",
    "tests.services.rabbitmq",
    "tests.services.redis",
]
