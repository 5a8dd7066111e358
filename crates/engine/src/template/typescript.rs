//! Tool declarations as the TypeScript types that Kimi-K2.5 and later were trained to read: what
//! Moonshot's tokenizer hands to the template as `tools_ts_str`. Where its encoder raises an exception
//! there are no types here either, and the template falls back to JSON. It must not know tokens.

use serde_json::{Map, Value};

use super::json::{self, python_float};
use crate::Error;

const INDENT: &str = "  ";

/// Tools as K2.5's tokenizer prepares them.
pub(super) struct Declared {
    /// `None` where the schema is beyond the encoder.
    pub(super) types: Option<String>,
    /// The tools with all keys sorted.
    pub(super) json: String,
}

impl Declared {
    pub(super) fn read(tools: &str) -> Result<Self, Error> {
        let tools: Value = serde_json::from_str(tools)
            .map_err(|error| Error::Template(format!("tools are not JSON: {error}")))?;
        let tools = sorted(&tools);
        Ok(Self {
            types: types(&tools).filter(|types| !types.is_empty()),
            json: tools.to_string(),
        })
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let sorted = entries
                .into_iter()
                .map(|(key, value)| (key.clone(), sorted(value)));
            Value::Object(sorted.collect())
        }
        other => other.clone(),
    }
}

fn types(tools: &Value) -> Option<String> {
    let mut functions = Vec::new();
    for tool in tools.as_array()? {
        let tool = tool.as_object()?;
        if tool.get("type").and_then(Value::as_str) != Some("function") {
            continue;
        }
        match tool.get("function") {
            Some(Value::Object(declared)) if !declared.is_empty() => {
                functions.push(function(declared)?);
            }
            other if is_falsy(other) => {}
            _ => return None,
        }
    }
    if functions.is_empty() {
        return Some(String::new());
    }
    let functions = functions.join("\n");
    Some(format!(
        "# Tools\n\n## functions\nnamespace functions {{\n{functions}\n}}\n"
    ))
}

fn function(declared: &Map<String, Value>) -> Option<String> {
    let none = Map::new();
    let parameters = match declared.get("parameters") {
        Some(Value::Object(parameters)) => parameters,
        other if is_falsy(other) => &none,
        _ => return None,
    };
    let mut registry = Registry::default();
    let parameters = Object::parse(parameters, &mut registry)?;

    let is_root = registry.self_ref;
    let mut parts = Vec::new();
    if is_root {
        let fields: Option<Vec<String>> = parameters
            .properties
            .iter()
            .map(|property| property.typescript(INDENT))
            .collect();
        let fields = match fields?.join(",\n") {
            fields if fields.is_empty() => fields,
            fields => format!("\n{fields}\n"),
        };
        parts.push(format!("interface parameters {{{fields}}}"));
    }
    for (name, schema) in registry.definitions.clone() {
        let body = Type::parse(&schema, &mut registry)?.typescript("")?;
        let description = match description(schema.as_object()?)? {
            description if description.is_empty() => description,
            description => comment(&description, "") + "\n",
        };
        parts.push(format!("{description}interface {name} {body}"));
    }
    let about = description(declared)?;
    if !about.is_empty() {
        parts.push(comment(&about, ""));
    }
    let name = match declared.get("name") {
        None => "function",
        Some(name) => name.as_str()?,
    };
    let taken = if is_root {
        "parameters".to_owned()
    } else {
        parameters.typescript("")?
    };
    parts.push(format!("type {name} = (_: {taken}) => any;"));
    Some(parts.join("\n"))
}

/// What schemas refer to.
#[derive(Default)]
struct Registry {
    definitions: Vec<(String, Value)>,
    /// Whether something refers to the parameters as a whole.
    self_ref: bool,
}

impl Registry {
    fn define(&mut self, name: &str, schema: &Value) {
        match self.definitions.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = schema.clone(),
            None => self.definitions.push((name.to_owned(), schema.clone())),
        }
    }
}

struct Type {
    description: String,
    /// `maximum: 5`, sorted.
    constraints: Vec<String>,
    kind: Kind,
}

enum Kind {
    /// Written as it is.
    Plain(String),
    Object(Object),
    Array(Option<Box<Type>>),
    AnyOf(Vec<Type>),
}

struct Object {
    properties: Vec<Property>,
    additional: Option<Additional>,
}

/// What other keys an object may have.
enum Additional {
    Any,
    Never,
    Of(Box<Type>),
}

struct Property {
    name: String,
    kind: Type,
    optional: bool,
    default: Option<Value>,
}

