"""The Terraform modules keep to what tflint's recommended rules ask of any module (its binary is on no package index).

The rules: https://github.com/terraform-linters/tflint-ruleset-terraform, all of the preset but those about modules that
call others, which ours do not. They read files as `terraform fmt` leaves them, which another test sees to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULES = sorted({file.parent for file in Path("terraform").rglob("*.tf")})
BLOCK = re.compile(r'^(\w+)((?: "[^"]+")*) \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
LOCAL = re.compile(r"^  (\w+) += ", re.MULTILINE)
Blocks = list[tuple[str, list[str], str]]


def test_there_are_modules_to_look_at() -> None:
    assert {module.name for module in MODULES} == {"allocator", "aws", "local"}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_offends_no_rule(module: Path) -> None:
    assert list_offences(read(module)) == []


GOOD = """\
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

variable "region" {
  description = "Where."
  type        = string
}

locals {
  name = "lab"
}

data "aws_vpc" "default" {
  id = "${local.name}-${var.region}"
}

output "vpc" {
  description = "The network."
  value       = data.aws_vpc.default.id
}
"""


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("  type        = string\n", "", "variable region has no type"),
        ('  description = "Where."\n', "", "variable region has no description"),
        ('  description = "The network."\n', "", "output vpc has no description"),
        ("${var.region}", "here", "variable region is not used"),
        ("${local.name}", "here", "local name is not used"),
        ("data.aws_vpc.default.id", '"none"', "data aws_vpc.default is not used"),
        ('  required_version = ">= 1.9"\n', "", "required_version is missing"),
        ('      version = "5.100.0"\n', "", "provider aws has no version"),
        ('data "aws_vpc" "default"', 'data "google_vpc" "default"', "provider google is not required"),
        ('data "aws_vpc" "default"', 'data "random_vpc" "default"', "provider aws is not used"),
        ('"region"', '"theRegion"', "theRegion is not in snake_case"),
        ('"${local.name}-${var.region}"', '"${var.region}"', "interpolation of nothing else: ${var.region}"),
        ('"The network."', '"The network." // old', "comments begin with #"),
        ("data.aws_vpc.default.id", "data.aws_vpc.default.0.id", "an index stands in brackets"),
        ("data.aws_vpc.default.id", "data.aws_vpc.default == []", "a list compared with [] is never equal"),
    ],
)
def test_an_offence_is_told(was: str, becomes: str, says: str) -> None:
    assert list_offences(GOOD) == []
    assert was in GOOD
    assert any(says in offence for offence in list_offences(GOOD.replace(was, becomes)))


def read(module: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(module.glob("*.tf")))


def list_offences(text: str) -> list[str]:
    """Every offence in a module's text, as a sentence."""
    blocks: Blocks = [(kind, re.findall(r'"([^"]+)"', names), body) for kind, names, body in BLOCK.findall(text)]
    rules = (undocumented, unused, unpinned, misnamed, old_syntax)
    return [offence for rule in rules for offence in rule(text, blocks)]


def undocumented(text: str, blocks: Blocks) -> Iterator[str]:
    wanted = {"variable": ("description", "type"), "output": ("description",)}
    for kind, names, body in blocks:
        for key in wanted.get(kind, ()):
            if not re.search(rf"^  {key} +=", body, re.MULTILINE):
                yield f"{kind} {names[0]} has no {key}"


def unused(text: str, blocks: Blocks) -> Iterator[str]:
    # A variable's own validation does not use it.
    elsewhere = "\n".join(body for kind, _, body in blocks if kind != "variable")
    for kind, names, body in blocks:
        if kind == "variable" and not re.search(rf"\bvar\.{names[0]}\b", elsewhere):
            yield f"variable {names[0]} is not used"
        if kind == "data" and not re.search(rf"\bdata\.{'.'.join(names)}\b", text):
            yield f"data {'.'.join(names)} is not used"
        if kind == "locals":
            for name in LOCAL.findall(body):
                if not re.search(rf"\blocal\.{name}\b", text):
                    yield f"local {name} is not used"


def unpinned(text: str, blocks: Blocks) -> Iterator[str]:
    own = "\n".join(body for kind, _, body in blocks if kind == "terraform")
    if not re.search(r"^  required_version = ", own, re.MULTILINE):
        yield "required_version is missing"
    required = dict(re.findall(r"^    (\w+) = \{\n(.*?)^    \}", own, re.MULTILINE | re.DOTALL))
    for name, body in required.items():
        if not re.search(r"^      version +=", body, re.MULTILINE):
            yield f"provider {name} has no version"
    # Terraform's own needs none.
    used = {names[0].split("_")[0] for kind, names, _ in blocks if kind in {"resource", "data"}} - {"terraform"}
    yield from (f"provider {name} is not required" for name in sorted(used - required.keys()))
    yield from (f"provider {name} is not used" for name in sorted(required.keys() - used))


def misnamed(text: str, blocks: Blocks) -> Iterator[str]:
    names = [each[-1] for kind, each, _ in blocks if each and kind != "provider"]
    names += [name for kind, _, body in blocks if kind == "locals" for name in LOCAL.findall(body)]
    yield from (f"{name} is not in snake_case" for name in names if not re.fullmatch(r"[a-z][a-z0-9_]*", name))


def old_syntax(text: str, blocks: Blocks) -> Iterator[str]:
    for found in re.findall(r'= "(\$\{[^{}"]+\})"$', text, re.MULTILINE):
        yield f"interpolation of nothing else: {found}"
    for line in text.splitlines():
        code = re.sub(r'"[^"]*"', '""', line).partition("#")[0]
        if "//" in code or "/*" in code:
            yield f"comments begin with #: {line.strip()}"
        if re.search(r"\w\.\d+\b", code) and not re.search(r"\d\.\d", code):
            yield f"an index stands in brackets: {line.strip()}"
        if re.search(r"[!=]= \[\]", code):
            yield f"a list compared with [] is never equal: {line.strip()}"
