"""The table of keys in ``docs/spec.md``, made from the schema: ``python -m segbench.spec.docs docs/spec.md``."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segbench.spec.schema import SweepSpec

BEGIN = "<!-- keys: made by python -m segbench.spec.docs docs/spec.md -->"
END = "<!-- end of keys -->"

UNITS: Mapping[str, str] = {
    "data.size": "px",
    "data.limit": "images",
    "data.num_images": "images",
    "training.width": "channels",
    "training.batch_size": "images",
    "training.warmup_epochs": "epochs",
    "training.patience": "epochs",
    "scheduler.max_epochs": "epochs",
    "scheduler.grace_epochs": "epochs",
    "budget.trial_hours": "hours",
    "resources.cpu": "cores",
    "resources.gpu": "GPUs",
    "retrain.epochs": "epochs",
}
"""Units of the keys that have one."""


def key_tables() -> str:
    """Return one Markdown table per section: key, type, unit, default, description."""
    schema = SweepSpec.model_json_schema()
    own: dict[str, Any] = {}
    blocks: list[str] = []
    for name, entry in schema["properties"].items():
        section = _section(entry, schema["$defs"])
        if section is None:
            own[name] = entry
            continue
        # a section's own description stands at its class; a key's beside the key
        about = section["description"].strip().split("\n")[0]
        prefix, title = (name, f"`{name}:` - {about}")
        if entry.get("type") == "array":
            prefix, title = f"{name}[]", f"`{name}:` - a list; of each: {about[0].lower()}{about[1:]}"
        blocks.append(f"### {title}\n\n{_table(section, prefix)}")
    top = _table({"properties": own, "required": schema["required"]}, "")
    return "\n\n".join([f"### At the top\n\n{top}", *blocks]) + "\n"


def update(text: str) -> str:
    """Return the text of a page with the tables between its two marks made anew."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{key_tables()}\n{END}{tail}"


def _section(entry: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the section that a key of the file opens, if it opens one."""
    for candidate in (entry, entry.get("items", {}), *entry.get("anyOf", ())):
        if "$ref" in candidate:
            found: Mapping[str, Any] = definitions[candidate["$ref"].rsplit("/", 1)[-1]]
            return found
    return None


def _table(section: Mapping[str, Any], prefix: str) -> str:
    lines = ["| key | type | unit | default | |", "|---|---|---|---|---|"]
    for name, entry in section["properties"].items():
        key = f"{prefix}.{name}" if prefix else name
        required = name in section.get("required", ())
        default = "**required**" if required else f"`{_yaml(entry.get('default'))}`"
        unit = UNITS.get(key, "")
        lines.append(f"| `{name}` | {_type(entry)} | {unit} | {default} | {entry.get('description', '')} |")
    return "\n".join(lines)


def _yaml(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _type(entry: Mapping[str, Any]) -> str:
    """Return the type and range of a value in words: ``whole number >= 1, or null``."""
    if "anyOf" in entry:
        return ", or ".join(_type(option) for option in entry["anyOf"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return ", ".join(f"`{_yaml(value)}`" for value in entry["enum"])
    kind: str = entry["type"]
    if kind == "array":
        item = _type(entry["items"] if "items" in entry else entry["prefixItems"][0]).replace("number", "numbers")
        return f"list of {len(entry['prefixItems'])} {item}" if "prefixItems" in entry else f"list of {item}"
    if kind == "object":
        values = entry.get("additionalProperties")
        return f"name: {_type(values)}" if isinstance(values, dict) and "type" in values else "mapping"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f" {sign} {entry[key]:g}" for key, sign in limits.items() if key in entry]
    return words.get(kind, kind) + ",".join(bounds)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(update(page.read_text(encoding="utf-8")), encoding="utf-8")
