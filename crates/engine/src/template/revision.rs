//! What differs between the chat templates that Moonshot published with the revisions of Kimi: one row
//! each. All write turns as `<|im_X|>name<|im_middle|>text<|im_end|>`. It must not know tokens.

/// How a revision words a conversation.
#[derive(Debug)]
pub(super) struct Revision {
    /// What `--chat-template` calls it.
    pub(super) name: &'static str,
    /// What the model is told when the conversation does not start with a system message.
    pub(super) default_system: Option<&'static str>,
    pub(super) tools: Tools,
    /// Whether a turn shows its speaker's name instead of the role.
    pub(super) names: bool,
    /// Between the head and the text of a system or tool turn.
    pub(super) system_gap: &'static str,
    /// Between `## Return of ID` and a tool's result; `None` writes the result alone.
    pub(super) result_gap: Option<&'static str>,
    pub(super) calls: Calls,
    /// Whether an assistant's turn begins with `<think>…</think>`.
    pub(super) thoughts: bool,
    /// Whether the answer's turn is opened with `<think>`, or with `<think></think>` when the client
    /// wants no thoughts.
    pub(super) opens_thoughts: bool,
}

/// How the calls of an assistant are written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// Not at all.
    Dropped,
    /// Under ids that count from 0 in every turn, their arguments as one JSON string.
    Recounted,
    /// As they were made.
    AsMade,
}

/// How tools are declared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tools {
    /// As JSON with Python's blanks.
    Json,
    /// The same under a title.
    TitledJson,
    /// As JSON without blanks.
    CompactJson,
    /// As TypeScript types, or as compact JSON where their schema is beyond that; keys sorted.
    TypeScript,
}

const KIMI: &str = "You are Kimi, an AI assistant created by Moonshot AI.";

const INSTRUCT: Revision = Revision {
    name: "kimi-k2-instruct",
    default_system: Some(KIMI),
    tools: Tools::TitledJson,
    names: true,
    system_gap: "",
    result_gap: Some("\n    "),
    calls: Calls::AsMade,
    thoughts: false,
    opens_thoughts: false,
};

/// In order of publication, but the one for files that do not say what they are comes first.
pub(super) const REVISIONS: [Revision; 6] = [
    INSTRUCT,
    Revision {
        name: "kimi-k2-instruct-0711",
        default_system: Some("You are a helpful assistant"),
        tools: Tools::Json,
        names: false,
        result_gap: None,
        calls: Calls::Dropped,
        ..INSTRUCT
    },
    // Its `\n` stands outside of Jinja's braces, so that the model reads a backslash and an n.
    Revision {
        name: "kimi-k2-instruct-0715",
        default_system: Some("You are a helpful assistant"),
        tools: Tools::Json,
        names: false,
        result_gap: Some(r"\n"),
        calls: Calls::Recounted,
        ..INSTRUCT
    },
    // A line break got into the template after the heads of system and tool turns, until 0905.
    Revision {
        name: "kimi-k2-instruct-newline",
        system_gap: "\n",
        ..INSTRUCT
    },
    Revision {
        name: "kimi-k2-thinking",
        tools: Tools::CompactJson,
        result_gap: Some("\n"),
        thoughts: true,
        ..INSTRUCT
    },
    Revision {
        name: "kimi-k2.5",
        default_system: None,
        tools: Tools::TypeScript,
        result_gap: Some("\n"),
        thoughts: true,
        opens_thoughts: true,
        ..INSTRUCT
    },
];

/// The revision of that name.
pub(super) fn named(name: &str) -> Option<&'static Revision> {
    REVISIONS.iter().find(|revision| revision.name == name)
}

/// The revision a template's source belongs to.
pub(super) fn of_source(source: &str) -> &'static Revision {
    let mark = |mark: &str| source.contains(mark);
    let name = if mark(super::TOOLS_AS_TYPESCRIPT) {
        "kimi-k2.5"
    } else if mark("<think>") {
        "kimi-k2-thinking"
    } else if mark("You are a helpful assistant") {
        if mark("<|tool_calls_section_begin|>") {
            "kimi-k2-instruct-0715"
        } else {
            "kimi-k2-instruct-0711"
        }
    } else {
        "kimi-k2-instruct"
    };
    named(name).unwrap_or(&REVISIONS[0])
}

/// The revision a model's name belongs to.
pub(super) fn of_model(name: &str) -> &'static Revision {
    let name = name.to_lowercase();
    let found = if ["k2.5", "k2.6", "k2.7"]
        .iter()
        .any(|mark| name.contains(mark))
    {
        "kimi-k2.5"
    } else if name.contains("thinking") {
        "kimi-k2-thinking"
    } else {
        "kimi-k2-instruct"
    };
    named(found).unwrap_or(&REVISIONS[0])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn models_and_sources_find_their_revision() {
        for (model, revision) in [
            ("Kimi-K2-Instruct-0905", "kimi-k2-instruct"),
            ("Kimi K2 Thinking", "kimi-k2-thinking"),
            ("Kimi-K2.5", "kimi-k2.5"),
            ("something else", "kimi-k2-instruct"),
        ] {
            assert_eq!(of_model(model).name, revision, "{model}");
        }
        for (source, revision) in [
            ("{{ tools_ts_str }}<think>", "kimi-k2.5"),
            ("<think></think>", "kimi-k2-thinking"),
            (
                "You are a helpful assistant<|im_end|>",
                "kimi-k2-instruct-0711",
            ),
            (
                "You are a helpful assistant<|im_end|><|tool_calls_section_begin|>",
                "kimi-k2-instruct-0715",
            ),
            ("", "kimi-k2-instruct"),
        ] {
            assert_eq!(of_source(source).name, revision, "{source}");
        }
        for revision in &REVISIONS {
            assert_eq!(named(revision.name).unwrap().name, revision.name);
        }
    }
}
