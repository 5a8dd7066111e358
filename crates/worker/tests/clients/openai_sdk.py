"""What the official OpenAI SDK makes of `kimi serve`: every kind of answer its users ask for, and the
class of every error. Usage: openai_sdk.py BASE_URL; the server has the small model of testdata/ and
the key 'sesame'."""

import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=sys.argv[1], api_key="sesame", max_retries=0, timeout=120)
ARK = [{"role": "user", "content": "Who built the ark?"}]
ANSWER = "Noah built the ark."
greedy = {"model": "kimi-tiny", "temperature": 0}


def raises(kind, param, call, **arguments):
    try:
        call(**arguments)
    except openai.OpenAIError as error:
        assert type(error) is kind, (kind, error)
        assert param is None or error.param == param, (param, error)
        return error
    raise AssertionError(f"{kind} expected: {arguments}")


# Models.
assert [model.id for model in client.models.list()] == ["kimi-tiny"]
assert client.models.retrieve("kimi-tiny").id == "kimi-tiny"

# Chat, whole and streamed, say the same.
whole = client.chat.completions.create(messages=ARK, **greedy)
assert whole.choices[0].message.content == ANSWER, whole
assert whole.choices[0].finish_reason == "stop"
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
chunks = list(
    client.chat.completions.create(messages=ARK, stream=True, stream_options={"include_usage": True}, **greedy)
)
assert chunks[0].choices[0].delta.role == "assistant"
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
assert chunks[-2].choices[0].finish_reason == "stop"
assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0
with client.chat.completions.stream(messages=ARK, **greedy) as stream:
    assert stream.get_final_completion().choices[0].message.content == ANSWER

# Limits of an answer.
short = client.chat.completions.create(messages=ARK, max_completion_tokens=2, **greedy)
assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 2)
stopped = client.chat.completions.create(messages=ARK, stop=["the ark"], **greedy)
assert stopped.choices[0].message.content == "Noah built ", stopped
several = client.chat.completions.create(model="kimi-tiny", messages=ARK, n=3, seed=5, temperature=2, max_tokens=8)
assert [choice.index for choice in several.choices] == [0, 1, 2]
again = client.chat.completions.create(model="kimi-tiny", messages=ARK, n=3, seed=5, temperature=2, max_tokens=8)
assert [c.message.content for c in several.choices] == [c.message.content for c in again.choices]

# Logprobs.
rated = client.chat.completions.create(messages=ARK, logprobs=True, top_logprobs=3, **greedy)
tokens = rated.choices[0].logprobs.content
assert "".join(token.token for token in tokens) == ANSWER
assert all(token.logprob <= 0 and token.top_logprobs[0].token == token.token for token in tokens)
assert all(len(token.top_logprobs) == 3 and bytes(token.bytes).decode() == token.token for token in tokens)
streamed = client.chat.completions.create(messages=ARK, logprobs=True, top_logprobs=3, stream=True, **greedy)
entries = [e for c in streamed if c.choices and c.choices[0].logprobs for e in c.choices[0].logprobs.content]
assert [entry.token for entry in entries] == [token.token for token in tokens]


# JSON by a schema, also as the SDK makes one of a class.
class Builder(BaseModel):
    who: Literal["Noah", "God"]
    days: Literal[7, 40]


parsed = client.chat.completions.parse(messages=ARK, response_format=Builder, **greedy)
assert isinstance(parsed.choices[0].message.parsed, Builder), parsed
closed = {"type": "object", "properties": {"who": {"enum": ["Noah", "God"]}}, "required": ["who"]}
closed["additionalProperties"] = False
form = {"type": "json_schema", "json_schema": {"name": "builder", "strict": True, "schema": closed}}
held = client.chat.completions.create(messages=ARK, response_format=form, **greedy)
assert json.loads(held.choices[0].message.content)["who"] in ("Noah", "God"), held

# A forced call, whole and streamed, and its result sent back.
cities = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
cities["additionalProperties"] = False
weather = {
    "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": cities}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}
asked = [{"role": "user", "content": "What is the weather in Oslo?"}]
called = client.chat.completions.create(messages=asked, **weather, **greedy).choices[0]
assert called.finish_reason == "tool_calls", called
[call] = called.message.tool_calls
assert call.function.name == "get_weather" and json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
deltas = [
    delta
    for chunk in client.chat.completions.create(messages=asked, stream=True, **weather, **greedy)
    for choice in chunk.choices
    for delta in choice.delta.tool_calls or []
]
assert [delta.function.name for delta in deltas if delta.function.name] == ["get_weather"]
assert "".join(delta.function.arguments or "" for delta in deltas) == call.function.arguments
result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
told = client.chat.completions.create(messages=[*asked, called.message.model_dump(), result], max_tokens=8, **greedy)
assert told.usage.prompt_tokens > 0, told

# Text completions: echo, logprobs, token ids, several prompts.
text = client.completions.create(prompt="Ge1:1 In the beginning", max_tokens=4, logprobs=2, echo=True, **greedy)
choice = text.choices[0]
assert choice.text.startswith("Ge1:1 In the beginning ") and choice.finish_reason == "length", text
assert choice.logprobs.token_logprobs[0] is None and len(choice.logprobs.tokens) == len(choice.logprobs.text_offset)
for offset, token in zip(choice.logprobs.text_offset, choice.logprobs.tokens):
    assert choice.text[offset:].startswith(token), (offset, token)
batch = client.completions.create(prompt=["Ge1:1 In the", [1, 2, 3]], max_tokens=2, **greedy)
assert [choice.index for choice in batch.choices] == [0, 1]
assert sum(1 for _ in client.completions.create(prompt="In the", max_tokens=3, stream=True, **greedy)) >= 2

# Errors have the SDK's classes and name the field.
chat, complete = client.chat.completions.create, client.completions.create
raises(openai.BadRequestError, "temperature", chat, model="kimi-tiny", messages=ARK, temperature=3)
raises(openai.BadRequestError, "messages[0].role", chat, messages=[{"role": "wizard", "content": "x"}], **greedy)
raises(openai.BadRequestError, "top_logprobs", chat, messages=ARK, top_logprobs=3, **greedy)
raises(openai.BadRequestError, "response_format", chat, messages=ARK, **greedy,
       response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "odd"}}})
long = raises(openai.BadRequestError, None, complete, prompt="word " * 4000, **greedy)
assert long.code == "context_length_exceeded", long
raises(openai.NotFoundError, "model", chat, model="gpt-4", messages=ARK)
raises(openai.AuthenticationError, None, client.with_options(api_key="wrong").chat.completions.create,
       messages=ARK, **greedy)
print("ok")
