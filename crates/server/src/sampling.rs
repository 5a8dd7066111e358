//! Checks the numbers a client sent and turns them into the engine's sampling: every field has its
//! bounds here. It must not know how a request is answered.

use engine::{AnswerFormat, Sampling};

use crate::{
    error::ApiError,
    generate::{MAX_CHOICES, Wanted},
    openai::{Options, ResponseFormat, Stop},
};

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
const MAX_BIASES: usize = 1024;
/// Likeliest tokens beside each token.
const MAX_LOGPROBS: u64 = 20;
/// Longest JSON schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 256 << 10;

/// What is wanted, as far as chat and text completions agree; every field is checked before any work
/// is done for the request.
pub(crate) fn wanted(options: &Options, vocab: u32) -> Result<Wanted, ApiError> {
    Ok(Wanted {
        sampling: sampling(options, vocab)?,
        stop: stops(&options.stop)?,
        max_tokens: max_tokens(options)?,
        n: n(options.n)?,
        format: match &options.response_format {
            Some(wanted) => format(wanted)?.map(|format| ("response_format", format)),
            None => None,
        },
        ..Wanted::default()
    })
}

/// How to sample, or the first field that is out of bounds.
fn sampling(options: &Options, vocab: u32) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    Ok(Sampling {
        temperature: within(
            "temperature",
            options.temperature,
            0.0,
            2.0,
            default.temperature,
        )?,
        top_k: top_k(options.top_k, vocab, default.top_k)?,
        top_p: within("top_p", options.top_p, 0.0, 1.0, default.top_p)?,
        min_p: within("min_p", options.min_p, 0.0, 1.0, default.min_p)?,
        repetition_penalty: within(
            "repetition_penalty",
            options.repetition_penalty,
            0.01,
            2.0,
            default.repetition_penalty,
        )?,
        presence_penalty: within(
            "presence_penalty",
            options.presence_penalty,
            -2.0,
            2.0,
            default.presence_penalty,
        )?,
        frequency_penalty: within(
            "frequency_penalty",
            options.frequency_penalty,
            -2.0,
            2.0,
            default.frequency_penalty,
        )?,
        seed: options.seed.map(i64::cast_unsigned),
        logit_bias: logit_bias(options, vocab)?,
    })
}

fn within(
    param: &str,
    value: Option<f32>,
    low: f32,
    high: f32,
    default: f32,
) -> Result<f32, ApiError> {
    let value = value.unwrap_or(default);
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::field(
        param,
        format!("{value} is not within {low} to {high}"),
    ))
}

/// 0 and -1 both mean all tokens, as in other servers.
fn top_k(value: Option<i64>, vocab: u32, default: u32) -> Result<u32, ApiError> {
    match value {
        None => Ok(default),
        Some(-1) => Ok(0),
        Some(k) => u32::try_from(k)
            .map(|k| k.min(vocab))
            .map_err(|_| ApiError::field("top_k", format!("{k} is not within -1 to {}", u32::MAX))),
    }
}

fn logit_bias(options: &Options, vocab: u32) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = &options.logit_bias else {
        return Ok(Vec::new());
    };
    if biases.len() > MAX_BIASES {
        let problem = format!("{} tokens, at most {MAX_BIASES} are taken", biases.len());
        return Err(ApiError::field("logit_bias", problem));
    }
    let mut list = Vec::with_capacity(biases.len());
    for (token, &bias) in biases {
        let param = format!("logit_bias.{token}");
        let id = token
            .parse::<u32>()
            .ok()
            .filter(|&id| id < vocab)
            .ok_or_else(|| ApiError::field(&param, format!("not a token id below {vocab}")))?;
        list.push((id, within(&param, Some(bias), -100.0, 100.0, 0.0)?));
    }
    Ok(list)
}

fn n(value: Option<u64>) -> Result<usize, ApiError> {
    let n = value.unwrap_or(1);
    usize::try_from(n)
        .ok()
        .filter(|n| (1..=MAX_CHOICES).contains(n))
        .ok_or_else(|| ApiError::field("n", format!("{n} is not within 1 to {MAX_CHOICES}")))
}