impl Type {
    fn parse(schema: &Value, registry: &mut Registry) -> Option<Self> {
        let schema = match schema {
            Value::Bool(true) => return Some(Self::bare("any")),
            Value::Bool(false) => return Some(Self::bare("null")),
            Value::Object(schema) if schema.is_empty() => return Some(Self::bare("any")),
            Value::Object(schema) => schema,
            _ => return None,
        };
        let (kind, constrained): (Kind, &[&str]) = if let Some(to) = schema.get("$ref") {
            (Kind::Plain(reference(to.as_str()?, registry)?), &[])
        } else if let Some(types) = schema.get("anyOf") {
            let types = types.as_array()?.iter();
            let types: Option<Vec<Self>> = types.map(|kind| Self::parse(kind, registry)).collect();
            (Kind::AnyOf(types?), &[])
        } else if let Some(values) = schema.get("enum") {
            (
                Kind::Plain(enumeration(values.as_array()?, schema.get("type"))?),
                &[],
            )
        } else {
            match schema.get("type")? {
                Value::Array(types) => (Kind::Plain(union(types)?), &[]),
                Value::String(name) => match name.as_str() {
                    "object" => (Kind::Object(Object::parse(schema, registry)?), &[]),
                    "array" => {
                        let items = schema.get("items").filter(|items| !is_falsy(Some(items)));
                        let item = match items {
                            None => None,
                            Some(items) => Some(Box::new(Self::parse(items, registry)?)),
                        };
                        (Kind::Array(item), &["maxItems", "minItems"])
                    }
                    "string" => (
                        Kind::Plain(name.clone()),
                        &["maxLength", "minLength", "pattern"],
                    ),
                    "integer" => (Kind::Plain("number".to_owned()), &["maximum", "minimum"]),
                    "number" => (Kind::Plain(name.clone()), &["maximum", "minimum"]),
                    _ => (Kind::Plain(name.clone()), &[]),
                },
                _ => return None,
            }
        };
        let mut constraints = Vec::new();
        for key in constrained {
            if let Some(value) = schema.get(*key) {
                constraints.push(format!("{key}: {}", python(value)?));
            }
        }
        Some(Self {
            description: description(schema)?,
            constraints,
            kind,
        })
    }

    fn bare(name: &str) -> Self {
        Self {
            description: String::new(),
            constraints: Vec::new(),
            kind: Kind::Plain(name.to_owned()),
        }
    }

    /// Comment lines that stand before the type.
    fn docs(&self, indent: &str) -> String {
        let mut docs = String::new();
        if !self.description.is_empty() {
            docs = comment(&self.description, indent) + "\n";
        }
        if !self.constraints.is_empty() {
            docs += &format!("{indent}// {}\n", self.constraints.join(", "));
        }
        docs
    }

    fn typescript(&self, indent: &str) -> Option<String> {
        match &self.kind {
            Kind::Plain(text) => Some(text.clone()),
            Kind::Object(object) => object.typescript(indent),
            Kind::AnyOf(types) => {
                let types: Option<Vec<String>> =
                    types.iter().map(|kind| kind.typescript(indent)).collect();
                Some(types?.join(" | "))
            }
            Kind::Array(None) => Some("Array<any>".to_owned()),
            Kind::Array(Some(item)) => {
                let inner = format!("{indent}{INDENT}");
                let docs = item.docs(&inner);
                if docs.is_empty() {
                    return Some(format!("Array<{}>", item.typescript(indent)?));
                }
                let item = item.typescript(&inner)?;
                Some(format!("Array<\n{docs}{inner}{item}\n{indent}>"))
            }
        }
    }
}

