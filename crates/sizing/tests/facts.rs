//! Facts: from the headers of a 61-layer model whose tensors mix fifteen types, through a report that a termination
//! message can hold, and back; and what a damaged or hostile report is refused with.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use gguf::{Dtype, Header, Metadata, TensorInfo, Value};
use sizing::facts::{Class, FactsError, MAX_REPORT_BYTES};
use sizing::{Facts, Hardware, Identity, Input, InspectError, InspectReport, Source, plan};

const MIX: [Dtype; 15] = [
    Dtype::F32,
    Dtype::F16,
    Dtype::Q8_0,
    Dtype::Q2_K,
    Dtype::Q3_K,
    Dtype::Q4_K,
    Dtype::Q5_K,
    Dtype::Q6_K,
    Dtype::IQ1_S,
    Dtype::IQ1_M,
    Dtype::IQ2_XXS,
    Dtype::IQ3_XXS,
    Dtype::IQ3_S,
    Dtype::IQ4_XS,
    Dtype::Q4_0,
];

fn metadata(architecture: &str) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::String(architecture.into()));
    metadata.set("general.name", Value::String("Kimi K2 Instruct".into()));
    for (key, value) in [
        ("block_count", 61),
        ("leading_dense_block_count", 1),
        ("context_length", 131_072),
        ("embedding_length", 7168),
        ("attention.head_count", 64),
        ("attention.kv_lora_rank", 512),
        ("rope.dimension_count", 64),
        ("expert_count", 384),
        ("expert_used_count", 8),
        ("expert_shared_count", 1),
    ] {
        metadata.set(&format!("deepseek2.{key}"), Value::U32(value));
    }
    metadata
}

/// The tensors of one K2 layer; layer 0 is dense.
fn layer(no: u64) -> Vec<(String, Vec<u64>)> {
    let mut parts: Vec<(&str, Vec<u64>)> = vec![
        ("attn_norm.weight", vec![7168]),
        ("attn_q_a.weight", vec![7168, 1536]),
        ("attn_q_a_norm.weight", vec![1536]),
        ("attn_q_b.weight", vec![1536, 12288]),
        ("attn_kv_a_mqa.weight", vec![7168, 576]),
        ("attn_kv_a_norm.weight", vec![512]),
        ("attn_k_b.weight", vec![512, 128, 64]),
        ("attn_v_b.weight", vec![512, 128, 64]),
        ("attn_output.weight", vec![8192, 7168]),
        ("ffn_norm.weight", vec![7168]),
    ];
    if no == 0 {
        parts.extend([
            ("ffn_gate.weight", vec![7168, 18432]),
            ("ffn_up.weight", vec![7168, 18432]),
            ("ffn_down.weight", vec![18432, 7168]),
        ]);
    } else {
        parts.extend([
            ("ffn_gate_inp.weight", vec![7168, 384]),
            ("exp_probs_b.bias", vec![384]),
            ("ffn_gate_exps.weight", vec![7168, 2048, 384]),
            ("ffn_up_exps.weight", vec![7168, 2048, 384]),
            ("ffn_down_exps.weight", vec![2048, 7168, 384]),
            ("ffn_gate_shexp.weight", vec![7168, 2048]),
            ("ffn_up_shexp.weight", vec![7168, 2048]),
            ("ffn_down_shexp.weight", vec![2048, 7168]),
        ]);
    }
    parts
        .into_iter()
        .map(|(part, dims)| (format!("blk.{no}.{part}"), dims))
        .collect()
}

