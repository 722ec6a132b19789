"""What operators deploy and read fits together: alerts, variables, links to guides."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
INFRA = ROOT / "infra"


def test_each_alert_has_a_section_that_says_what_to_do() -> None:
    rules = yaml.safe_load((INFRA / "prometheus" / "alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    text = (GUIDES / "monitoring.md").read_text()
    sections = re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text[text.index("\n## Alerts") :], re.MULTILINE | re.DOTALL)
    assert {name for name, _ in sections} == alerts
    assert [name for name, what in sections if not re.search(r"^1\. ", what, re.MULTILINE)] == []


def test_each_variable_of_compose_is_explained() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    lines = (INFRA / "env.example").read_text().splitlines()
    explained = {line.partition("=")[0] for above, line in pairwise(lines) if above.startswith("# ") and "=" in line}
    assert {name for name in explained if not name.startswith("#")} == used


def test_guides_of_operators_are_linked_from_what_they_deploy() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    operating = index[index.index("## Operating") : index.index("## Reference")]
    guides = set(re.findall(r"\(guides/([\w-]+)\.md\)", operating))
    linked = {
        name
        for page in ("infra/README.md", "workers/README.md")
        for name in re.findall(r"docs/guides/([\w-]+)\.md", (ROOT / page).read_text())
    }
    assert len(guides) > 8
    assert guides <= linked
