"""What AWS would refuse, or open to the world, or bill for nothing: known before the first call to it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from segbench.cluster.file import ClusterFile
from segbench.cluster.instances import TOO_OLD, family_sizes, find_instance, is_arm
from segbench.core.errors import UserError
from segbench.spec.source import KeyPath, Problem, listed, nearest, unknown

_RAY_OWN = ("SubnetIds", "KeyName")
"""Keys of a node_config that Ray translates before it calls AWS."""


def check_aws(file: ClusterFile) -> Iterator[Problem]:
    """Yield what is wrong with a `ray up` file for AWS.

    Raises:
        UserError: botocore, which knows AWS's interface, is not installed.
    """
    session = _botocore_session()
    shape = session.get_service_model("ec2").operation_model("RunInstances").input_shape
    provider = file.config["provider"]
    regions = session.get_available_regions("ec2")
    region = provider.get("region")
    if region not in regions:
        yield Problem(("provider", "region"), unknown(str(region), regions, "region"))
    else:
        for zone in filter(None, (text.strip() for text in str(provider.get("availability_zone", "")).split(","))):
            if not re.fullmatch(rf"{region}[a-z]", zone):
                yield Problem(("provider", "availability_zone"), f"'{zone}' is no zone of {region}, such as {region}a")
    yield from _open_ports(provider)
    if provider.get("cache_stopped_nodes", True):
        yield Problem(
            ("provider",),
            "cache_stopped_nodes: false is missing: workers would be stopped, and their disks go on costing",
        )
    for name, given in file.config["available_node_types"].items():
        path: KeyPath = ("available_node_types", name)
        is_head = name == file.config["head_node_type"]
        node_config: Mapping[str, Any] = given["node_config"]
        yield from _parameters(node_config, shape, (*path, "node_config"))
        yield from _machine(given, path, shape)
        yield from _safety(node_config, (*path, "node_config"))
        if is_head:
            yield from _head(given, path)


def _botocore_session() -> Any:
    try:
        import botocore.session
    except ImportError as error:
        raise UserError(
            "checking a cluster on AWS, and `ray up` there, need boto3, which is not installed; "
            "pip install 'segbench[aws]'"
        ) from error
    return botocore.session.get_session()


def _parameters(node_config: Mapping[str, Any], shape: Any, path: KeyPath) -> Iterator[Problem]:
    """Yield what RunInstances does not know or take."""
    from botocore.validate import ParamValidator

    given = {key: value for key, value in node_config.items() if key not in _RAY_OWN}
    report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **given}, shape)
    for kind, where, details in report._errors:
        here = (*path, *_path(where))
        if kind == "unknown field":
            key = details["unknown_param"]
            yield Problem((*here, key), unknown(key, details["valid_names"], "key"))
        elif kind == "missing required field":
            yield Problem(here, f"{details['required_name']} is missing")
        elif kind == "invalid type":
            types = listed(re.sub(r"<class .(.*).>", r"\1", str(name)) for name in details["valid_types"])
            yield Problem(here, f"must be of type {types}, got {details['param']!r}")
        else:
            yield Problem(here, f"{kind}: {details}")
    yield from _enums(given, shape, path)


def _enums(value: Any, shape: Any, path: KeyPath) -> Iterator[Problem]:
    """Yield values that are none of those that AWS lists; instance types have a check of their own."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for key, item in value.items():
            if key in shape.members and key != "InstanceType":
                yield from _enums(item, shape.members[key], (*path, key))
    elif shape.type_name == "list" and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _enums(item, shape.member, (*path, index))
    elif shape.type_name == "string" and getattr(shape, "enum", None) and value not in shape.enum:
        yield Problem(path, unknown(str(value), shape.enum, "value"))


def _path(where: str) -> KeyPath:
    parts = re.findall(r"[^.\[\]]+", where)
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _machine(given: Mapping[str, Any], path: KeyPath, shape: Any) -> Iterator[Problem]:
    """Yield what is wrong with the instance type, and whether the resources are what it has."""
    name = given["node_config"].get("InstanceType")
    here = (*path, "node_config", "InstanceType")
    if name is None:
        yield Problem((*path, "node_config"), "InstanceType is missing")
        return
    known = find_instance(name)
    if known is None and name not in shape.members["InstanceType"].enum:
        near = family_sizes(name) or shape.members["InstanceType"].enum
        guess = nearest(name, near)
        yield Problem(here, f"unknown instance type '{name}'" + (f"; did you mean '{guess}'?" if guess else ""))
        return
    if is_arm(name):
        yield Problem(here, f"'{name}' has ARM cores; the lock and the image are for x86_64")
    if known and known.model in TOO_OLD:
        yield Problem(
            here, f"'{name}' has a {known.model}, too old for CUDA 13 of the locked torch; take g4dn or newer"
        )
    have = {"GPU": known.gpu if known else 0, "CPU": known.cpu if known else None}
    for key, count in have.items():
        told = given["resources"].get(key)
        if told is not None and count is not None and told > count:
            yield Problem((*path, "resources", key), f"says {told}, but {name} has {count}; trials would wait for ever")


def _head(given: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
    for key in ("CPU", "GPU"):
        if given["resources"].get(key) != 0:
            yield Problem((*path, "resources"), f"must have {key}: 0: the head runs no trials")
    if given["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot":
        yield Problem(
            (*path, "node_config", "InstanceMarketOptions"),
            "the head must not be a spot instance: the sweep ends with it",
        )
    if find_instance(given["node_config"].get("InstanceType", "")):
        yield Problem(
            (*path, "node_config", "InstanceType"), "is a GPU machine, and the head runs no trials; take m7i.xlarge"
        )
    if "IamInstanceProfile" not in given["node_config"]:
        yield Problem(
            (*path, "node_config"),
            "IamInstanceProfile is missing: Ray would make a role with all rights over EC2 and S3; see aws-account.sh",
        )


def _safety(node_config: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
    image = node_config.get("ImageId")
    if image is None:
        yield Problem(path, "ImageId is missing: Ray's own is Ubuntu 18.04 with CUDA 11.2")
    elif not re.fullmatch(r"ami-([0-9a-f]{8}|[0-9a-f]{17})|resolve:ssm:/\S+", image):
        yield Problem((*path, "ImageId"), f"'{image}' is no image: ami- and 17 hexadecimal digits, or resolve:ssm:/...")
    interfaces = node_config.get("NetworkInterfaces", [])
    groups = node_config.get("SecurityGroupIds") or [g for one in interfaces for g in one.get("Groups", [])]
    if not groups:
        yield Problem(
            path,
            "SecurityGroupIds is missing: Ray would make a group with port 22 open to the world; "
            "see cluster/aws-account.sh",
        )
    for index, group in enumerate(groups):
        if not re.fullmatch(r"sg-([0-9a-f]{8}|[0-9a-f]{17})", str(group)):
            yield Problem(
                (*path, "SecurityGroupIds", index), f"'{group}' is no security group: sg- and 17 hexadecimal digits"
            )


def _open_ports(provider: Mapping[str, Any]) -> Iterator[Problem]:
    for index, rule in enumerate(provider.get("security_group", {}).get("IpPermissions", [])):
        ranges = [*rule.get("IpRanges", []), *rule.get("Ipv6Ranges", [])]
        for one in ranges:
            address = one.get("CidrIp") or one.get("CidrIpv6")
            if address in ("0.0.0.0/0", "::/0"):
                yield Problem(
                    ("provider", "security_group", "IpPermissions", index),
                    f"opens port {rule.get('FromPort', 'all')} to the world ({address}); write your own address /32",
                )
