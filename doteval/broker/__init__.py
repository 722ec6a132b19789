"""Row tasks on Celery: messages, queues and brokers. This package knows nothing of the result store.

`publisher.Publisher` sends row tasks and counts the messages that wait; `celery_app.celery_app` makes the Celery
application that submitters and worker processes share. `messages` holds the row task, `fair_queues` the queues that
share workers between experiments, `redis_transport` what kombu's Redis transport does differently here.
`embedded_redis` starts a private Redis, `flower` runs Flower, `inspection` looks at a broker for ``doteval doctor``,
and `remote_control` sends commands to worker processes. What a broker can do is read from its URL:
`doteval.core.broker_url.Broker`. May import `core`, `errors` and the other layers below `store`.
"""
