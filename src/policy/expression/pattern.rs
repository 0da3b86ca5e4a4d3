//! Patterns of `matches()`: compiled once, with their rule, to read each byte of a text once.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelBool, CelString, STRING_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};
use regex_automata::dfa::Automaton;
use regex_automata::dfa::{StartKind, dense};
use regex_automata::nfa::thompson::{NFA, WhichCaptures};
use regex_automata::{Input, util::syntax};
use std::any::Any;
use std::sync::{Arc, LazyLock};

/// The function that takes a pattern.
pub(super) const MATCHES: &str = "matches";
/// Maximum length of a text in bytes. The longest URI of a certificate has half as many.
pub(super) const MAX_SUBJECT_BYTES: usize = 4096;
/// Maximum number of different patterns of one rule.
const MAX_PATTERNS: usize = 8;
/// Maximum number of large patterns of one rule. Each takes some 20 ms to compile.
const MAX_LARGE_PATTERNS: usize = 2;
/// A pattern is large if its automaton takes more bytes.
const LARGE_BYTES: usize = 64 << 10;
/// Maximum depth of nested groups.
const MAX_GROUP_DEPTH: u32 = 32;
/// Maximum size of a pattern as a list of states (NFA).
const NFA_BYTES: usize = 512 << 10;
/// Maximum size of a pattern as a table of state sets (DFA).
const DFA_BYTES: usize = 256 << 10;

pub(super) const TOO_LONG: &str = "a text given to matches() has more than 4096 bytes";
pub(super) const NOT_ASCII: &str = "its pattern is too large to match a text that is not ASCII";

static PATTERN_TYPE: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("pattern"));

/// A compiled pattern. Expressions refer to it by a variable whose name no author can write.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    automaton: Arc<dense::DFA<Vec<u32>>>,
    /// Whether it matches text in ASCII only, because it is too large otherwise.
    is_for_ascii: bool,
}

impl Pattern {
    /// Compiles a pattern as the regex crate reads it, or returns the remedy.
    fn compile(text: &str) -> Result<Self, String> {
        let syntax = syntax::Config::new().nest_limit(MAX_GROUP_DEPTH);
        syntax::parse_with(text, &syntax)
            .map_err(|error| format!("'{text}' not a valid regex: {error}"))?;
        let too_large = |bytes: usize| {
            format!(
                "the pattern '{text}' takes more than {} KiB compiled: write it shorter, with [0-9a-z_] instead of \\w, \
                 and with fewer repetitions",
                bytes >> 10
            )
        };
        let of_all = states(text, syntax, true).ok_or_else(|| too_large(NFA_BYTES))?;
        if let Some(automaton) = automaton(&of_all) {
            return Ok(Self {
                automaton,
                is_for_ascii: false,
            });
        }
        // For text in ASCII the pattern means the same without the letters of all scripts.
        let of_bytes = states(text, syntax.unicode(false).utf8(false), false);
        let automaton = of_bytes.and_then(|states| automaton(&states));
        let automaton = automaton.ok_or_else(|| too_large(DFA_BYTES))?;
        Ok(Self {
            automaton,
            is_for_ascii: true,
        })
    }

    fn is_large(&self) -> bool {
        self.is_for_ascii || self.automaton.memory_usage() > LARGE_BYTES
    }

    fn matches(&self, subject: &str) -> Result<bool, &'static str> {
        if subject.len() > MAX_SUBJECT_BYTES {
            return Err(TOO_LONG);
        }
        if self.is_for_ascii && !subject.is_ascii() {
            return Err(NOT_ASCII);
        }
        let input = Input::new(subject).earliest(true);
        let found = self.automaton.try_search_fwd(&input);
        // A pattern with \b stops at bytes outside ASCII.
        Ok(found.map_err(|_| NOT_ASCII)?.is_some())
    }
}

fn states(pattern: &str, syntax: syntax::Config, is_utf8: bool) -> Option<NFA> {
    let config = NFA::config()
        .utf8(is_utf8)
        .nfa_size_limit(Some(NFA_BYTES))
        .which_captures(WhichCaptures::None);
    let mut compiler = NFA::compiler();
    compiler.configure(config).syntax(syntax);
    compiler.build(pattern).ok()
}

