"""Models by name: who sets one up, who shares it, and who ends it.

A model provider makes a model of a spec (`handles`). `registry` knows providers by name, `shared_models` has
equal models set up once in a worker process, `fixtures` offers them to evaluations as `model_providers`.

Three are built in: ``openai`` (`endpoints`), ``transformers`` (`pipelines`) and ``server`` (`servers`). A
server belongs to all worker processes of the machine: each holds a connection (`server_holder`) to the
server's keeper, a small process (`keeper`) in a private directory (`server_directory`).

Nothing is imported here: the `openai` package alone takes a good part of a second.
"""