impl Object {
    fn parse(schema: &Map<String, Value>, registry: &mut Registry) -> Option<Self> {
        match schema.get("$defs") {
            Some(Value::Object(definitions)) => {
                for (name, schema) in definitions {
                    registry.define(name, schema);
                }
            }
            other if is_falsy(other) => {}
            _ => return None,
        }
        let additional = match schema.get("additionalProperties") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(true)) => Some(Additional::Any),
            Some(Value::Bool(false)) => Some(Additional::Never),
            Some(other @ Value::Object(_)) => {
                Some(Additional::Of(Box::new(Type::parse(other, registry)?)))
            }
            Some(_) => return None,
        };
        let mut properties = Vec::new();
        if let Some(declared) = schema.get("properties") {
            let required = match schema.get("required") {
                None => &[][..],
                Some(required) => required.as_array()?,
            };
            for (name, schema) in declared.as_object()? {
                properties.push(Property {
                    name: name.clone(),
                    kind: Type::parse(schema, registry)?,
                    optional: !required.iter().any(|known| known.as_str() == Some(name)),
                    default: schema.get("default").filter(|it| !it.is_null()).cloned(),
                });
            }
        }
        Some(Self {
            properties,
            additional,
        })
    }

    /// Required properties first.
    fn typescript(&self, indent: &str) -> Option<String> {
        let inner = format!("{indent}{INDENT}");
        let mut properties: Vec<&Property> = self.properties.iter().collect();
        properties.sort_by_key(|property| (property.optional, &property.name));
        let mut fields = Vec::new();
        for property in properties {
            fields.push(property.typescript(&inner)?);
        }
        let others = match &self.additional {
            None => None,
            Some(Additional::Any) => Some("any".to_owned()),
            Some(Additional::Never) => Some("never".to_owned()),
            Some(Additional::Of(kind)) => Some(kind.typescript(&inner)?),
        };
        fields.extend(others.map(|kind| format!("{inner}[k: string]: {kind}")));
        if fields.is_empty() {
            return Some("{}".to_owned());
        }
        Some(format!("{{\n{}\n{indent}}}", fields.join(",\n")))
    }
}

impl Property {
    fn typescript(&self, indent: &str) -> Option<String> {
        let mut text = self.kind.docs(indent);
        if let Some(default) = &self.default {
            let default = match default {
                Value::Bool(_) | Value::Number(_) => python(default)?,
                other => {
                    let other = json::parse(&other.to_string(), &str::to_owned).ok()?;
                    json::dumps(&other, &json::Style::default()).ok()?
                }
            };
            text += &format!("{indent}// Default: {default}\n");
        }
        let Self { name, kind, .. } = self;
        let mark = if self.optional { "?" } else { "" };
        text += &format!("{indent}{name}{mark}: {}", kind.typescript(indent)?);
        Some(text)
    }
}

fn reference(to: &str, registry: &mut Registry) -> Option<String> {
    if to == "#" {
        registry.self_ref = true;
        return Some("parameters".to_owned());
    }
    to.strip_prefix("#/$defs/")?;
    let name = to.rsplit('/').next()?;
    let (_, schema) = registry
        .definitions
        .iter()
        .find(|(known, _)| known == name)?;
    schema.as_object().map(|_| name.to_owned())
}

/// The values, when they are of the declared type.
fn enumeration(values: &[Value], declared: Option<&Value>) -> Option<String> {
    let declared = match declared {
        None => "",
        Some(Value::Array(types)) => match &types[..] {
            [one] => one.as_str()?,
            [one, null] | [null, one] if null.as_str() == Some("null") => one.as_str()?,
            _ => return None,
        },
        Some(one) => one.as_str()?,
    };
    let fits = |value: &Value| match declared {
        _ if value.is_null() => true,
        "string" => value.is_string(),
        // Python's booleans are integers.
        "number" => value.is_number() || value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.is_boolean(),
        "boolean" => value.is_boolean(),
        _ => true,
    };
    if !values.iter().all(fits) {
        return None;
    }
    let values: Option<Vec<String>> = values
        .iter()
        .map(|value| match value {
            Value::String(text) => Some(format!("\"{text}\"")),
            other => python(other),
        })
        .collect();
    Some(values?.join(" | "))
}

fn union(types: &[Value]) -> Option<String> {
    let types: Option<Vec<&str>> = types
        .iter()
        .map(|name| match name.as_str()? {
            "string" => Some("string"),
            "number" | "integer" => Some("number"),
            "boolean" => Some("boolean"),
            "null" => Some("null"),
            "object" => Some("{}"),
            "array" => Some("Array<any>"),
            _ => None,
        })
        .collect();
    Some(types?.join(" | "))
}

fn description(schema: &Map<String, Value>) -> Option<String> {
    match schema.get("description") {
        Some(Value::String(text)) => Some(text.clone()),
        other if is_falsy(other) => Some(String::new()),
        _ => None,
    }
}

fn comment(text: &str, indent: &str) -> String {
    let line = |line: &str| match line {
        "" => String::new(),
        line => format!("{indent}// {line}"),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A scalar as Python's `str` writes it.
fn python(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("None".to_owned()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Number(number) if number.is_f64() => number.as_f64().map(python_float),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether Python takes the value for false.
fn is_falsy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Bool(true)) => false,
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(entries)) => entries.is_empty(),
    }
}