fn automaton(states: &NFA) -> Option<Arc<dense::DFA<Vec<u32>>>> {
    let config = dense::Config::new()
        .start_kind(StartKind::Unanchored)
        .unicode_word_boundary(true)
        .dfa_size_limit(Some(DFA_BYTES))
        .determinize_size_limit(Some(DFA_BYTES));
    let built = dense::Builder::new()
        .configure(config)
        .build_from_nfa(states);
    built.ok().map(Arc::new)
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &PATTERN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// The functions of CEL, with `matches()` for compiled patterns.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    let pattern = || vec![Type::new_opaque_type("pattern")];
    env.add_member_overload(MATCHES, "pattern", STRING_TYPE, pattern(), matches)
        .expect("the type is not the library's");
    env
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the interpreter hands them over"
)]
fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let error = |message: &str| ExecutionError::FunctionError {
        function: MATCHES.into(),
        message: message.into(),
    };
    let [subject, pattern] = arguments.as_slice() else {
        return Err(error("it takes one pattern"));
    };
    let subject = subject.downcast_ref::<CelString<'_>>();
    let pattern = pattern.downcast_ref::<Pattern>();
    let (Some(subject), Some(pattern)) = (subject, pattern) else {
        return Err(error("it takes text, and a pattern"));
    };
    let found = pattern.matches(subject.inner()).map_err(error)?;
    Ok(CowVal::owned(CelBool::from(found)))
}

/// The patterns of one expression, each with the name of the variable that holds it.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    texts: Vec<String>,
    compiled: Vec<(String, Pattern)>,
}

impl Patterns {
    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, Pattern)> {
        self.compiled.iter()
    }

    /// Compiles the patterns of an expression, and replaces each by its variable:
    /// `name.matches('^a')` and `matches(name, '^a')`.
    pub(super) fn take(&mut self, expression: &mut IdedExpr) -> Result<(), String> {
        if let Expr::Call(call) = &mut expression.expr
            && call.func_name == MATCHES
        {
            self.take_call(call)?;
        }
        for part in super::syntax::children_mut(expression) {
            self.take(part)?;
        }
        Ok(())
    }

    fn take_call(&mut self, call: &mut CallExpr) -> Result<(), String> {
        if call.target.is_none() && call.args.len() == 2 {
            call.target = Some(Box::new(call.args.remove(0)));
        }
        let [pattern] = call.args.as_mut_slice() else {
            return Err("matches() takes one pattern: write name.matches('^app[0-9]+$')".into());
        };
        let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
            return Err(
                "the pattern of matches() is computed: write it as a literal between quotes, for example \
                 name.matches('^app[0-9]+$')"
                    .into(),
            );
        };
        pattern.expr = Expr::Ident(self.variable(text.inner())?);
        Ok(())
    }

    fn variable(&mut self, text: &str) -> Result<String, String> {
        if let Some(index) = self.texts.iter().position(|known| known == text) {
            return Ok(self.compiled[index].0.clone());
        }
        if self.texts.len() == MAX_PATTERNS {
            return Err(format!(
                "it has too many patterns: write at most {MAX_PATTERNS} different ones"
            ));
        }
        let name = format!("@pattern{}", self.texts.len());
        let pattern = Pattern::compile(text)?;
        let large = self.compiled.iter().filter(|(_, known)| known.is_large());
        if pattern.is_large() && large.count() == MAX_LARGE_PATTERNS {
            return Err(format!(
                "it has too many large patterns: write at most {MAX_LARGE_PATTERNS}, and others with [0-9a-z_] instead of \\w"
            ));
        }
        self.texts.push(text.to_owned());
        self.compiled.push((name.clone(), pattern));
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_anywhere_in_the_text_unless_it_is_anchored() {
        for (pattern, subject, matches) in [
            ("b", "abc", true),
            ("^b", "abc", false),
            ("", "", true),
            ("^app[0-9]+$", "app12", true),
            ("^app[0-9]+$", "app12\n", false),
            (r"\bapp\b", "my-app-1", true),
            (r"\bapp\b", "myapp1", false),
            (r"^\w+$", "ümlaut", true),
            (r"^\w+-\w{4}$", "app-test", true),
            (r"^\w+-\w{4}$", "app test", false),
            (r"(?i)\w+\.EXAMPLE\.com", "a.example.com", true),
            ("(?i)^APP$", "app", true),
            ("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", "app-1", true),
        ] {
            let pattern = Pattern::compile(pattern).unwrap();
            assert_eq!(pattern.matches(subject), Ok(matches), "{pattern:?}");
        }
    }

    #[test]
    fn the_size_of_a_pattern_is_bounded() {
        for (pattern, expected) in [
            (r"\w{100}", "more than 512 KiB"),
            ("(a|b)*a(a|b){20}", "more than 256 KiB"),
            ("a{1000}{1000}", "more than 512 KiB"),
            (r"\p{L}{10}", "more than 256 KiB"),
            ("(", "not a valid regex"),
            (&"(".repeat(40), "not a valid regex"),
        ] {
            let error = Pattern::compile(pattern).unwrap_err();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
        let pattern = Pattern::compile(r"\ba").unwrap();
        assert_eq!(pattern.matches(&"a".repeat(4097)), Err(TOO_LONG));
        assert_eq!(pattern.matches("üa"), Err(NOT_ASCII));
        let large = Pattern::compile(r"^\w+-\w+$").unwrap();
        assert_eq!(large.matches("ü-a"), Err(NOT_ASCII));
    }
}
