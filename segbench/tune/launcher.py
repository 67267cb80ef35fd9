"""Ray's own reading of a cluster file, as `ray up` does it: its schema, its defaults."""

import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import ray.autoscaler
from jsonschema import Draft7Validator, ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from segbench.spec.source import Problem, unknown

PROVIDERS = ("aws", "gcp", "azure", "local", "vsphere", "external")


def complete_config(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return a cluster file with Ray's defaults filled in, and what Ray would refuse; nothing is started or asked."""
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    problems = [_problem(error) for error in Draft7Validator(schema).iter_errors(dict(tree))]
    provider = tree.get("provider")
    if isinstance(provider, Mapping) and provider.get("type") not in PROVIDERS:
        problems.append(Problem(("provider", "type"), unknown(str(provider.get("type")), PROVIDERS, "provider")))
    if problems:
        return dict(tree), problems
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # advice about Docker, whatever the file says
            config: dict[str, Any] = prepare_config(deepcopy(dict(tree)))
            validate_config(config)
    except ValidationError as error:
        return dict(tree), [_problem(error)]
    except Exception as error:
        return dict(tree), [Problem((), f"Ray refuses it: {str(error).splitlines()[0] if str(error) else error!r}")]
    return config, []


def _problem(error: ValidationError) -> Problem:
    path = tuple(error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = tuple(error.schema.get("properties", {}))
        key = next(str(key) for key in error.instance if key not in known)
        return Problem((*path, key), unknown(key, known, "key"))
    if error.validator == "required":
        key = next(str(key) for key in error.validator_value if key not in error.instance)
        return Problem(path, f"{key} is missing; add {key}: ...")
    return Problem(path, error.message)
