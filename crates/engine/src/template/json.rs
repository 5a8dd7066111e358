//! JSON as Python writes it: `json.dumps` for `tojson`, and a reader that keeps the order of keys.
//! It must not know chat messages.

use std::fmt::{self, Write};

use minijinja::{Error as JinjaError, ErrorKind, Value, value::ValueKind};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::Error;

/// Deepest nesting written; `serde_json` reads at most 128.
const MAX_DEPTH: usize = 128;

/// Reads JSON text. Maps keep their order; `text` passes each string and key on its way in.
pub(super) fn parse(json: &str, text: &dyn Fn(&str) -> String) -> Result<Value, Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    Ordered { text }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Error::Template(format!("tools are not JSON: {error}")))
}

/// Arguments of `json.dumps`.
#[derive(Default)]
pub(super) struct Style {
    /// Spaces per level; `None` writes one line.
    pub(super) indent: Option<usize>,
    /// Between items, and between key and value; `None` takes Python's defaults.
    pub(super) separators: Option<(String, String)>,
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
    /// Bytes after which no more is written.
    pub(super) most: Option<usize>,
}

impl Style {
    /// Nothing but what JSON needs.
    pub(super) fn compact() -> Self {
        Self {
            separators: Some((",".to_owned(), ":".to_owned())),
            ..Self::default()
        }
    }
}

/// The value as `json.dumps` writes it.
pub(super) fn dumps(value: &Value, style: &Style) -> Result<String, JinjaError> {
    let (item, key) = match (&style.separators, style.indent) {
        (Some((item, key)), _) => (item.as_str(), key.as_str()),
        (None, None) => (", ", ": "),
        (None, Some(_)) => (",", ": "),
    };
    let mut writer = Writer {
        out: String::new(),
        style,
        item,
        key,
        depth: 0,
    };
    writer.value(value)?;
    Ok(writer.out)
}

struct Writer<'s> {
    out: String,
    style: &'s Style,
    item: &'s str,
    key: &'s str,
    depth: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Result<(), JinjaError> {
        if self.style.most.is_some_and(|most| self.out.len() > most) {
            return Err(JinjaError::new(
                ErrorKind::InvalidOperation,
                "the JSON is too long",
            ));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self
                .out
                .push_str(&python_float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                self.container('[', ']', &items, Self::value)?;
            }
            ValueKind::Map => {
                let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                if self.style.sort_keys {
                    keys.sort();
                }
                self.container('{', '}', &keys, |writer, key| {
                    match key.as_str() {
                        Some(text) => writer.string(text),
                        None => writer.string(&key.to_string()),
                    }
                    writer.out.push_str(writer.key);
                    writer.value(&value.get_item(key)?)
                })?;
            }
            other => {
                return Err(JinjaError::new(
                    ErrorKind::InvalidOperation,
                    format!("{other} is not JSON serializable"),
                ));
            }
        }
        Ok(())
    }

    fn container(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        write: impl Fn(&mut Self, &Value) -> Result<(), JinjaError>,
    ) -> Result<(), JinjaError> {
        if self.depth == MAX_DEPTH {
            return Err(JinjaError::new(
                ErrorKind::InvalidOperation,
                "nested too deeply for JSON",
            ));
        }
        self.out.push(open);
        self.depth += 1;
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out.push_str(self.item);
            }
            self.line();
            write(self, item)?;
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.line();
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self) {
        if let Some(indent) = self.style.indent {
            self.out.push('\n');
            self.out
                .extend(std::iter::repeat_n(' ', indent * self.depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' => self.escape(u16::try_from(u32::from(c)).unwrap_or_default()),
                // The guard's break is not part of the text, so it is never escaped.
                c if self.style.ensure_ascii && !c.is_ascii() && c != super::guard::BREAK => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.escape(*unit);
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, unit: u16) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "\\u{unit:04x}");
    }
}

/// Python's `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and
/// from 1e16 on.
pub(super) fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

/// Reads any JSON value into a template value.
#[derive(Clone, Copy)]
struct Ordered<'f> {
    text: &'f dyn Fn(&str) -> String,
}

impl<'de> DeserializeSeed<'de> for Ordered<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Ordered<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::from(()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from((self.text)(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::from(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = entries.next_key_seed(self)? {
            pairs.push((key, entries.next_value_seed(self)?));
        }
        Ok(Value::from_pairs(pairs))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dumped(json: &str, style: &Style) -> String {
        dumps(&parse(json, &str::to_owned).unwrap(), style).unwrap()
    }

    // Expected texts are what CPython 3.12's json.dumps prints for the same input.
    #[test]
    fn writes_what_python_writes() {
        let json = r#"{"b":[1,2.50,-0.0,1e100,1e-7,true,null,{}],"a":"é\n\u0001\"<😀","c":[]}"#;
        assert_eq!(
            dumped(json, &Style::default()),
            r#"{"b": [1, 2.5, -0.0, 1e+100, 1e-07, true, null, {}], "a": "é\n\u0001\"<😀", "c": []}"#
        );
        assert_eq!(
            dumped(
                json,
                &Style {
                    ensure_ascii: true,
                    sort_keys: true,
                    ..Style::compact()
                }
            ),
            r#"{"a":"\u00e9\n\u0001\"<\ud83d\ude00","b":[1,2.5,-0.0,1e+100,1e-07,true,null,{}],"c":[]}"#
        );
        assert_eq!(
            dumped(
                r#"{"b":[1],"a":{}}"#,
                &Style {
                    indent: Some(2),
                    ..Style::default()
                }
            ),
            "{\n  \"b\": [\n    1\n  ],\n  \"a\": {}\n}"
        );
    }

    #[test]
    fn refuses_what_is_not_json() {
        for json in ["", "{", "[1,]", "[] x", "nul"] {
            assert!(parse(json, &str::to_owned).is_err(), "{json}");
        }
    }

    #[test]
    fn strings_pass_the_filter_after_unescaping() {
        let value = parse(r#"{"k\u003c":["v\u003c"]}"#, &|text| text.replace('<', "!")).unwrap();
        assert_eq!(
            dumps(&value, &Style::compact()).unwrap(),
            r#"{"k!":["v!"]}"#
        );
    }
}
