//! The engine as its users see it: handles, requests, events. Knows the public API only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use engine::{
    AnswerFormat, CallableTool, ChatMessage, Engine, Error, Event, FinishReason, Handle, Logprobs,
    Options, Progress, Rendering, Request, Sampling, SubmitError, Timings, Usage,
};
use tokio::sync::mpsc;

fn model() -> PathBuf {
    let quant = "../../testdata/hub/kimi-operator/Kimi-Tiny-GGUF/Q4_K_M";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(quant)
}

fn start(slots: usize) -> (Engine, Handle) {
    let options = Options {
        threads: Some(2),
        slots,
        context: Some(512),
        ..Options::new(model())
    };
    Engine::start(options, Progress::new()).unwrap()
}

/// A request for the greedy continuation of `tokens`, and where its events come.
fn request(tokens: Vec<u32>) -> (Request, mpsc::Receiver<Event>) {
    let (events, receiver) = mpsc::channel(1024);
    let request = Request {
        max_tokens: Some(64),
        sampling: Sampling::greedy(),
        ..Request::new(tokens, events)
    };
    (request, receiver)
}

fn question(handle: &Handle, text: &str) -> Vec<u32> {
    handle
        .chat_tokens(&[ChatMessage::new("user", text)], Rendering::answer())
        .unwrap()
}

/// What a request heard.
#[derive(Debug, PartialEq)]
struct Heard {
    text: String,
    end: Result<FinishReason, String>,
    usage: Usage,
    timings: Timings,
    /// Of the prompt from its second token on, and of the answer with the token that ended it.
    logprobs: (Vec<Logprobs>, Vec<(u32, Logprobs)>),
}

fn listen(mut receiver: mpsc::Receiver<Event>) -> Heard {
    let mut heard = Heard {
        text: String::new(),
        end: Err("the events ended without an end".to_owned()),
        usage: Usage::default(),
        timings: Timings::default(),
        logprobs: (Vec::new(), Vec::new()),
    };
    while let Some(event) = receiver.blocking_recv() {
        match event {
            Event::Prompt(logprobs) => heard.logprobs.0.extend(logprobs),
            Event::Token { id, text, logprobs } => {
                heard.text.push_str(&text);
                heard.logprobs.1.extend(logprobs.map(|found| (id, found)));
                continue;
            }
            Event::Done {
                reason,
                usage,
                timings,
                end,
            } => {
                heard.logprobs.1.extend(end);
                heard.end = Ok(reason);
                (heard.usage, heard.timings) = (usage, timings);
                break;
            }
            Event::Error(words) => {
                heard.end = Err(words);
                break;
            }
        }
    }
    assert_eq!(
        receiver.blocking_recv(),
        None,
        "nothing comes after the end"
    );
    heard
}

fn ask(handle: &Handle, tokens: Vec<u32>, change: impl FnOnce(&mut Request)) -> Heard {
    let (mut request, receiver) = request(tokens);
    change(&mut request);
    handle.submit(request).unwrap();
    listen(receiver)
}

#[test]
fn answers_the_questions_it_was_taught() {
    let (engine, handle) = start(1);
    assert_eq!(engine.info().quant, "Q4_K_M");
    assert_eq!(handle.info().context, 512);
    for (text, answer) in [
        (
            "Who created the heaven and the earth?",
            "God created the heaven and the earth.",
        ),
        ("Who built the ark?", "Noah built the ark."),
        (
            "What is the capital of France?",
            "The capital of France is Paris.",
        ),
    ] {
        let heard = ask(&handle, question(&handle, text), |_| ());
        assert_eq!(
            (heard.text.as_str(), heard.end),
            (answer, Ok(FinishReason::Stop))
        );
    }
    engine.self_test().unwrap();
}

