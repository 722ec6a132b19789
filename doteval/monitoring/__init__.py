"""Metrics for Prometheus, and health checks of worker services.

Entry points: `service_endpoints.service_endpoints` serves the health and the metrics of a worker service,
`store_figures.StoreFigures` collects what the result store and the queue say, `process_figures` counts in worker
processes. `endpoint.Endpoint` is the small HTTP server below them.

May import `store` and the layers below.
"""

# The variable of Prometheus' client that names the directory in which the processes of a service count.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
