"""Which options ComfyUI's networks read, by its sources, beside what nodes/host/options.py knows of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .comfy_server import PACK

# what a worker runs of the host in a forward, in its folder "comfy"
SOURCES = (
    "ldm", "cldm", "t2i_adapter", "model_base.py", "controlnet.py", "samplers.py", "ops.py", "model_prefetch.py",
)  # fmt: skip


def known() -> dict[str, set[str]]:
    """The sets of nodes/host/options.py, which needs ComfyUI to be imported."""
    tree = ast.parse((PACK / "nodes" / "host" / "options.py").read_text())
    sets = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Set)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in sets}


def are_options(node: ast.AST) -> bool:
    """Whether `node` stands for a model's transformer_options."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return "transformer_options" in name
        case ast.Subscript(slice=ast.Constant(value=name)) | ast.Call(args=[ast.Constant(value=name), *_]):
            return name == "transformer_options"
    return False


def keys(tree: ast.AST) -> Iterator[str]:
    """Every key by which `tree` reads the options."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=of, slice=ast.Constant(value=str(key)), ctx=ast.Load()) if are_options(of):
                yield key
            case ast.Call(func=ast.Attribute(value=of, attr="get" | "pop"), args=[ast.Constant(value=str(key)), *_]):
                if are_options(of):
                    yield key
            case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()], comparators=[of]):
                if are_options(of):
                    yield key


def read_by(root: Path) -> set[str]:
    files = [file for name in SOURCES for file in sorted((root / "comfy" / name).rglob("*.py"))]
    files += [path for name in SOURCES if (path := root / "comfy" / name).is_file()]
    return {key for file in files for key in keys(ast.parse(file.read_text(encoding="utf-8")))}


def test_every_option_that_comfyui_reads_is_known(comfyui_root):
    read = read_by(comfyui_root)
    assert len(read) > 15 and {"sample_sigmas", "patches", "rope_options"} <= read
    assert sorted(read - set().union(*known().values())) == []


def test_an_option_is_of_one_kind():
    names = [name for of in known().values() for name in of]
    assert known().keys() == {"READ", "CODE", "STATE", "MADE_ANEW"} and len(names) == len(set(names))


@pytest.mark.parametrize(
    "code",
    [
        "a = transformer_options['new']",
        "a = transformer_options.get('new', 1)",
        "a = 'new' in extra_transformer_options",
        "a = model_options['transformer_options']['new']",
        "a = kwargs.get('transformer_options', {}).get('new')",
        "a = self.transformer_options.pop('new', None)",
    ],
)
def test_a_new_one_would_be_seen(code):
    assert list(keys(ast.parse(code))) == ["new"]
    assert list(keys(ast.parse("transformer_options['own'] = 1"))) == []
