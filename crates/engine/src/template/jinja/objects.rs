//! Namespaces and lists that a template changes, as Python has them. None can come to hold itself, however far down: it
//! could be neither written nor given back. It must not know chat messages or tokens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minijinja::{
    Error as JinjaError, ErrorKind, State, Value,
    value::{Enumerator, Kwargs, Object, ObjectRepr, ValueKind, from_args},
};

use super::budget;

/// Jinja's namespace, but its lists can be changed.
#[derive(Debug)]
struct Namespace(Mutex<BTreeMap<String, Value>>);

impl Namespace {
    fn fields(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for Namespace {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.fields().get(key.as_str()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.fields().keys().map(Value::from).collect())
    }
}

/// `namespace(…)`: of a mapping, of names, or of both.
pub(super) fn namespace(fields: Option<Value>, names: Kwargs) -> Result<Value, JinjaError> {
    let mut all = BTreeMap::new();
    if let Some(fields) = fields {
        if fields.kind() != ValueKind::Map {
            let words = format!("namespace of a {}, not a mapping", fields.kind());
            return Err(JinjaError::new(ErrorKind::InvalidOperation, words));
        }
        for key in fields.try_iter()? {
            all.insert(key.to_string(), fields.get_item(&key)?);
        }
    }
    for name in names.args() {
        all.insert(name.to_owned(), names.get(name)?);
    }
    for value in all.values_mut() {
        if value.kind() == ValueKind::Seq {
            let items = value.try_iter()?.collect();
            *value = Value::from_object(List(Mutex::new(items)));
        }
    }
    names.assert_all_used()?;
    Ok(Value::from_object(Namespace(Mutex::new(all))))
}

/// `set namespace.name = value`.
pub(super) fn assign(value: Value, namespace: Value, name: String) -> Result<(), JinjaError> {
    let Some(namespace) = namespace.downcast_object_ref::<Namespace>() else {
        let words = format!("can only assign to namespaces, not {}", namespace.kind());
        return Err(JinjaError::new(ErrorKind::InvalidOperation, words));
    };
    holds_none(&value, "namespace", is_namespace)?;
    namespace.fields().insert(name, value);
    Ok(())
}

fn is_namespace(value: &Value) -> bool {
    value.downcast_object_ref::<Namespace>().is_some()
}

fn is_changeable(value: &Value) -> bool {
    is_namespace(value) || value.downcast_object_ref::<List>().is_some()
}

fn holds_none(value: &Value, what: &str, is_one: fn(&Value) -> bool) -> Result<(), JinjaError> {
    budget::walk(value, 0, &mut |value| match is_one(value) {
        true => Err(JinjaError::new(
            ErrorKind::InvalidOperation,
            format!("a {what} of a namespace cannot be kept in another"),
        )),
        false => Ok(()),
    })
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
        state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, JinjaError> {
        match method {
            "append" => {
                let (item,): (Value,) = from_args(args)?;
                holds_none(&item, "list", is_changeable)?;
                budget::made_of(state, &item)?;
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
