//! Chat templates: compiled, and tried on a conversation, as the one in a model's file is when it is loaded.

use std::sync::LazyLock;

use engine::{Template, Tokenizer, tokenizer::Vocabulary};

pub(crate) const WORDS: &[&str] = &[
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "#}",
    "-%}",
    "{%-",
    " if ",
    " else ",
    " endif ",
    " for m in messages ",
    " endfor ",
    " set x = ",
    " macro f(a) ",
    " endmacro ",
    " break ",
    " continue ",
    "messages",
    "[0]",
    "['content']",
    ".get('role')",
    "tools",
    " | tojson",
    "(indent=4)",
    "(separators=(',', ':'))",
    "(ensure_ascii=True)",
    " | length",
    " | trim",
    " | join(', ')",
    " | replace('a', 'b')",
    "namespace(x=[])",
    "ns.x",
    ".append(1)",
    ".pop(0)",
    ".split(' ')",
    ".strip()",
    "raise_exception('no')",
    "range(9)",
    "loop.index",
    " is string",
    " is defined",
    " ~ ",
    " + ",
    " * ",
    " // 0",
    " % 0",
    " ~ ns.x",
    " * 99999",
    " | batch(99, 'x')",
    " | slice(9)",
    " | indent(9)",
    " | format(1)",
    "'%99d'",
    "'{:99}'.format(1)",
    " | string",
    " | pprint",
    " | sum",
    " | map('list')",
    " | groupby(0)",
    " set ns.x = ",
    " set x = x ~ x ",
    " set x = [x, x] ",
    " include 'chat_template' ",
    "*[1, 2]",
    "[::-1]",
    "[1:]",
    "'text'",
    "-1",
    "9223372036854775807",
    "1e308",
    "none",
    "true",
    "{'a': 1}",
    "(1, 2)",
    "<|im_end|>",
    "<think>",
    "tools_ts_str",
];

/// All of Kimi's that templates name.
const SPECIAL: [&str; 13] = [
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "<think>",
    "</think>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_end|>",
    "<|tool_call_argument_begin|>",
];

/// The smallest tokenizer that has Kimi's special tokens.
pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::new(Vocabulary::bytes(&SPECIAL)).expect("the tables are sound")
}

/// Without the special tokens, so that nothing stands in for a template that fails.
static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::new(Vocabulary::bytes(&[])).expect("the tables are sound"));

pub(crate) fn run(bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes);
    match Template::from_source(&source, &TOKENIZER) {
        Ok(template) => assert_eq!(template.name(), "jinja"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