/// K2's 1,096-odd tensors over three shards; `mix` picks the type of the n-th matrix.
fn headers(mix: impl Fn(usize) -> Dtype) -> Vec<Header> {
    let mut all = vec![
        ("token_embd.weight".to_owned(), vec![7168, 163_840]),
        ("output.weight".to_owned(), vec![7168, 163_840]),
        ("output_norm.weight".to_owned(), vec![7168]),
    ];
    all.extend((0..61).flat_map(layer));
    let tensors: Vec<TensorInfo> = all
        .into_iter()
        .enumerate()
        .map(|(no, (name, dims))| {
            let small = dims.len() == 1 || name.contains("gate_inp");
            let dtype = if small { Dtype::F32 } else { mix(no) };
            let bytes = dtype.tensor_bytes(&dims).unwrap();
            TensorInfo {
                name,
                dims,
                dtype,
                offset: 0,
                bytes,
            }
        })
        .collect();
    tensors
        .chunks(400)
        .enumerate()
        .map(|(no, tensors)| Header {
            version: 3,
            metadata: if no == 0 {
                metadata("deepseek2")
            } else {
                Metadata::new()
            },
            tensors: tensors.to_vec(),
            data_offset: 0,
            alignment: 32,
        })
        .collect()
}

fn identity(headers: &[Header]) -> Identity {
    Identity {
        repo: "unsloth/Kimi-K2-Instruct-0905-GGUF".into(),
        commit: "0123456789abcdef0123456789abcdef01234567".into(),
        path: "UD-Q2_K_XL".into(),
        quant: "UD-Q2_K_XL".into(),
        digest: "ab".repeat(32),
        bytes: headers
            .iter()
            .flat_map(|h| &h.tensors)
            .map(|t| t.bytes)
            .sum::<u64>()
            + 10_000_000,
    }
}

fn mixed() -> Facts {
    let headers = headers(|no| MIX[no % MIX.len()]);
    Facts::from_headers(&headers, &identity(&headers)).unwrap()
}

#[test]
fn headers_give_shapes_classes_and_expert_sizes() {
    let headers = headers(|_| Dtype::Q4_K);
    let facts = Facts::from_headers(&headers, &identity(&headers)).unwrap();
    assert_eq!(facts.hyper, support::iq3_xxs_facts().hyper);
    assert_eq!((facts.shards, facts.context_length), (3, 131_072));
    let of = |class| {
        facts
            .classes
            .iter()
            .filter(|row| row.class == class)
            .map(|row| row.count)
            .sum::<u64>()
    };
    assert_eq!(
        (of(Class::Embedding), of(Class::Output), of(Class::Dense)),
        (1, 1, 3)
    );
    assert_eq!(
        (
            of(Class::Expert),
            of(Class::SharedExpert),
            of(Class::Router)
        ),
        (180, 180, 120)
    );
    assert_eq!(
        (of(Class::Attention), of(Class::Norm), of(Class::Other)),
        (366, 245, 0)
    );
    // 44,040,192 values at 4.5 bits.
    assert_eq!(facts.expert_sizes.len(), 1);
    assert_eq!(
        (facts.expert_sizes[0].bytes, facts.expert_sizes[0].count),
        (24_772_608, 60 * 384)
    );
}

/// Experts with tensors of their own are experts, each with its own size.
#[test]
fn experts_of_a_layer_may_differ_in_size() {
    let mut headers = headers(|_| Dtype::Q4_K);
    let parted = |header: &mut Header| {
        let at = |name: &str| header.tensors.iter().position(|t| t.name == name);
        let joined = header.tensors.remove(at("blk.1.ffn_down_exps.weight")?);
        for expert in 0..384 {
            let dtype = [Dtype::Q4_K, Dtype::Q2_K][expert % 2];
            let dims = joined.dims[..2].to_vec();
            header.tensors.push(TensorInfo {
                name: format!("blk.1.ffn_down.{expert}.weight"),
                bytes: dtype.tensor_bytes(&dims)?,
                dims,
                dtype,
                offset: 0,
            });
        }
        Some(())
    };
    assert!(headers.iter_mut().any(|header| parted(header).is_some()));
    let facts = Facts::from_headers(&headers, &identity(&headers)).unwrap();
    // Of 44,040,192 values a third are at 2.625 bits in every second expert of one layer.
    let sizes: Vec<(u64, u64)> = facts
        .expert_sizes
        .iter()
        .map(|s| (s.bytes, s.count))
        .collect();
    assert_eq!(sizes, [(21_331_968, 192), (24_772_608, 60 * 384 - 192)]);
    let experts = facts
        .classes
        .iter()
        .filter(|row| row.class == Class::Expert);
    assert_eq!(experts.map(|row| row.count).sum::<u64>(), 179 + 384);
}