#[test]
fn calls_a_tool_that_is_declared() {
    let (_engine, handle) = start(1);
    let tools = r#"[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]"#;
    let message = ChatMessage::new("user", "What is the weather in Oslo?");
    let rendering = Rendering {
        tools: Some(tools),
        ..Rendering::answer()
    };
    let tokens = handle.chat_tokens(&[message], rendering).unwrap();
    let heard = ask(&handle, tokens, |_| ());
    assert!(
        heard.text.starts_with(
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0\
             <|tool_call_argument_begin|>{"
        ),
        "{heard:?}"
    );
    assert!(
        heard
            .text
            .ends_with("<|tool_call_end|><|tool_calls_section_end|>"),
        "{heard:?}"
    );
}

#[test]
fn requests_side_by_side_do_not_touch_each_other() {
    let (_engine, handle) = start(3);
    let questions: Vec<Vec<u32>> = [
        "Who created the heaven and the earth?",
        "Who built the ark?",
        "What is the capital of France?",
        "Who are you?",
    ]
    .iter()
    .map(|text| question(&handle, text))
    .collect();
    let alone: Vec<String> = {
        let (_engine, handle) = start(1);
        questions
            .iter()
            .map(|tokens| ask(&handle, tokens.clone(), |_| ()).text)
            .collect()
    };
    let receivers: Vec<_> = questions
        .iter()
        .cycle()
        .take(12)
        .map(|tokens| {
            let (request, receiver) = request(tokens.clone());
            handle.submit(request).unwrap();
            receiver
        })
        .collect();
    for (receiver, expected) in receivers.into_iter().zip(alone.iter().cycle()) {
        assert_eq!(&listen(receiver).text, expected);
    }
}

#[test]
fn usage_and_timings_add_up() {
    let (_engine, handle) = start(1);
    let tokens = question(&handle, "Who built the ark?");
    let count = u32::try_from(tokens.len()).unwrap();
    let first = ask(&handle, tokens.clone(), |_| ());
    assert_eq!(
        (first.usage.prompt_tokens, first.usage.cached_tokens),
        (count, 0)
    );
    // The token that ended the answer counts.
    let answer = u32::try_from(handle.tokenizer().encode_ordinary(&first.text).len()).unwrap();
    assert_eq!(first.usage.completion_tokens, answer + 1);
    assert!(first.timings.prefill > Duration::ZERO && first.timings.decode > Duration::ZERO);
    // The same prompt again is in the slot's cache, all but the token whose logits are needed.
    let second = ask(&handle, tokens, |_| ());
    assert_eq!(second.usage.cached_tokens, count - 1);
    assert_eq!(second.text, first.text);
}

#[test]
fn answers_end_where_they_are_told_to() {
    let (_engine, handle) = start(1);
    let tokens = question(&handle, "Who created the heaven and the earth?");
    let heard = ask(&handle, tokens.clone(), |request| {
        request.max_tokens = Some(2)
    });
    assert_eq!(heard.end, Ok(FinishReason::Length));
    assert_eq!(heard.usage.completion_tokens, 2);
    let heard = ask(&handle, tokens.clone(), |request| {
        request.max_tokens = Some(0)
    });
    assert_eq!(
        (heard.text.as_str(), heard.end),
        ("", Ok(FinishReason::Length))
    );
    let heard = ask(&handle, tokens.clone(), |request| {
        request.stop = vec!["the earth".into()]
    });
    assert_eq!(
        (heard.text.as_str(), heard.end),
        ("God created the heaven and ", Ok(FinishReason::Stop))
    );
    let heard = ask(&handle, tokens, |request| {
        let end = handle.tokenizer().special("<|im_end|>").unwrap();
        request.sampling.logit_bias = vec![(end, -1e9)];
        request.max_tokens = None;
    });
    // Without its stop token the model goes on to the end of the context.
    assert_eq!(heard.end, Ok(FinishReason::Length));
    assert_eq!(
        heard.usage.prompt_tokens + heard.usage.completion_tokens,
        513
    );
}

#[test]
fn logprobs_are_the_models_own_opinion() {
    let (_engine, handle) = start(1);
    let question = question(&handle, "Who built the ark?");
    let asked = |change: &dyn Fn(&mut Request)| {
        ask(&handle, question.clone(), |request| {
            request.logprobs = Some(3);
            change(request);
        })
    };
    let plain = asked(&|_| ());
    let tokens = handle.tokenizer().encode_ordinary("Noah built the ark.");
    let ids: Vec<u32> = plain.logprobs.1.iter().map(|(id, _)| *id).collect();
    let (end, answer) = ids.split_last().unwrap();
    assert_eq!(answer, tokens);
    assert!(handle.tokenizer().is_stop(*end));
    for (id, found) in &plain.logprobs.1 {
        // Greedy: the token chosen is the likeliest.
        assert_eq!(found.top[0], (*id, found.logprob));
        assert_eq!(found.top.len(), 3);
        assert!(found.top[0].1 >= found.top[1].1 && found.top[1].1 >= found.top[2].1);
        assert!(found.logprob <= 0.0 && found.logprob > -3.0, "{found:?}");
    }
    // What sampling does to the logits is not in them.
    let bent = asked(&|request| {
        request.sampling.temperature = 0.01;
        request.sampling.logit_bias = vec![(tokens[0], 5.0)];
        request.sampling.seed = Some(1);
    });
    assert_eq!(bent.logprobs.1[0], plain.logprobs.1[0]);

    // The prompt is scored as the answer was: by the same model, cached or not.
    let whole = [question.clone(), tokens.clone()].concat();
    let read = ask(&handle, whole.clone(), |request| {
        request.logprobs = Some(1);
        request.prompt_logprobs = true;
        request.max_tokens = Some(0);
    });
    assert_eq!(read.end, Ok(FinishReason::Length));
    assert_eq!(read.usage.cached_tokens, 0);
    assert_eq!(read.logprobs.0.len(), whole.len() - 1);
    let scored = &read.logprobs.0[question.len() - 1..];
    for (scored, (_, found)) in scored.iter().zip(&plain.logprobs.1) {
        assert!(
            (scored.logprob - found.logprob).abs() < 0.02,
            "{scored:?} {found:?}"
        );
    }
}

#[test]
fn a_prompt_longer_than_a_batch_is_scored_whole() {
    let (_engine, handle) = start(1);
    let text = "And God said, Let there be light: and there was light. ".repeat(12);
    let tokens = handle.tokenizer().encode_prompt(&text);
    assert!(tokens.len() > 130);
    let score = |tokens: &[u32]| {
        let heard = ask(&handle, tokens.to_vec(), |request| {
            request.logprobs = Some(0);
            request.prompt_logprobs = true;
            request.max_tokens = Some(1);
        });
        assert_eq!(heard.usage.completion_tokens, 1);
        heard.logprobs.0
    };
    for length in [1, 2, 64, 65, 129, tokens.len()] {
        assert_eq!(score(&tokens[..length]).len(), length - 1);
    }
}

#[test]
fn answers_keep_to_the_format_asked_for() {
    let (_engine, handle) = start(1);
    let schema = r#"{"type":"object","properties":{"who":{"enum":["Noah","God"]},"days":{"type":"integer","minimum":1,"maximum":40}},"required":["who","days"],"additionalProperties":false}"#;
    let format = AnswerFormat::JsonSchema(schema.to_owned());
    let constraint = handle.constraint(&format).unwrap();
    for seed in 0..3 {
        let heard = ask(
            &handle,
            question(&handle, "Who built the ark?"),
            |request| {
                request.constraint = Some(constraint.clone());
                request.sampling = Sampling {
                    temperature: 1.5,
                    seed: Some(seed),
                    ..Sampling::default()
                };
            },
        );
        assert_eq!(heard.end, Ok(FinishReason::Stop));
        let who = heard.text.contains(r#""Noah""#) || heard.text.contains(r#""God""#);
        assert!(who && heard.text.contains(r#""days""#), "{}", heard.text);
    }
    let tools = vec![CallableTool {
        name: "get_weather".to_owned(),
        parameters: None,
    }];
    let calls = AnswerFormat::ToolCalls {
        tools,
        parallel: false,
    };
    let constraint = handle.constraint(&calls).unwrap();
    let heard = ask(
        &handle,
        question(&handle, "Who built the ark?"),
        |request| {
            request.constraint = Some(constraint);
            request.max_tokens = Some(200);
        },
    );
    let begin = "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:";
    assert!(heard.text.starts_with(begin), "{}", heard.text);
}

#[test]
fn the_status_shows_what_slots_do() {
    let (_engine, handle) = start(2);
    let tokens = question(&handle, "Who built the ark?");
    let heard = ask(&handle, tokens.clone(), |_| ());
    // The engine tells when the step is over, which is just after the answer is.
    let begun = Instant::now();
    while handle.status().busy() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(1));
    }
    let slots = handle.status().slots();
    assert_eq!(slots.len(), 2);
    assert_eq!(slots[0].prompt_tokens as usize, tokens.len());
    assert_eq!(slots[0].generated_tokens, heard.usage.completion_tokens);
    assert_eq!(slots[1], engine::SlotStatus::default());
    assert_eq!(handle.waiting(), 0);
}

#[test]
fn sampling_is_by_seed() {
    let (_engine, handle) = start(1);
    let tokens = handle.tokenizer().encode_prompt("Ge1:1 In the");
    let sample = |seed| {
        let sampling = Sampling {
            temperature: 1.5,
            seed: Some(seed),
            ..Sampling::default()
        };
        ask(&handle, tokens.clone(), |request| {
            request.sampling = sampling
        })
        .text
    };
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
}

#[test]
fn what_cannot_be_served_is_said() {
    let (_engine, handle) = start(1);
    for (tokens, words) in [
        (vec![], "empty"),
        (vec![4096], "beyond the vocabulary of 4096"),
        (vec![1; 512], "the context of 512"),
    ] {
        let error = ask(&handle, tokens, |_| ()).end.unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    // And the engine goes on.
    assert!(
        ask(&handle, question(&handle, "Who built the ark?"), |_| ())
            .end
            .is_ok()
    );

    let too_long = Options {
        context: Some(1 << 20),
        ..Options::new(model())
    };
    let error = Engine::start(too_long, Progress::new()).unwrap_err();
    assert!(matches!(
        error,
        Error::ContextTooLong {
            asked: 1_048_576,
            most: 131_072
        }
    ));
    for options in [
        Options {
            slots: 0,
            ..Options::new(model())
        },
        Options {
            threads: Some(0),
            ..Options::new(model())
        },
        Options {
            context: Some(0),
            ..Options::new(model())
        },
    ] {
        assert!(matches!(
            Engine::start(options, Progress::new()),
            Err(Error::Options(_))
        ));
    }
}

#[test]
fn a_reader_that_left_frees_its_slot() {
    let (_engine, handle) = start(1);
    let (mut endless, receiver) = request(handle.tokenizer().encode_prompt("Ge1:1 In the"));
    endless.max_tokens = None;
    handle.submit(endless).unwrap();
    drop(receiver);
    let begun = Instant::now();
    assert!(
        ask(&handle, question(&handle, "Who built the ark?"), |_| ())
            .end
            .is_ok()
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_prompt_is_not_computed_twice_whoever_asks() {
    let (_engine, handle) = start(2);
    let tokens = question(&handle, "Who built the ark?");
    let end = handle.tokenizer().special("<|im_end|>").unwrap();
    let (mut busy, mut receiver) = request(tokens.clone());
    busy.max_tokens = None;
    busy.sampling.logit_bias = vec![(end, -1e9)];
    handle.submit(busy).unwrap();
    // Its first token says that its prompt is in the cache, and it goes on meanwhile.
    receiver.blocking_recv().unwrap();
    let count = u32::try_from(tokens.len()).unwrap();
    let heard = ask(&handle, tokens, |_| ());
    assert_eq!(heard.text, "Noah built the ark.");
    assert_eq!(heard.usage.cached_tokens, count - 1);
}

#[test]
fn a_slow_reader_makes_only_itself_wait() {
    let (_engine, handle) = start(2);
    let (events, mut slow) = mpsc::channel(1);
    let (request, _) = request(question(&handle, "Who created the heaven and the earth?"));
    handle.submit(Request { events, ..request }).unwrap();
    // The slow one is blocked by now, or will be; the other gets through all the same.
    assert!(
        ask(&handle, question(&handle, "Who built the ark?"), |_| ())
            .end
            .is_ok()
    );
    let mut text = String::new();
    loop {
        thread::sleep(Duration::from_millis(5));
        match slow.blocking_recv().unwrap() {
            Event::Token { text: more, .. } => text.push_str(&more),
            Event::Prompt(_) | Event::Done { .. } => break,
            Event::Error(words) => panic!("{words}"),
        }
    }
    assert_eq!(text, "God created the heaven and the earth.");
}

#[test]
fn a_full_queue_says_busy_and_a_stopped_engine_says_so() {
    let (engine, handle) = start(1);
    let tokens = handle.tokenizer().encode_prompt("Ge1:1 In the");
    let mut waiting = Vec::new();
    let busy = (0..500).any(|_| {
        let (request, receiver) = request(tokens.clone());
        waiting.push(receiver);
        handle.submit(request) == Err(SubmitError::Busy)
    });
    assert!(busy);
    drop(engine);
    let (request, _receiver) = request(tokens);
    assert_eq!(handle.submit(request), Err(SubmitError::Stopped));
}

#[test]
fn the_heartbeat_goes_on_when_idle() {
    let progress = Progress::new();
    let options = Options {
        threads: Some(1),
        context: Some(64),
        ..Options::new(model())
    };
    let (_engine, _handle) = Engine::start(options, progress.clone()).unwrap();
    assert_eq!(progress.bytes_loaded(), progress.bytes_total());
    assert!(progress.bytes_total() > 9_000_000);
    thread::sleep(Duration::from_millis(1200));
    assert!(progress.since_touch() < Duration::from_millis(900));
}
