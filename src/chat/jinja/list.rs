//! Lists that a template changes in place, as Python's can be and this engine's own cannot: those that a `namespace`
//! is made with.

use minijinja::{
    Error, ErrorKind, State, Value, functions,
    value::{Enumerator, Object, ObjectRepr, ValueKind, ValueOrKwargs, from_args},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `namespace(...)` with its lists made changeable.
pub fn namespace(defaults: Option<ValueOrKwargs>) -> Result<Value, Error> {
    let Some(defaults) = defaults else {
        return functions::namespace(None);
    };
    let defaults: Value = defaults.into_value();
    if defaults.kind() != ValueKind::Map {
        return functions::namespace(Some(defaults.into()));
    }
    let mut members = Vec::new();
    for key in defaults.try_iter()? {
        let value = defaults.get_item(&key)?;
        let value = match value.kind() {
            ValueKind::Seq => Value::from_object(List(Mutex::new(value.try_iter()?.collect()))),
            _ => value,
        };
        members.push((key, value));
    }
    functions::namespace(Some(Value::from_pairs(members).into()))
}

#[derive(Debug, Default)]
struct List(Mutex<Vec<Value>>);

impl List {
    fn items(&self) -> MutexGuard<'_, Vec<Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Texts, numbers and the like: a list cannot come to hold itself, which would never be printed.
    fn append(&self, item: Value) -> Result<(), Error> {
        let is_plain = matches!(
            item.kind(),
            ValueKind::String | ValueKind::Number | ValueKind::Bool | ValueKind::None
        );
        if !is_plain {
            return Err(invalid(format!("append takes no {}", item.kind())));
        }
        self.items().push(item);
        Ok(())
    }

    /// The item at `at`, counted from the end where it is negative.
    fn pop(&self, at: i64) -> Result<Value, Error> {
        let mut items = self.items();
        let n = items.len();
        let index = usize::try_from(if at < 0 {
            at.saturating_add(n as i64)
        } else {
            at
        });
        match index {
            Ok(index) if index < n => Ok(items.remove(index)),
            _ => Err(invalid(format!("pop({at}) from a list of {n}"))),
        }
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
        Enumerator::Seq(self.items().len())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "append" => {
                let (item,) = from_args(args)?;
                self.append(item).map(Value::from)
            }
            "pop" => {
                let (at,): (Option<i64>,) = from_args(args)?;
                self.pop(at.unwrap_or(-1))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
mod tests {
    use crate::chat::{Message, RenderInput, Role, Template};

    fn rendered(source: &str) -> Result<String, String> {
        let template = Template::parse_jinja(source, "", "").expect("a template");
        let messages = [Message::new(Role::User, "x")];
        let now = chrono::NaiveDateTime::default();
        let input = RenderInput {
            messages: &messages,
            tools: &[],
            think: None,
            now,
        };
        template.render(&input).map_err(|e| e.to_string())
    }

    #[test]
    fn lists_of_a_namespace_change_in_place() {
        let begin = "{% set ns = namespace(ids=['a'], n=1) %}{% set _ = ns.ids.append('b') %}{% set _ = ns.ids.append(3) %}";
        for (rest, expected) in [
            ("{{ ns.ids }}", "['a', 'b', 3]"),
            ("{{ ns.ids | tojson }}", "[\"a\", \"b\", 3]"),
            (
                "{{ ns.ids.pop(0) }}{{ ns.ids.pop() }}{{ ns.ids | length }}",
                "a31",
            ),
            ("{{ ns.ids.pop(-2) }}{{ ns.ids[0] }}{{ ns.ids[-1] }}", "ba3"),
            (
                "{{ 'b' in ns.ids }}{% for i in ns.ids %}{{ i }}{% endfor %}",
                "Trueab3",
            ),
            (
                "{% set ns.ids = ns.ids + ['c'] %}{{ ns.ids | join('') }}",
                "ab3c",
            ),
            ("{{ ns.ids.count('a') }}{{ ns.n }}", "11"),
            (
                "{% set _ = ns.ids.pop() %}{% set _ = ns.ids.pop() %}{% set _ = ns.ids.pop() %}{% if not ns.ids %}empty{% endif %}",
                "empty",
            ),
        ] {
            assert_eq!(
                rendered(&format!("{begin}{rest}")),
                Ok(expected.into()),
                "{rest}"
            );
        }
    }

    #[test]
    fn what_cannot_be_done_is_an_error() {
        for (source, part) in [
            (
                "{% set ns = namespace(l=[]) %}{% set _ = ns.l.append(ns.l) %}",
                "append takes no sequence",
            ),
            (
                "{% set ns = namespace(l=[]) %}{% set _ = ns.l.append(ns) %}",
                "append takes no",
            ),
            (
                "{% set ns = namespace(l=[]) %}{{ ns.l.pop() }}",
                "pop(-1) from a list of 0",
            ),
            (
                "{% set ns = namespace(l=[1]) %}{{ ns.l.pop(5) }}",
                "pop(5) from a list of 1",
            ),
            ("{{ namespace(3) }}", "expected object"),
        ] {
            let error = rendered(source).expect_err(source);
            assert!(error.contains(part), "{error}");
        }
    }
}
