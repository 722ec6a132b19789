"""The queue: row tasks on Celery. Knows messages, brokers and queues; knows nothing of the store."""
