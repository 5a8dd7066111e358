#!/usr/bin/env python3
"""Renders cases.json with the chat templates of Kimi by Jinja2, set up as transformers sets it up.

    pip install jinja2 tinker-cookbook
    make.py DIR

DIR holds templates as Moonshot published them, each as NAME.jinja; README.md says where they were found. Writes
expected.json, in which the texts of templates that DIR does not hold stay as they are. tinker-cookbook carries
Moonshot's tool_declaration_ts.py, which K2.5's tokenizer calls before it renders.
"""
import functools
import importlib.util
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATES = [
    "kimi-k2-instruct-0711",
    "kimi-k2-instruct-0715",
    "kimi-k2-instruct-newline",
    "kimi-k2-instruct",
    "kimi-k2-thinking",
    "kimi-k2.5",
]


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


@functools.cache
def encoder():
    # By its file: importing the package would want torch.
    for path in sys.path:
        file = pathlib.Path(path) / "tinker_cookbook/renderers/kimi_k2_5_tool_declaration_ts.py"
        if file.exists():
            spec = importlib.util.spec_from_file_location("tool_declaration_ts", file)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            return module.encode_tools_to_typescript_style
    sys.exit("pip install --no-deps tinker-cookbook")


def deep_sort(x):
    if isinstance(x, dict):
        return {k: deep_sort(v) for k, v in sorted(x.items())}
    return [deep_sort(i) for i in x] if isinstance(x, list) else x


def render(template, case):
    context = {k: v for k, v in case.items() if k != "name"}
    context.setdefault("tools", None)
    context.setdefault("add_generation_prompt", True)
    if "tools_ts_str" in template.source and context["tools"]:
        context["tools"] = deep_sort(context["tools"])
        encode = encoder()
        try:
            context["tools_ts_str"] = encode(context["tools"])
        except Exception:
            pass
    return template.render(**context)


def main():
    here, there = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[1])
    cases = json.loads((here / "cases.json").read_text())
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    expected = json.loads((here / "expected.json").read_text())
    for name in TEMPLATES:
        file = there / f"{name}.jinja"
        if not file.exists():
            continue
        source = file.read_text()
        template = environment.from_string(source)
        template.source = source
        expected[name] = {}
        for case in cases:
            try:
                expected[name][case["name"]] = render(template, case)
            except TypeError as error:  # the first template cannot take a content of null
                print(f"{name}: {case['name']}: {error}", file=sys.stderr)
    text = json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True)
    (here / "expected.json").write_text(text + "\n")


main()
