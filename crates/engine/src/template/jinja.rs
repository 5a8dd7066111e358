//! Jinja as transformers sets it up for chat templates, and as much of Python as Kimi's templates use:
//! `json.dumps` for `tojson`, lists in namespaces that `append` and `pop` change. What a rendering may take is limited.
//! It must not know chat messages or tokens.

mod budget;
mod filters;
mod objects;
mod program;

use std::collections::BTreeMap;

use minijinja::{
    AutoEscape, Environment, Error as JinjaError, ErrorKind, State, Value, escape_formatter,
    machinery::{self, Instructions},
    syntax::SyntaxConfig,
};

use crate::Error;

/// The name the template goes by in error messages.
const NAME: &str = "chat_template";

/// Longest template taken; Kimi's are below 8 KiB.
const MAX_SOURCE: usize = 1 << 20;

/// Instructions a rendering may take; Kimi's templates take some hundred per message.
const MAX_STEPS: u64 = 10_000_000;

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
        let syntax = syntax.map_err(refused)?;
        let source = program::unfolded(source, syntax.clone()).map_err(refused)?;
        environment.set_syntax(syntax);
        environment.add_global(program::ONE, 1);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_formatter(|out, state, value| {
            match value.as_str() {
                Some(text) => budget::spend(state, text.len())?,
                None => drop(budget::text(state, &[value])?),
            }
            escape_formatter(out, state, value)
        });
        filters::add(&mut environment);
        environment.add_function("namespace", objects::namespace);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, JinjaError> {
                Err(JinjaError::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_function(program::ASSIGN, objects::assign);
        environment.add_function(program::CONCAT, concat);
        environment.add_function(program::FACTORS, factors);
        environment.add_function(program::MADE, |state: &mut State<'_, '_>, value: Value| {
            budget::made(state, &value).map(|()| value)
        });
        environment.add_function(
            program::MADE_OF,
            |state: &mut State<'_, '_>, value: Value| {
                budget::made_of(state, &value).map(|()| value)
            },
        );
        for (variable, text) in globals {
            environment.add_global(variable, text);
        }
        environment
            .add_template_owned(NAME, source)
            .map_err(refused)?;
        let jinja = Self { environment };
        jinja.with_program(|_, _, _| Ok(()))?;
        Ok(jinja)
    }

    pub(super) fn render(&self, context: Vec<(&'static str, Value)>) -> Result<String, Error> {
        let mut context: BTreeMap<_, _> = context.into_iter().collect();
        self.with_program(|source, main, blocks| {
            let budget = budget::of(source, &Value::from(context.clone()))?;
            context.insert(budget::VARIABLE, Value::from(budget));
            let mut text = String::new();
            machinery::eval(
                &self.environment,
                main,
                Value::from(context),
                blocks,
                &mut machinery::make_string_output(&mut text),
                AutoEscape::None,
            )?;
            Ok(text)
        })
    }

    /// Hands on the source, and its program with everything counted.
    fn with_program<'e, T>(
        &'e self,
        run: impl FnOnce(
            &str,
            &Instructions<'e>,
            &BTreeMap<&'e str, Instructions<'e>>,
        ) -> Result<T, JinjaError>,
    ) -> Result<T, Error> {
        let counted = || {
            let template = self.environment.get_template(NAME)?;
            let compiled = machinery::get_compiled_template(&template);
            let blocks = compiled
                .blocks
                .iter()
                .map(|(name, block)| Ok((*name, program::counted(block)?)))
                .collect::<Result<_, JinjaError>>()?;
            let main = program::counted(&compiled.instructions)?;
            run(template.source(), &main, &blocks)
        };
        counted().map_err(refused)
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

/// `~`: both as text.
fn concat(state: &mut State<'_, '_>, left: Value, right: Value) -> Result<Value, JinjaError> {
    budget::text(state, &[&left, &right]).map(Value::from)
}

/// `*`, before it multiplies: the product of a list or text and a number is paid for. Both are given back, the last
/// first.
fn factors(state: &mut State<'_, '_>, left: Value, right: Value) -> Result<Vec<Value>, JinjaError> {
    for (many, times) in [(&left, &right), (&right, &left)] {
        if let Some(times) = times.as_usize()
            && !many.is_number()
        {
            budget::made_times(state, many, times)?;
        }
    }
    Ok(vec![right, left])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn jinja(source: &str) -> Jinja {
        let globals = [("bos_token", String::new()), ("eos_token", String::new())];
        Jinja::compile(source, globals).unwrap()
    }

    fn refusal(source: &str) -> String {
        let rendered = jinja(source).render(Vec::new());
        rendered
            .map(|text| text.len())
            .expect_err(source)
            .to_string()
    }

    #[test]
    fn what_is_made_of_little_is_refused() {
        for source in [
            "{% for i in range(9999) %}{{ 'long' * 9999 }}{% endfor %}",
            "{% for i in range(99999) %}a long line in a loop {% endfor %}",
            "{% set x %}{% for i in range(99999) %}a long line that is captured {% endfor %}{% endset %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
            "{% set ns = namespace(x={}) %}{% for i in range(60) %}{% set ns.x = {1: ns.x, 2: ns.x} %}{% endfor %}",
            "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('x', 'xx') %}{% endfor %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x | replace('x', 'xx') %}{% endfor %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x.join([ns.x, ns.x]) %}{% endfor %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = '%s%s' | format(ns.x, ns.x) %}{% endfor %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}",
            "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}",
            "{% set ns = namespace(x='') %}{% for i in range(60000) %}{% set ns.x = ns.x ~ i %}{% endfor %}",
            "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{{ ns.l.append('a text' * 9) }}{% endfor %}",
            "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('a text') }}",
            "{{ 'x' * 99999999 }}",
            "{{ [1] * 99999999 }}",
            "{{ 99999999 * [1] }}",
            "{{ ([1] * 3000 * 3000) | tojson }}",
            "{{ 'x' * (9999 * 9999) ~ '' }}",
            "{% set x = ('x' * 9999) * 9999 %}",
            "{{ (['a text'] * 4000) | join('a long text between' * 4000) }}",
            "{{ [1] | batch(4000, 'a text' * 4000) }}",
            "{{ ([1] * 40000) | tojson(indent=64) ~ ([[[[1]]]] * 4000) | tojson(indent=64) }}",
        ] {
            let error = refusal(source);
            assert!(
                error.contains("bytes of text") || error.contains("JSON is too long"),
                "{source}: {error}"
            );
        }
    }

    #[test]
    fn widths_and_counts_that_make_much_of_nothing_are_refused() {
        for (source, words) in [
            ("{{ [1] | tojson(indent=99999999999) }}", "indent"),
            ("{{ 'a\nb' | indent(99999999999) }}", "indent"),
            ("{{ 'a\nb' | indent(width=99999999999) }}", "indent"),
            ("{{ '%99999999d' | format(1) }}", "width"),
            ("{{ '%*d' | format(99999999, 1) }}", "width"),
            ("{{ '{:99999999}'.format(1) }}", "width"),
            ("{{ [1] | batch(99999999, 1) }}", "count"),
            ("{{ [1] | slice(99999999) }}", "count"),
            ("{{ ['a', 'b'] | sum(start='') }}", "number"),
            ("{{ [1] | chain([1]) }}", "chain"),
        ] {
            let error = refusal(source);
            assert!(error.contains(words), "{source}: {error}");
        }
    }

    #[test]
    fn nothing_holds_itself_or_nests_without_end() {
        for (source, words) in [
            (
                "{% set ns = namespace(x=[]) %}{% do ns.x.append(ns.x) %}",
                "another",
            ),
            (
                "{% set ns = namespace(x=[]) %}{% do ns.x.append([ns]) %}",
                "another",
            ),
            (
                "{% set ns = namespace() %}{% set ns.x = {'a': [ns]} %}",
                "another",
            ),
            (
                "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
                "deep",
            ),
            (
                "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = ns.x | batch(1) %}{% endfor %}",
                "deep",
            ),
        ] {
            // A longer template may make more.
            let error = refusal(&format!("{source}{{# {} #}}", " ".repeat(9999)));
            assert!(error.contains(words), "{source}: {error}");
        }
    }

    #[test]
    fn no_template_runs_uncounted() {
        for source in [
            "{% include 'chat_template' %}",
            "{% extends 'chat_template' %}",
            "{% import 'chat_template' as t %}",
        ] {
            let globals = [("bos_token", String::new()), ("eos_token", String::new())];
            let error = Jinja::compile(source, globals).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("cannot include"), "{error}");
        }
    }

    /// What stands between instructions must not change what they do.
    #[test]
    fn counting_changes_nothing_else() {
        let source = "{% macro m(a, b='y') %}<{{ a }}{{ b }}{{ caller() if caller }}>{% endmacro %}\
            {%- set ns = namespace(n=0, l=[3, 1]) %}\
            {%- for i in [1, 2, 3] if i != 2 %}{% set ns.n = ns.n + i %}{{ loop.index }}:{{ i * 2 }} \
            {%- else %}none{% endfor %}\
            {%- do ns.l.append('a') %} {{ ns.l }} {{ ns.n }} {{ ns.l.pop(0) }} {{ ns.l[1:] }}\
            {%- for row in [[1, [2]], [3]] recursive %}({{ loop(row) if row is iterable else row }}){% endfor %}\
            {%- set x %}captured{% endset %} {{ x | upper }} {{ x[:3] ~ 1 ~ none }} {{ '-' * 3 }}{{ 2 * 3 ** 2 / 4 * -2 }}{{ range(*[2]) | list }}\
            {%- call m('x', b='z') %}c{% endcall %}{{ m('x') }} {{ undefined_thing or 'other' | trim }}\
            {%- set a, b = (1, [2] * 2) %} {{ a }}{{ b }} {{ ['a', 'b'] | join('/') }} {{ {'k': [1]} | tojson }}\
            {%- block tail %} tail{{ 3 * 4 }}{% endblock %}";
        let expected = "1:22:6 [3, 1, 'a'] 4 3 ['a']((1)((2)))((3)) CAPTURED cap1None ----9.0[0, 1]<xzc><xy> other 1[2, 2] a/b {\"k\": [1]} tail12";
        let counted = jinja(source).render(Vec::new()).unwrap();
        assert_eq!(counted, expected);
    }

    #[test]
    fn an_error_names_the_line() {
        let error = refusal("one\ntwo {{ 'x' ~ 'y' }}\n{{ 'z' * 2 }}{{ 1 + 'x' }}\n");
        assert!(error.contains("chat_template:3"), "{error}");
    }

    #[test]
    fn a_template_that_does_not_end_is_ended() {
        let source = "{% for i in range(99) %}{% for j in range(9999) %}{% endfor %}{% endfor %}";
        let mut jinja = jinja(source);
        assert_eq!(jinja.environment.fuel(), Some(MAX_STEPS));
        jinja.environment.set_fuel(Some(10_000));
        let error = jinja.render(Vec::new()).unwrap_err().to_string();
        assert!(error.contains("fuel"), "{error}");
    }
}
