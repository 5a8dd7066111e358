//! A compiled template changed so that all it makes is counted: minijinja counts instructions, and one of them can
//! double a text. After each instruction that makes a value stands a call that counts it. It must not know what
//! counting is.

use minijinja::{
    Error as JinjaError, ErrorKind, Value,
    machinery::{Instruction, Instructions, Token, tokenize},
    syntax::SyntaxConfig,
};

/// What the calls are named. No template can say these names or store under them.
pub(super) const CONCAT: &str = "<concat>";
pub(super) const FACTORS: &str = "<factors>";
pub(super) const ASSIGN: &str = "<assign>";
/// The value alone is new, not what is in it.
pub(super) const MADE: &str = "<made>";
/// What is in the value may now be in it many times.
pub(super) const MADE_OF: &str = "<made of>";

/// A variable that is 1.
pub(super) const ONE: &str = "_one";

/// Filters that put what they are given into new lists.
const FILTERS_THAT_NEST: [&str; 6] = ["batch", "dictsort", "groupby", "items", "map", "slice"];

/// The same template, in which every product has a factor that is no constant: products of constants would be multiplied
/// while it is compiled, and uncounted.
pub(super) fn unfolded(source: &str, syntax: SyntaxConfig) -> Result<String, JinjaError> {
    let mut changed = String::with_capacity(source.len());
    let mut copied = 0;
    let mut follows_value = false;
    for token in tokenize(source, false, syntax) {
        let (token, span) = token?;
        // A star that follows no value stands before arguments.
        if matches!(token, Token::Mul) && follows_value {
            let end = span.end_offset as usize;
            changed.push_str(source.get(copied..end).unwrap_or_default());
            changed.push_str(&format!(" {ONE} *"));
            copied = end;
        }
        follows_value = matches!(
            token,
            Token::Ident(_)
                | Token::Str(_)
                | Token::String(_)
                | Token::Int(_)
                | Token::Int128(_)
                | Token::Float(_)
                | Token::ParenClose
                | Token::BracketClose
                | Token::BraceClose
        );
    }
    changed.push_str(source.get(copied..).unwrap_or_default());
    Ok(changed)
}

/// The same program, in which everything is counted.
pub(super) fn counted<'s>(code: &Instructions<'s>) -> Result<Instructions<'s>, JinjaError> {
    // Where each instruction, and the end, is found afterwards.
    let mut places = Vec::new();
    let mut place = 0;
    let mut at = 0;
    while let Some(instruction) = code.get(at) {
        places.push(place);
        place += u32::try_from(replacement(instruction)?.len()).unwrap_or(u32::MAX);
        at += 1;
    }
    places.push(place);
    let mut changed = Instructions::new(code.name(), code.source());
    let mut at = 0;
    while let Some(instruction) = code.get(at) {
        for mut instruction in replacement(instruction)? {
            if let Some(target) = target(&mut instruction) {
                *target = places.get(*target as usize).copied().unwrap_or(place);
            }
            match (code.get_span(at), code.get_line(at)) {
                (Some(span), _) => changed.add_with_span(instruction, span),
                (None, Some(line)) => {
                    changed.add_with_line(instruction, u16::try_from(line).unwrap_or(u16::MAX))
                }
                (None, None) => changed.add(instruction),
            };
        }
        at += 1;
    }
    Ok(changed)
}

fn replacement<'s>(instruction: &Instruction<'s>) -> Result<Vec<Instruction<'s>>, JinjaError> {
    use Instruction as I;
    let made = || I::CallFunction(MADE, Some(1));
    let made_of = || I::CallFunction(MADE_OF, Some(1));
    let same = instruction.clone();
    Ok(match instruction {
        // Goes through the formatter like every other text.
        I::EmitRaw(text) => vec![I::LoadConst(Value::from(*text)), I::Emit],
        I::StringConcat => vec![I::CallFunction(CONCAT, Some(2))],
        I::Mul => vec![I::CallFunction(FACTORS, Some(2)), I::UnpackList(2), same],
        I::SetAttr(name) => vec![
            I::LoadConst(Value::from(*name)),
            I::CallFunction(ASSIGN, Some(3)),
            I::DiscardTop,
        ],
        I::ApplyFilter(name, ..) if !FILTERS_THAT_NEST.contains(name) => vec![same, made()],
        I::CallMethod(..) | I::CallObject(_) | I::Slice => vec![same, made()],
        I::ApplyFilter(..)
        | I::CallFunction(..)
        | I::Add
        | I::BuildList(_)
        | I::BuildMap(_)
        | I::BuildTuple(_) => vec![same, made_of()],
        // The other template would be the file's own, uncounted.
        I::Include(_) | I::LoadBlocks => {
            return Err(JinjaError::new(
                ErrorKind::InvalidOperation,
                "a chat template cannot include, import or extend another",
            ));
        }
        _ => vec![same],
    })
}

/// The place that an instruction may go on at.
fn target<'i>(instruction: &'i mut Instruction<'_>) -> Option<&'i mut u32> {
    match instruction {
        Instruction::Iterate(to)
        | Instruction::Jump(to)
        | Instruction::JumpIfFalse(to)
        | Instruction::JumpIfFalseOrPop(to)
        | Instruction::JumpIfTrueOrPop(to)
        | Instruction::BuildMacro(_, to, _) => Some(to),
        _ => None,
    }
}
