//! Checks the numbers a client sent and turns them into the engine's sampling: every field has its
//! bounds here. It must not know how a request is answered.

use engine::Sampling;

use crate::{
    error::ApiError,
    openai::{Options, Stop},
};

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
const MAX_BIASES: usize = 1024;

/// How to sample, or the first field that is out of bounds.
pub(crate) fn sampling(options: &Options, vocab: u32) -> Result<Sampling, ApiError> {
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

/// Refuses what would change the meaning of the answer if we ignored it.
pub(crate) fn refuse_unsupported(options: &Options) -> Result<(), ApiError> {
    let none = |param: &str, what: &str| Err(ApiError::field(param, what));
    if options.n.is_some_and(|n| n != 1) {
        return none("n", "only 1 is supported; send the request several times");
    }
    if options.best_of.is_some_and(|n| n != 1) {
        return none("best_of", "only 1 is supported");
    }
    if options.echo == Some(true) {
        return none("echo", "not supported");
    }
    if options
        .suffix
        .as_ref()
        .is_some_and(|suffix| !suffix.is_empty())
    {
        return none("suffix", "not supported");
    }
    if options
        .logprobs
        .as_ref()
        .is_some_and(|value| *value != serde_json::Value::Bool(false))
    {
        return none("logprobs", "not supported");
    }
    if let Some(format) = &options.response_format
        && format.kind != "text"
    {
        return Err(ApiError::field(
            "response_format.type",
            format!("'{}' is not supported, only 'text'", format.kind),
        ));
    }
    Ok(())
}

pub(crate) fn stops(stop: &Stop) -> Result<Vec<String>, ApiError> {
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

/// The most tokens to generate; the newer field wins, as the older is deprecated.
pub(crate) fn max_tokens(options: &Options) -> Result<Option<u32>, ApiError> {
    let (param, value) = match options.max_completion_tokens {
        Some(value) => ("max_completion_tokens", Some(value)),
        None => ("max_tokens", options.max_tokens),
    };
    match value {
        Some(0) => Err(ApiError::field(param, "must be at least 1")),
        // More than any context is the same as no limit.
        Some(value) => Ok(Some(u32::try_from(value).unwrap_or(u32::MAX))),
        None => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::body::parse;

    fn check(json: &str) -> Result<Sampling, String> {
        let options: Options = parse(json.as_bytes()).map_err(|error| error.to_string())?;
        refuse_unsupported(&options)
            .and_then(|()| stops(&options.stop))
            .and_then(|_| max_tokens(&options))
            .and_then(|_| sampling(&options, 300))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_and_bounds() {
        assert_eq!(check("{}").unwrap(), Sampling::default());
        let all = check(
            r#"{"temperature":0,"top_p":0.5,"top_k":-1,"min_p":0.1,"seed":-1,"repetition_penalty":1.1,
               "presence_penalty":-2,"frequency_penalty":2,"logit_bias":{"299":-100},"stop":["a"],"n":1,
               "response_format":{"type":"text"},"logprobs":false,"user":"x","unknown":[1]}"#,
        )
        .unwrap();
        assert_eq!(all.seed, Some(u64::MAX));
        assert_eq!(all.logit_bias, [(299, -100.0)]);
        assert_eq!(all.top_k, 0);
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
            (r#"{"n":2}"#, "n: only 1 is supported"),
            (r#"{"logprobs":true}"#, "logprobs: not supported"),
            (r#"{"echo":true}"#, "echo: not supported"),
            (
                r#"{"response_format":{"type":"json_object"}}"#,
                "response_format.type: 'json_object'",
            ),
            (
                r#"{"stream":1}"#,
                "stream: invalid type: integer `1`, expected a boolean",
            ),
        ] {
            let error = check(json).unwrap_err();
            assert!(error.starts_with(says), "{json}: {error}");
        }
        let many = format!(r#"{{"stop":[{}]}}"#, vec!["\"x\""; 17].join(","));
        assert!(
            check(&many)
                .unwrap_err()
                .starts_with("stop: 17 strings, at most 16")
        );
    }
}