#[test]
fn a_report_of_fifteen_types_stays_under_its_limit_and_keeps_the_sums() {
    let facts = mixed();
    let json = InspectReport::Facts(Box::new(facts.clone())).to_json();
    assert!(json.len() < MAX_REPORT_BYTES, "{} bytes", json.len());
    let InspectReport::Facts(read) = InspectReport::parse(&json).unwrap() else {
        panic!("not facts")
    };
    let sum = |facts: &Facts, class| {
        facts
            .classes
            .iter()
            .filter(|row| row.class == class)
            .map(|row| row.bytes)
            .sum::<u64>()
    };
    for class in [
        Class::Expert,
        Class::Attention,
        Class::SharedExpert,
        Class::Norm,
        Class::Embedding,
    ] {
        assert_eq!(sum(&facts, class), sum(&read, class));
    }
    assert!(read.expert_sizes.len() <= 16);
    assert_eq!(
        read.expert_sizes.iter().map(|s| s.count).sum::<u64>(),
        60 * 384
    );
    // Merging sizes upwards never promises room that is not there.
    let a100 = Hardware::by_name("A100-80GB").unwrap();
    let experts = |facts: &Facts| plan(&Input::new(Source::Exact(facts), a100)).gpu_experts;
    assert!(experts(&read) <= experts(&facts));
    assert!(Facts::parse(&facts.to_json()).is_ok());
}

