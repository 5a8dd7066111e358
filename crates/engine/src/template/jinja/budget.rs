//! How much a rendering may make: text and lists, counted as they come about and never given back, so that what is
//! held at any time is less. It must not know which instructions make them.

use std::fmt::{self, Write};

use minijinja::{Error as JinjaError, ErrorKind, State, Value, value::ValueKind};

/// What is made for each byte of template and conversation: one that is put together piece by piece is made anew with
/// every message.
const PER_BYTE: usize = 1024;

/// Beside that.
const ALWAYS: usize = 1 << 20;

/// The most, however long the conversation is.
pub(super) const MOST: usize = 512 << 20;

/// What a value takes beside its text.
const VALUE: usize = 32;

/// Deepest nesting of values; tools are at most half as deep.
const MAX_DEPTH: usize = 256;

/// The variable that says how much there is to spend; no template can say this name.
pub(super) const VARIABLE: &str = "<budget>";

/// Bytes that a rendering of `source` over `context` may make.
pub(super) fn of(source: &str, context: &Value) -> Result<usize, JinjaError> {
    let input = source.len().saturating_add(size(context, usize::MAX)?);
    Ok(input
        .saturating_mul(PER_BYTE)
        .saturating_add(ALWAYS)
        .min(MOST))
}

/// What is left of it.
struct Left {
    bytes: usize,
    of: usize,
}

fn left<'s>(state: &'s mut State<'_, '_>) -> &'s mut Left {
    let all = match state.get_extension::<Left>() {
        Some(_) => 0,
        None => state
            .lookup(VARIABLE)
            .and_then(|value| value.as_usize())
            .unwrap_or_default(),
    };
    state.get_or_insert_extension_with(|| Left {
        bytes: all,
        of: all,
    })
}

/// Takes `bytes` off.
pub(super) fn spend(state: &mut State<'_, '_>, bytes: usize) -> Result<(), JinjaError> {
    let left = left(state);
    match left.bytes.checked_sub(bytes) {
        Some(rest) => {
            left.bytes = rest;
            Ok(())
        }
        None => Err(over(left.of)),
    }
}

fn over(of: usize) -> JinjaError {
    JinjaError::new(
        ErrorKind::InvalidOperation,
        format!("makes more than {of} bytes of text and lists"),
    )
}

/// Takes off what a new value holds; what is in it was there before.
pub(super) fn made(state: &mut State<'_, '_>, value: &Value) -> Result<(), JinjaError> {
    spend(state, shallow(value))
}

/// Takes off a new value and all that is in it, as often as it is.
pub(super) fn made_of(state: &mut State<'_, '_>, value: &Value) -> Result<(), JinjaError> {
    made_times(state, value, 1)
}

/// Takes off a value and all that is in it, `times` times, and once where that is none: it was looked through.
pub(super) fn made_times(
    state: &mut State<'_, '_>,
    value: &Value,
    times: usize,
) -> Result<(), JinjaError> {
    let left = left(state);
    let (most, of) = (left.bytes, left.of);
    let bytes = size(value, most).map_err(|error| match error.kind() {
        ErrorKind::OutOfFuel => over(of),
        _ => error,
    })?;
    spend(state, bytes.saturating_mul(times.max(1)))
}

/// The text of a value as it would be written, taken off.
pub(super) fn text(state: &mut State<'_, '_>, values: &[&Value]) -> Result<String, JinjaError> {
    let left = left(state);
    let of = left.of;
    let mut out = Limited {
        text: String::new(),
        left: left.bytes,
    };
    for value in values {
        write!(out, "{value}").map_err(|_| over(of))?;
    }
    spend(state, out.text.len())?;
    Ok(out.text)
}

/// What is still there.
pub(super) fn rest(state: &mut State<'_, '_>) -> usize {
    left(state).bytes
}

struct Limited {
    text: String,
    left: usize,
}

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

fn shallow(value: &Value) -> usize {
    let len = match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or_default().saturating_mul(VALUE),
    };
    len.saturating_add(VALUE)
}

/// Bytes of a value and of all in it; out of fuel where that is more than `most`.
fn size(value: &Value, most: usize) -> Result<usize, JinjaError> {
    let mut left = most;
    walk(value, 0, &mut |value| {
        let bytes = VALUE + value.as_str().map_or(0, str::len);
        left = left
            .checked_sub(bytes)
            .ok_or_else(|| JinjaError::from(ErrorKind::OutOfFuel))?;
        Ok(())
    })?;
    Ok(most - left)
}

/// Shows `each` the value and everything in it.
pub(super) fn walk(
    value: &Value,
    depth: usize,
    each: &mut dyn FnMut(&Value) -> Result<(), JinjaError>,
) -> Result<(), JinjaError> {
    each(value)?;
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Err(JinjaError::new(
            ErrorKind::InvalidOperation,
            format!("values are nested more than {MAX_DEPTH} deep"),
        ));
    }
    for item in value.try_iter()? {
        if is_map {
            walk(&value.get_item(&item)?, depth + 1, each)?;
        }
        walk(&item, depth + 1, each)?;
    }
    Ok(())
}