/// How many of the likeliest tokens to report.
pub(crate) fn alternatives(param: &str, value: u64) -> Result<u32, ApiError> {
    u32::try_from(value)
        .ok()
        .filter(|_| value <= MAX_LOGPROBS)
        .ok_or_else(|| ApiError::field(param, format!("{value} is not within 0 to {MAX_LOGPROBS}")))
}

fn format(format: &ResponseFormat) -> Result<Option<AnswerFormat>, ApiError> {
    let nested = format
        .json_schema
        .as_ref()
        .and_then(|inner| inner.schema.as_ref());
    let (param, schema) = match (nested, &format.schema) {
        (Some(nested), _) => ("response_format.json_schema.schema", Some(nested)),
        (None, beside) => ("response_format.schema", beside.as_ref()),
    };
    if let Some(schema) = schema.filter(|schema| schema.get().len() > MAX_SCHEMA_BYTES) {
        let (bytes, most) = (schema.get().len(), MAX_SCHEMA_BYTES);
        let problem = format!("{bytes} bytes, at most {most} are taken");
        return Err(ApiError::field(param, problem));
    }
    match (format.kind.as_str(), schema) {
        ("text", _) => Ok(None),
        ("json_object", None) => Ok(Some(AnswerFormat::JsonObject)),
        ("json_object" | "json_schema", Some(schema)) => {
            Ok(Some(AnswerFormat::JsonSchema(schema.get().to_owned())))
        }
        ("json_schema", None) => Err(ApiError::field(
            "response_format.json_schema.schema",
            "missing",
        )),
        (other, _) => Err(ApiError::field(
            "response_format.type",
            format!("'{other}' is none of text, json_object, json_schema"),
        )),
    }
}

fn stops(stop: &Stop) -> Result<Vec<String>, ApiError> {
    if stop.0.len() > MAX_STOPS {
        let problem = format!("{} strings, at most {MAX_STOPS} are taken", stop.0.len());
        return Err(ApiError::field("stop", problem));
    }
    for (index, text) in stop.0.iter().enumerate() {
        if text.is_empty() || text.len() > MAX_STOP_BYTES {
            let problem = format!(
                "{} bytes, between 1 and {MAX_STOP_BYTES} are taken",
                text.len()
            );
            return Err(ApiError::field(format!("stop[{index}]"), problem));
        }
    }
    Ok(stop.0.clone())
}

/// The most tokens to generate; the newer field wins, as the older is deprecated. 0 only makes sense
/// where the prompt comes back: the handlers decide.
fn max_tokens(options: &Options) -> Result<Option<u32>, ApiError> {
    let value = options.max_completion_tokens.or(options.max_tokens);
    // More than any context is the same as no limit.
    Ok(value.map(|value| u32::try_from(value).unwrap_or(u32::MAX)))
}

