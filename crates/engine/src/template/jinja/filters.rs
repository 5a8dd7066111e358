//! Filters and methods: those of transformers, and limits on those of Jinja and Python that make much of little. It must
//! not know chat messages or tokens.

use minijinja::{
    Environment, Error as JinjaError, ErrorKind, State, Value, filters,
    value::{ArgType, Kwargs, Rest, StringInput, ValueOrKwargs},
};
use minijinja_contrib::pycompat;

use super::{super::json, budget};

/// Most spaces per level that `tojson` and `indent` write; published templates ask for 2 or 4.
const MAX_INDENT: usize = 64;

/// Most lists that `batch` and `slice` make of one, and most items they make a list of.
const MAX_PARTS: usize = 4096;

/// Most digits of a number in a format.
const MAX_DIGITS: usize = 3;

pub(super) fn add(environment: &mut Environment<'_>) {
    // Not Jinja's own, and they make long lists of short ones.
    for name in ["chain", "zip"] {
        environment.remove_filter(name);
    }
    environment.add_filter("tojson", tojson);
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter("batch", batch);
    environment.add_filter("slice", slice);
    environment.add_filter("sum", sum);
    environment.add_filter("format", format_with);
    environment.add_filter("string", string);
    environment.add_filter("pprint", |state: &mut State<'_, '_>, value: &Value| {
        // Longer than in one line by less than the depth of the values.
        budget::text(state, &[value]).map(|_| filters::pprint(value))
    });
    environment.set_unknown_method_callback(method);
}

fn refused(words: String) -> JinjaError {
    JinjaError::new(ErrorKind::InvalidOperation, words)
}

/// An argument that stands in its place or goes by its name.
fn given<'a, T>(
    value: Option<T>,
    options: &'a Kwargs,
    name: &'a str,
) -> Result<Option<T>, JinjaError>
where
    Option<T>: ArgType<'a, Output = Option<T>>,
{
    match value {
        Some(value) => Ok(Some(value)),
        None => options.get(name),
    }
}

