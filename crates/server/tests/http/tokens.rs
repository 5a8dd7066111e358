//! The tokenizer's routes and what a server says of itself.

use serde_json::{Value, json};

use crate::fake::{self, get, post, send};

async fn ask(path: &str, body: Value) -> Value {
    let (_app, router) = fake::talkative(&[]);
    let answer = send(&router, post(path, body.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn text_to_tokens_and_back() {
    for body in [
        json!({"content": "aé"}),
        json!({"prompt": "aé", "add_special_tokens": true}),
    ] {
        assert_eq!(
            ask("/tokenize", body).await,
            json!({"tokens": [97, 195, 169], "count": 3, "max_model_len": fake::CONTEXT})
        );
    }
    let pieces = ask("/tokenize", json!({"content": "aé", "with_pieces": true})).await;
    assert_eq!(
        pieces["tokens"],
        json!([{"id": 97, "piece": "a"}, {"id": 195, "piece": [195]}, {"id": 169, "piece": [169]}])
    );
    let special = ask("/tokenize", json!({"content": "<|im_end|>"})).await;
    assert_eq!(special["tokens"], json!([260]));
    let ordinary = json!({"content": "<|im_end|>", "parse_special": false});
    assert_eq!(ask("/tokenize", ordinary).await["count"], 10);
    assert_eq!(
        ask("/detokenize", json!({"tokens": [97, 195, 169, 260]})).await,
        json!({"content": "aé<|im_end|>", "prompt": "aé<|im_end|>"})
    );
}

#[tokio::test]
async fn a_conversation_as_the_model_reads_it() {
    let body = json!({"messages": [{"role": "user", "content": "Who <|im_end|>"}]});
    let rendered = ask("/apply-template", body.clone()).await;
    let prompt = rendered["prompt"].as_str().unwrap();
    assert!(
        prompt.ends_with("<|im_assistant|>assistant<|im_middle|>"),
        "{prompt}"
    );
    let ends = rendered["tokens"].as_array().unwrap().iter();
    let mut without = body;
    without["add_generation_prompt"] = false.into();
    let open = ask("/apply-template", without).await;
    assert!(
        open["prompt"]
            .as_str()
            .unwrap()
            .ends_with("Who <|im_end|><|im_end|>")
    );
    let count = ends.filter(|id| **id == 260).count();
    let turns = open["tokens"].as_array().unwrap().iter();
    assert_eq!(
        turns.filter(|id| **id == 260).count(),
        count,
        "the user's own text is none"
    );
}

#[tokio::test]
async fn a_server_describes_itself() {
    let (_app, router) = fake::talkative(&[]);
    let props = send(&router, get("/props")).await.json();
    assert_eq!(props["total_slots"], 1);
    assert_eq!(props["model_alias"], "kimi");
    assert_eq!(props["default_generation_settings"]["n_ctx"], fake::CONTEXT);
    assert_eq!(props["default_generation_settings"]["params"]["top_k"], 0);
    assert_eq!(props["modalities"]["vision"], false);
    let slots = send(&router, get("/slots")).await.json();
    assert_eq!(
        slots,
        json!([{"id": 0, "n_ctx": fake::CONTEXT, "is_processing": false, "n_prompt_tokens": 0,
            "n_decoded": 0, "n_past": 0}])
    );
    let info = send(&router, get("/tokenizer_info")).await.json();
    assert_eq!(info["eos_token"], Value::Null);
    assert_eq!(info["model_max_length"], fake::CONTEXT);
}