/// Refuses an answer of no tokens.
pub(crate) fn at_least_one_token(options: &Options, wanted: &Wanted) -> Result<(), ApiError> {
    if wanted.max_tokens != Some(0) {
        return Ok(());
    }
    let param = match options.max_completion_tokens {
        Some(_) => "max_completion_tokens",
        None => "max_tokens",
    };
    Err(ApiError::field(param, "must be at least 1"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::body::parse;

    fn check(json: &str) -> Result<Wanted, String> {
        let options: Options = parse(json.as_bytes()).map_err(|error| error.to_string())?;
        wanted(&options, 300)
            .and_then(|wanted| at_least_one_token(&options, &wanted).map(|()| wanted))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_and_bounds() {
        let default = check("{}").unwrap();
        assert_eq!(default.sampling, Sampling::default());
        assert_eq!((default.n, default.format), (1, None));
        let all = check(
            r#"{"temperature":0,"top_p":0.5,"top_k":-1,"min_p":0.1,"seed":-1,"repetition_penalty":1.1,
               "presence_penalty":-2,"frequency_penalty":2,"logit_bias":{"299":-100},"stop":["a"],"n":1,
               "response_format":{"type":"text"},"user":"x","unknown":[1]}"#,
        )
        .unwrap();
        assert_eq!(all.sampling.seed, Some(u64::MAX));
        assert_eq!(all.sampling.logit_bias, [(299, -100.0)]);
        assert_eq!(all.sampling.top_k, 0);
        assert_eq!(all.format, None);
    }

    #[test]
    fn formats_come_in_three_forms() {
        let format = |json: &str| {
            check(&format!(r#"{{"response_format":{json}}}"#))
                .unwrap()
                .format
                .map(|(_, format)| format)
        };
        let schema = Some(AnswerFormat::JsonSchema(r#"{"type": "null"}"#.to_owned()));
        assert_eq!(
            format(r#"{"type":"json_object"}"#),
            Some(AnswerFormat::JsonObject)
        );
        assert_eq!(
            format(
                r#"{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type": "null"}}}"#
            ),
            schema
        );
        assert_eq!(
            format(r#"{"type":"json_object","schema":{"type": "null"}}"#),
            schema
        );
    }

    #[test]
    fn each_bad_field_is_named() {
        for (json, says) in [
            (
                r#"{"temperature":2.5}"#,
                "temperature: 2.5 is not within 0 to 2",
            ),
            (
                r#"{"temperature":"hot"}"#,
                "temperature: invalid type: string \"hot\"",
            ),
            (r#"{"top_p":1.1}"#, "top_p: 1.1 is not within 0 to 1"),
            (r#"{"top_k":-2}"#, "top_k: -2 is not within"),
            (r#"{"min_p":-0.1}"#, "min_p: -0.1 is not within"),
            (
                r#"{"repetition_penalty":0}"#,
                "repetition_penalty: 0 is not within",
            ),
            (
                r#"{"presence_penalty":3}"#,
                "presence_penalty: 3 is not within -2 to 2",
            ),
            (
                r#"{"frequency_penalty":-3}"#,
                "frequency_penalty: -3 is not within -2 to 2",
            ),
            (
                r#"{"logit_bias":{"300":1}}"#,
                "logit_bias.300: not a token id below 300",
            ),
            (r#"{"logit_bias":{"x":1}}"#, "logit_bias.x: not a token id"),
            (
                r#"{"logit_bias":{"1":101}}"#,
                "logit_bias.1: 101 is not within -100 to 100",
            ),
            (
                r#"{"stop":5}"#,
                "stop: invalid type: integer `5`, expected a string or a list of strings",
            ),
            (r#"{"stop":[""]}"#, "stop[0]: 0 bytes"),
            (r#"{"max_tokens":0}"#, "max_tokens: must be at least 1"),
            (
                r#"{"max_tokens":-1}"#,
                "max_tokens: invalid value: integer `-1`",
            ),
            (r#"{"n":0}"#, "n: 0 is not within 1 to 128"),
            (r#"{"n":129}"#, "n: 129 is not within 1 to 128"),
            (
                r#"{"response_format":{"type":"xml"}}"#,
                "response_format.type: 'xml' is none of text, json_object, json_schema",
            ),
            (
                r#"{"response_format":{"type":"json_schema","json_schema":{"name":"x"}}}"#,
                "response_format.json_schema.schema: missing",
            ),
            (
                r#"{"stream":1}"#,
                "stream: invalid type: integer `1`, expected a boolean",
            ),
        ] {
            let error = check(json).unwrap_err();
            assert!(error.starts_with(says), "{json}: {error}");
        }
        let large = format!(
            r#"{{"response_format":{{"type":"json_object","schema":"{}"}}}}"#,
            "x".repeat(MAX_SCHEMA_BYTES)
        );
        assert!(
            check(&large)
                .unwrap_err()
                .starts_with("response_format.schema: 262146 bytes, at most 262144")
        );
        let many = format!(r#"{{"stop":[{}]}}"#, vec!["\"x\""; 17].join(","));
        assert!(
            check(&many)
                .unwrap_err()
                .starts_with("stop: 17 strings, at most 16")
        );
    }
}
