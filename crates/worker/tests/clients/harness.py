"""lm-evaluation-harness against `kimi serve`: a multiple-choice task of MMLU's form over the completions
route, by likelihoods of token ids, and questions over the chat route, by exact answers. Usage:
harness.py BASE_URL SCRATCH; the server has the small model of testdata/ and the key in OPENAI_API_KEY.

The questions are on the text the model was trained on, so that a sound server gets them right."""

import json
import os
import pathlib
import sys

base, scratch = sys.argv[1], pathlib.Path(sys.argv[2])
os.environ |= {"HF_HOME": str(scratch / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import lm_eval
from lm_eval.tasks import TaskManager

CHOICES = [
    ("And it came to", [" rain", " an", " pass", " see"], 2),
    ("saith the LORD of", [" hosts", " fishes", " waters", " bread"], 0),
    ("Verily, verily, I say unto", [" stones", " morning", " water", " you"], 3),
    ("the word of the", [" sea", " LORD", " ark", " goats"], 1),
    ("for ever and", [" ever", " spear", " ships", " built"], 0),
    ("the God of Abraham, and the God of", [" locusts", " sandals", " Israel", " silver"], 2),
]
QUESTIONS = [
    ("Who built the ark?", "Noah built the ark."),
    ("Who created the heaven and the earth?", "God created the heaven and the earth."),
    ("What is the capital of France?", "The capital of France is Paris."),
]

tasks = scratch / "tasks"
tasks.mkdir()


def task(name, documents, settings):
    data = tasks / f"{name}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    # YAML that is JSON.
    (tasks / f"{name}.yaml").write_text(json.dumps({"task": name, **source, **settings}))


task(
    "genesis_choices",
    [{"question": q, "choices": c, "answer": a} for q, c, a in CHOICES],
    {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
)
task(
    "genesis_questions",
    [{"question": q, "answer": a} for q, a in QUESTIONS],
    {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 64, "temperature": 0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
)
manager = TaskManager(include_path=str(tasks), include_defaults=False)


def evaluate(model, route, name, arguments, **settings):
    arguments = {"model": "kimi-tiny", "base_url": base + route, "max_retries": 1, **arguments}
    found = lm_eval.simple_evaluate(
        model=model, model_args=arguments, tasks=[name], task_manager=manager, bootstrap_iters=0, **settings
    )
    return found["results"][name]


key = os.environ["OPENAI_API_KEY"]
likelihoods = {"tokenizer_backend": "remote", "auth_token": key, "max_length": 1024}
for arguments in ({**likelihoods, "batch_size": 8}, {**likelihoods, "num_concurrent": 4}):
    scores = evaluate("local-completions", "/v1/completions", "genesis_choices", arguments)
    assert scores["acc,none"] == 1, scores
scores = evaluate(
    "local-chat-completions", "/v1/chat/completions", "genesis_questions", {"num_concurrent": 2},
    apply_chat_template=True,
)
assert scores["exact_match,none"] == 1, scores
print("ok")
