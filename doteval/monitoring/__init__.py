"""What runs beside the work: figures for Prometheus, and health for whoever keeps services alive.

`endpoint` is the small HTTP server, `store_figures` what the result store and the queue say,
`process_figures` what worker processes count themselves.
"""

# Of Prometheus' client: where the processes of a service count, if anybody asks.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