/// `tojson` as transformers registers it: `json.dumps` with `ensure_ascii` off.
fn tojson(
    state: &mut State<'_, '_>,
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, JinjaError> {
    let indent = match given(indent, &options, "indent")? {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => Some(usize::try_from(indent)?),
    };
    if indent.is_some_and(|indent| indent > MAX_INDENT) {
        return Err(refused(format!(
            "tojson: an indent of more than {MAX_INDENT}"
        )));
    }
    let separators: Option<(String, String)> = match options.get::<Option<Value>>("separators")? {
        None => None,
        Some(pair) if pair.is_none() => None,
        Some(pair) => Some((
            pair.get_item_by_index(0)?.to_string(),
            pair.get_item_by_index(1)?.to_string(),
        )),
    };
    let style = json::Style {
        indent,
        separators,
        ensure_ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        most: Some(budget::rest(state)),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    json::dumps(value, &style).map(Value::from)
}

/// A method of a text, list or mapping.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, JinjaError> {
    match (name, value.as_str(), args) {
        ("replace", Some(text), [from, to, ..]) => {
            if let (Some(from), Some(to)) = (from.as_str(), to.as_str()) {
                replaced(state, text, from, to)?;
            }
        }
        ("join", Some(text), [values, ..]) => joined(state, values, text.len())?,
        ("format", Some(text), values) => formatted(state, text, values)?,
        _ => {}
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

fn replace(
    state: &mut State<'_, '_>,
    text: StringInput<'_>,
    from: StringInput<'_>,
    to: StringInput<'_>,
) -> Result<Value, JinjaError> {
    replaced(state, text.as_str(), from.as_str(), to.as_str())?;
    filters::replace(state, text, from, to)
}

/// Pays for the longest text that may come of it.
fn replaced(state: &mut State<'_, '_>, text: &str, from: &str, to: &str) -> Result<(), JinjaError> {
    if to.len() <= from.len() {
        return Ok(());
    }
    let times = text.matches(from).count();
    budget::spend(
        state,
        times.saturating_mul(to.len()).saturating_add(text.len()),
    )
}

fn join(
    state: &mut State<'_, '_>,
    values: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, JinjaError> {
    let between = joiner.as_ref().map_or(0, |joiner| joiner.as_str().len());
    joined(state, values, between)?;
    filters::join(state, values, joiner, attribute, options)
}

/// Pays for values in a row.
fn joined(state: &mut State<'_, '_>, values: &Value, between: usize) -> Result<(), JinjaError> {
    for value in values.try_iter()? {
        let bytes = match value.as_str() {
            Some(text) => text.len(),
            None => budget::text(state, &[&value])?.len(),
        };
        budget::spend(state, bytes.saturating_add(between))?;
    }
    Ok(())
}

fn indent(
    text: StringInput<'_>,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<Value, JinjaError> {
    let width = given(width, &options, "width")?;
    if width.is_some_and(|width| width > MAX_INDENT) {
        return Err(refused(format!(
            "indent: a width of more than {MAX_INDENT}"
        )));
    }
    filters::indent(text, width, first, blank, options)
}

fn batch(
    state: &mut State<'_, '_>,
    values: Value,
    count: usize,
    fill: Option<Value>,
) -> Result<Value, JinjaError> {
    parts(state, "batch", count, fill.as_ref())?;
    filters::batch(state, values, count, fill)
}

fn slice(
    state: &mut State<'_, '_>,
    values: Value,
    count: usize,
    fill: Option<Value>,
) -> Result<Value, JinjaError> {
    parts(state, "slice", count, fill.as_ref())?;
    filters::slice(state, values, count, fill)
}

fn parts(
    state: &mut State<'_, '_>,
    filter: &str,
    count: usize,
    fill: Option<&Value>,
) -> Result<(), JinjaError> {
    if count > MAX_PARTS {
        return Err(refused(format!(
            "{filter}: a count of more than {MAX_PARTS}"
        )));
    }
    fill.map_or(Ok(()), |fill| budget::made_times(state, fill, count))
}

/// Of numbers: Jinja would put texts and lists together, too.
fn sum(
    state: &mut State<'_, '_>,
    values: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    options: Kwargs,
) -> Result<Value, JinjaError> {
    let start = given(start, &options, "start")?;
    if start.as_ref().is_some_and(|start| !start.is_number()) {
        return Err(refused("sum: a start that is no number".to_owned()));
    }
    filters::sum(state, values, attribute, start, options)
}

fn format_with(
    state: &mut State<'_, '_>,
    text: &Value,
    values: Rest<ValueOrKwargs>,
) -> Result<Value, JinjaError> {
    let args: Vec<Value> = values
        .iter()
        .map(|value| Value::from(value.clone()))
        .collect();
    formatted(state, text.as_str().unwrap_or_default(), &args)?;
    filters::format(state, text, values)
}

/// Pays for the values in each place they can be written to, and refuses a width that is not a short number.
fn formatted(state: &mut State<'_, '_>, text: &str, values: &[Value]) -> Result<(), JinjaError> {
    let is_long = text
        .split(|c: char| !c.is_ascii_digit())
        .any(|digits| digits.len() > MAX_DIGITS);
    if is_long || text.contains('*') {
        return Err(refused(format!(
            "format: a width of more than {MAX_DIGITS} digits, or one taken from the values"
        )));
    }
    let places = text.matches(['{', '%']).count();
    let mut bytes = 0usize;
    for value in values {
        bytes = bytes.saturating_add(budget::text(state, &[value])?.len());
    }
    let each = bytes.saturating_add(10usize.pow(MAX_DIGITS as u32));
    budget::spend(state, places.saturating_mul(each))
}

fn string(state: &mut State<'_, '_>, value: &Value) -> Result<Value, JinjaError> {
    if value.as_str().is_some() {
        return Ok(value.clone());
    }
    budget::text(state, &[value]).map(Value::from)
}
