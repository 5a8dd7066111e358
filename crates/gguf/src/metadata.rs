//! Metadata values and typed access to them by key, with errors that name the key.
//! It must not know which keys a model needs.

use std::collections::HashMap;

use crate::error::MetadataError;

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array; GGUF arrays hold one type each.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Value type ids as written in files.
pub(crate) mod id {
    pub(crate) const U8: u32 = 0;
    pub(crate) const I8: u32 = 1;
    pub(crate) const U16: u32 = 2;
    pub(crate) const I16: u32 = 3;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
    pub(crate) const U64: u32 = 10;
    pub(crate) const I64: u32 = 11;
    pub(crate) const F64: u32 = 12;
}

impl Value {
    /// The type in words, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::U8(_) => "a u8",
            Value::I8(_) => "an i8",
            Value::U16(_) => "a u16",
            Value::I16(_) => "an i16",
            Value::U32(_) => "a u32",
            Value::I32(_) => "an i32",
            Value::F32(_) => "an f32",
            Value::Bool(_) => "a bool",
            Value::String(_) => "a string",
            Value::Array(array) => array.type_name(),
            Value::U64(_) => "a u64",
            Value::I64(_) => "an i64",
            Value::F64(_) => "an f64",
        }
    }

    /// The value as an integer of any width.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => {
                return None;
            }
        })
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::String(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F64(v) => v.len(),
        }
    }

    /// True when there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn type_name(&self) -> &'static str {
        match self {
            Array::U8(_) => "an array of u8",
            Array::I8(_) => "an array of i8",
            Array::U16(_) => "an array of u16",
            Array::I16(_) => "an array of i16",
            Array::U32(_) => "an array of u32",
            Array::I32(_) => "an array of i32",
            Array::F32(_) => "an array of f32",
            Array::Bool(_) => "an array of bool",
            Array::String(_) => "an array of strings",
            Array::U64(_) => "an array of u64",
            Array::I64(_) => "an array of i64",
            Array::F64(_) => "an array of f64",
        }
    }
}

/// The metadata of a file, in file order, each key once.
///
/// `get_*` needs the key and errs when it is absent; `opt_*` returns `None` then. Both err when the key holds
/// another type. Integers convert between widths when the value fits, because writers differ in the width.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// No keys.
    pub fn new() -> Metadata {
        Metadata::default()
    }

    /// Sets `key`, in its old place when it exists, else at the end. Returns the value it replaced.
    pub fn set(&mut self, key: &str, value: Value) -> Option<Value> {
        match self.index.get(key) {
            Some(&at) => Some(std::mem::replace(&mut self.entries[at].1, value)),
            None => {
                self.index.insert(key.to_owned(), self.entries.len());
                self.entries.push((key.to_owned(), value));
                None
            }
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// The raw value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    /// An unsigned 32-bit integer, if the key exists.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, MetadataError> {
        self.opt_integer(key, "a u32")
    }

    /// An unsigned 32-bit integer.
    pub fn get_u32(&self, key: &str) -> Result<u32, MetadataError> {
        required(key, self.opt_u32(key)?)
    }

    /// An unsigned 64-bit integer, if the key exists.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, MetadataError> {
        self.opt_integer(key, "a u64")
    }

    /// An unsigned 64-bit integer.
    pub fn get_u64(&self, key: &str) -> Result<u64, MetadataError> {
        required(key, self.opt_u64(key)?)
    }

    /// A float, if the key exists; an f64 is rounded.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(value)) => Ok(Some(*value)),
            Some(Value::F64(value)) => Ok(Some(*value as f32)),
            Some(other) => Err(wrong_type(key, other, "an f32")),
        }
    }

    /// A float.
    pub fn get_f32(&self, key: &str) -> Result<f32, MetadataError> {
        required(key, self.opt_f32(key)?)
    }

    /// A bool, if the key exists.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_type(key, other, "a bool")),
        }
    }

    /// A bool.
    pub fn get_bool(&self, key: &str) -> Result<bool, MetadataError> {
        required(key, self.opt_bool(key)?)
    }

    /// A string, if the key exists.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(key, other, "a string")),
        }
    }

    /// A string.
    pub fn get_str(&self, key: &str) -> Result<&str, MetadataError> {
        required(key, self.opt_str(key)?)
    }

    /// An array of strings, if the key exists.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&[String]>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::String(values))) => Ok(Some(values)),
            Some(other) => Err(wrong_type(key, other, "an array of strings")),
        }
    }

    /// An array of strings.
    pub fn get_strings(&self, key: &str) -> Result<&[String], MetadataError> {
        required(key, self.opt_strings(key)?)
    }

    /// An array of i32, if the key exists.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<&[i32]>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::I32(values))) => Ok(Some(values)),
            Some(other) => Err(wrong_type(key, other, "an array of i32")),
        }
    }

    /// An array of i32.
    pub fn get_i32s(&self, key: &str) -> Result<&[i32], MetadataError> {
        required(key, self.opt_i32s(key)?)
    }

    /// An array of f32, if the key exists.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<&[f32]>, MetadataError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(values))) => Ok(Some(values)),
            Some(other) => Err(wrong_type(key, other, "an array of f32")),
        }
    }

    fn opt_integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let integer = value
            .integer()
            .ok_or_else(|| wrong_type(key, value, wanted))?;
        match T::try_from(integer) {
            Ok(fitting) => Ok(Some(fitting)),
            Err(_) => Err(MetadataError::Range {
                key: key.to_owned(),
                value: integer.to_string(),
                wanted,
            }),
        }
    }
}

fn required<T>(key: &str, value: Option<T>) -> Result<T, MetadataError> {
    value.ok_or_else(|| MetadataError::Missing(key.to_owned()))
}

fn wrong_type(key: &str, found: &Value, wanted: &'static str) -> MetadataError {
    MetadataError::Type {
        key: key.to_owned(),
        found: found.type_name(),
        wanted,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Metadata {
        let mut metadata = Metadata::new();
        metadata.set("small", Value::U16(7));
        metadata.set("negative", Value::I32(-1));
        metadata.set("half", Value::F32(0.5));
        metadata.set("name", Value::String("Kimi".into()));
        metadata.set("tokens", Value::Array(Array::String(vec!["a".into()])));
        metadata
    }

    #[test]
    fn integers_convert_when_they_fit() {
        assert_eq!(sample().get_u32("small"), Ok(7));
        assert_eq!(sample().get_u64("small"), Ok(7));
        let error = sample().get_u32("negative").unwrap_err();
        assert_eq!(
            error.to_string(),
            "metadata key 'negative' holds -1, which is out of range for a u32"
        );
    }

    #[test]
    fn errors_name_the_key_and_both_types() {
        let metadata = sample();
        assert_eq!(
            metadata.get_u32("name").unwrap_err().to_string(),
            "metadata key 'name' holds a string where a u32 is needed"
        );
        assert_eq!(
            metadata.get_str("tokens").unwrap_err().to_string(),
            "metadata key 'tokens' holds an array of strings where a string is needed"
        );
        assert_eq!(
            metadata.get_f32("absent").unwrap_err().to_string(),
            "metadata key 'absent' is missing"
        );
        assert_eq!(metadata.opt_f32("absent"), Ok(None));
    }

    #[test]
    fn set_keeps_the_place_of_a_key() {
        let mut metadata = sample();
        assert_eq!(metadata.set("small", Value::U32(9)), Some(Value::U16(7)));
        assert_eq!(metadata.iter().next(), Some(("small", &Value::U32(9))));
        assert_eq!(metadata.len(), 5);
    }
}