#[test]
fn a_plain_report_survives_the_round_trip_unchanged() {
    let report = InspectReport::Facts(Box::new(support::iq3_xxs_facts()));
    let json = report.to_json();
    assert!(
        json.starts_with(r#"{"facts":{"repo":"unsloth/Kimi-K2-Instruct-GGUF","commit":"#),
        "{json}"
    );
    assert!(
        json.contains(r#"{"class":"Expert","dtype":"IQ4_XS","count":11,"#),
        "{json}"
    );
    assert_eq!(InspectReport::parse(&json).unwrap(), report);
}

#[test]
fn an_error_report_is_cut_to_its_limit() {
    let short = InspectReport::error("QuantNotFound", "repo X has no quant 'Y'; it has: A, B");
    assert_eq!(
        short.to_json(),
        r#"{"error":{"reason":"QuantNotFound","message":"repo X has no quant 'Y'; it has: A, B"}}"#
    );
    for noise in ["\u{1}", "\"", "模", "x"] {
        let long = InspectReport::error("QuantNotFound", &noise.repeat(50_000)).to_json();
        assert!(
            long.len() < MAX_REPORT_BYTES && long.len() > MAX_REPORT_BYTES / 2,
            "{}",
            long.len()
        );
        assert!(InspectReport::parse(&long).is_ok());
    }
}

#[test]
fn another_architecture_is_refused_by_name() {
    let mut headers = headers(|_| Dtype::Q4_K);
    headers[0].metadata = metadata("llama");
    let error = Facts::from_headers(&headers, &identity(&headers)).unwrap_err();
    assert_eq!(error.reason(), "WrongArchitecture");
    assert!(error.to_string().contains("'llama'"), "{error}");
    assert_eq!(
        Facts::from_headers(&[], &identity(&headers)).unwrap_err(),
        InspectError::NoHeaders
    );
    let mut bare = Metadata::new();
    bare.set("general.architecture", Value::String("deepseek2".into()));
    headers[0].metadata = bare;
    let error = Facts::from_headers(&headers, &identity(&headers)).unwrap_err();
    assert!(error.to_string().contains("block_count"), "{error}");
}

/// One damaged field at a time, and the field that the error names.
#[test]
fn numbers_out_of_range_are_refused_by_field() {
    type Damage = fn(&mut Facts);
    let damages: [(&str, Damage); 16] = [
        ("repo", |f| f.repo = String::new()),
        ("name", |f| f.name = "a\nb".into()),
        ("commit", |f| f.commit = "main".into()),
        ("digest", |f| f.digest = "AB".repeat(32)),
        ("shards", |f| f.shards = 0),
        ("bytes", |f| f.bytes = u64::MAX),
        ("contextLength", |f| f.context_length = 1 << 40),
        ("layers", |f| f.hyper.layers = 0),
        ("denseLayers", |f| f.hyper.dense_layers = 62),
        ("kvLoraRank", |f| f.hyper.kv_lora_rank = u32::MAX),
        ("expertsUsed", |f| f.hyper.experts_used = 385),
        ("vocab", |f| f.hyper.vocab = u32::MAX),
        ("classes", |f| f.classes.clear()),
        ("classes.bytes", |f| f.classes[0].bytes = f.bytes + 1),
        ("bytes of all classes", |f| f.bytes -= 10_000_000_000),
        ("expertSizes.bytes", |f| f.expert_sizes[0].bytes = u64::MAX),
    ];
    for (wanted, damage) in damages {
        let mut facts = support::iq3_xxs_facts();
        damage(&mut facts);
        let json = serde_json::to_string(&InspectReport::Facts(Box::new(facts))).unwrap();
        match InspectReport::parse(&json) {
            Err(FactsError::Field { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }
}

#[test]
fn what_is_no_report_is_refused() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"facts":{}}"#,
        r#"{"facts":{"repo":1}}"#,
        r#"{"error":{"reason":"a b","message":""}}"#,
    ] {
        assert!(InspectReport::parse(text).is_err(), "{text}");
    }
    assert_eq!(
        InspectReport::parse(&" ".repeat(5000)),
        Err(FactsError::TooLong(5000))
    );
}

/// The repository's own small model, from its files.
#[test]
fn the_small_model_of_testdata() {
    let dir = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/hub/kimi-operator/Kimi-Tiny-GGUF/Q4_K_M"
    );
    let first = std::path::Path::new(dir).join("Kimi-Tiny-Q4_K_M-00001-of-00003.gguf");
    let shards = gguf::shard::find_shards(&first).unwrap();
    let bytes = shards
        .iter()
        .map(|shard| std::fs::metadata(shard).unwrap().len())
        .sum();
    let headers: Vec<Header> = shards
        .iter()
        .map(|shard| gguf::open_header(shard).unwrap())
        .collect();
    let facts = Facts::from_headers(
        &headers,
        &Identity {
            bytes,
            ..identity(&headers)
        },
    )
    .unwrap();
    assert_eq!(
        (facts.shards, facts.architecture.as_str()),
        (3, "deepseek2")
    );
    let hyper = facts.hyper;
    assert_eq!(
        (hyper.layers, hyper.dense_layers, hyper.hidden, hyper.heads),
        (4, 1, 256, 4)
    );
    assert_eq!(
        (
            hyper.kv_lora_rank,
            hyper.experts,
            hyper.experts_used,
            hyper.shared_experts
        ),
        (256, 16, 4, 1)
    );
    assert_eq!(
        facts
            .expert_sizes
            .iter()
            .map(|size| size.count)
            .sum::<u64>(),
        3 * 16
    );
    assert!(
        facts.classes.iter().all(|row| row.class != Class::Other),
        "{:?}",
        facts.classes
    );
    let plan = plan(&Input::new(
        Source::Exact(&facts),
        Hardware::by_name("T4").unwrap(),
    ));
    assert_eq!((plan.gpu_experts, plan.storage_bytes), (48, sizing::GB));
}
