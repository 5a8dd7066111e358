//! Jinja as transformers sets it up for chat templates, and as much of Python as Kimi's templates use:
//! `json.dumps` for `tojson`, lists in namespaces that `append` and `pop` change. It must not know
//! chat messages or tokens.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minijinja::{
    Environment, Error as JinjaError, ErrorKind, State, Value, functions,
    syntax::SyntaxConfig,
    value::{Enumerator, Kwargs, Object, ObjectRepr, ValueKind, ValueOrKwargs, from_args},
};
use minijinja_contrib::pycompat;

use super::json;
use crate::Error;

/// The name the template goes by in error messages.
const NAME: &str = "chat_template";

/// Longest template taken; Kimi's are below 8 KiB.
const MAX_SOURCE: usize = 1 << 20;

/// Instructions a rendering may take; Kimi's templates take some hundred per message.
const MAX_STEPS: u64 = 10_000_000;

/// Longest text rendered: many times the longest request.
const MAX_TEXT: usize = 64 << 20;

/// Most spaces per level that `tojson` writes; published templates ask for 2 or 4.
const MAX_INDENT: usize = 64;

/// A compiled template.
pub(super) struct Jinja {
    environment: Environment<'static>,
}

impl Jinja {
    /// Compiles `source`, in which `globals` are known by name.
    pub(super) fn compile(
        source: &str,
        globals: [(&'static str, String); 2],
    ) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE {
            return Err(Error::Template(format!(
                "{} bytes; at most {MAX_SOURCE} are read",
                source.len()
            )));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(refused)?);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("namespace", namespace);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, JinjaError> {
                Err(JinjaError::new(ErrorKind::InvalidOperation, message))
            },
        );
        for (variable, text) in globals {
            environment.add_global(variable, text);
        }
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(refused)?;
        Ok(Self { environment })
    }

    pub(super) fn render(&self, context: Value) -> Result<String, Error> {
        let mut text = Text::default();
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut text).map(|_| ()))
            .map_err(refused)?;
        String::from_utf8(text.0).map_err(|error| Error::Template(error.to_string()))
    }
}

/// What is rendered, up to a limit: a few words in nested loops are as much as the disk holds.
#[derive(Default)]
struct Text(Vec<u8>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT {
            let words = format!("renders more than {MAX_TEXT} bytes");
            return Err(io::Error::other(words));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The whole chain of causes: minijinja's outermost message alone seldom says what to change.
#[allow(clippy::needless_pass_by_value)]
fn refused(error: JinjaError) -> Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    Error::Template(text)
}

/// `tojson` as transformers registers it: `json.dumps` with `ensure_ascii` off.
fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, JinjaError> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    let indent = match indent {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => Some(usize::try_from(indent)?),
    };
    if indent.is_some_and(|indent| indent > MAX_INDENT) {
        return Err(JinjaError::new(
            ErrorKind::InvalidOperation,
            format!("tojson: an indent of more than {MAX_INDENT}"),
        ));
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
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    json::dumps(value, &style).map(Value::from)
}

/// Jinja's own namespace, but its lists can be changed.
fn namespace(fields: Kwargs) -> Result<Value, JinjaError> {
    let mut changeable = Vec::new();
    for name in fields.args() {
        let value: Value = fields.get(name)?;
        let value = match value.kind() {
            ValueKind::Seq => Value::from_object(List(Mutex::new(value.try_iter()?.collect()))),
            _ => value,
        };
        changeable.push((name, value));
    }
    let (fields,): (Option<ValueOrKwargs>,) = from_args(&[Value::from_pairs(changeable)])?;
    functions::namespace(fields)
}

/// A list as Python has them.
#[derive(Debug)]
struct List(Mutex<Vec<Value>>);

impl List {
    fn items(&self) -> MutexGuard<'_, Vec<Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items().get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items().clone())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, JinjaError> {
        match method {
            "append" => {
                let (item,): (Value,) = from_args(args)?;
                self.items().push(item);
                Ok(Value::from(()))
            }
            "pop" => {
                let (at,): (Option<usize>,) = from_args(args)?;
                let mut items = self.items();
                let at = at.or_else(|| items.len().checked_sub(1));
                match at.filter(|at| *at < items.len()) {
                    Some(at) => Ok(items.remove(at)),
                    None => Err(JinjaError::new(
                        ErrorKind::InvalidOperation,
                        "pop from an empty list",
                    )),
                }
            }
            _ => Err(JinjaError::from(ErrorKind::UnknownMethod)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refusal(source: &str) -> String {
        let globals = [("bos_token", String::new()), ("eos_token", String::new())];
        let jinja = Jinja::compile(source, globals).unwrap();
        jinja.render(Value::from(())).unwrap_err().to_string()
    }

    #[test]
    fn a_text_that_does_not_end_is_ended() {
        let error = refusal("{% for i in range(9999) %}{{ 'long' * 9999 }}{% endfor %}");
        assert!(error.contains("more than 67108864 bytes"), "{error}");
    }

    #[test]
    fn an_indentation_of_any_width_is_refused() {
        let error = refusal("{{ [1] | tojson(indent=99999999999) }}");
        assert!(error.contains("indent"), "{error}");
    }

    #[test]
    fn a_template_that_does_not_end_is_ended() {
        let source =
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
        let globals = [("bos_token", String::new()), ("eos_token", String::new())];
        let mut jinja = Jinja::compile(source, globals).unwrap();
        assert_eq!(jinja.environment.fuel(), Some(MAX_STEPS));
        jinja.environment.set_fuel(Some(10_000));
        let error = jinja.render(Value::from(())).unwrap_err().to_string();
        assert!(error.contains("fuel"), "{error}");
    }
}
