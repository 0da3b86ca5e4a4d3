//! YAML with positions: every value of a document, and its place in the file.
//!
//! Scalars are read as kubectl reads them, so that `serviceName: on` is the boolean that the API
//! server will see. Aliases and merge keys are expanded, up to a limit. [`documents`] ends for
//! every text, in time that grows with its length, and returns faults with their places.

use crate::util::text;
use granit_parser::{Marker, Parser, ScanError};
use loader::Loader;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::fmt;

mod loader;
mod scalar;

/// Number of documents that cannot be read after which the rest of the text is ignored.
const MAX_FAULTS: usize = 100;

/// Maximum size of a file in bytes.
pub const MAX_FILE_BYTES: usize = 64 << 20;

/// A place in a file. Both numbers begin at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Default for Position {
    fn default() -> Self {
        Self::START
    }
}

impl Position {
    /// The beginning of a file.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The place of a marker in a text that begins here.
    fn of(self, marker: &Marker) -> Self {
        let line = self.line + marker.line().saturating_sub(1);
        let before = if marker.line() <= 1 { self.column } else { 1 };
        let column = before + marker.col();
        Self { line, column }
    }

    /// The place after this beginning of a text. As in YAML, a carriage return alone ends a line.
    pub(crate) fn after(self, beginning: &str) -> Self {
        let lines = without_mark(beginning).replace("\r\n", "\n");
        let (mut more, mut last) = (0, "");
        for line in lines.split(['\n', '\r']) {
            (more, last) = (more + 1, line);
        }
        let before = if more == 1 { self.column } else { 1 };
        Self {
            line: self.line + more - 1,
            column: last.chars().count() + before,
        }
    }
}

/// A fault that keeps a document from being read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// The place of the fault.
    pub at: Position,
    /// The message of the parser, or of this module.
    pub message: String,
}

impl SyntaxError {
    pub(crate) fn new(at: Position, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { at, message }
    }

    fn of(error: &ScanError, origin: Position) -> Self {
        let message = format!("this is not YAML: {}", text::printable(&error.info()));
        Self::new(origin.of(error.marker()), message)
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The place where it begins; for an alias, the place of the alias.
    pub at: Position,
    /// The scalar, list or mapping.
    pub content: YamlContent,
    /// Whether it begins on the line of its key, so that its own place is the more exact one.
    is_inline: bool,
    depth: usize,
    cost: usize,
}

/// The content of a [`Node`].
#[derive(Clone, Debug, PartialEq)]
pub enum YamlContent {
    /// A string, a number, a boolean or null; and its text, unless in quotes or as a block.
    Scalar(Value, Option<String>),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file. The last of equal keys counts.
    Mapping(Vec<(YamlKey, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlKey {
    /// The key as JSON has it.
    pub name: String,
    /// The place where it begins.
    pub at: Position,
    is_merge: bool,
}

/// The content of a value that is not written.
const NOTHING: YamlContent = YamlContent::Scalar(Value::Null, None);

impl Node {
    /// A value that is not written, with the place where it would be.
    pub fn of(value: &Value, at: Position) -> Self {
        loader::unwritten(value, at)
    }

    /// This mapping with one entry more.
    #[must_use]
    pub fn with(mut self, name: &str, value: Self) -> Self {
        if let YamlContent::Mapping(entries) = &mut self.content {
            let (name, at) = (name.to_owned(), value.at);
            let is_merge = false;
            entries.push((YamlKey { name, at, is_merge }, value));
        }
        self
    }

    /// Whether it is null, or nothing is written.
    pub fn is_null(&self) -> bool {
        matches!(self.content, YamlContent::Scalar(Value::Null, _))
    }

    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(YamlKey, Self)] {
        match &self.content {
            YamlContent::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a list; none of anything else.
    pub fn elements(&self) -> &[Self] {
        match &self.content {
            YamlContent::Sequence(elements) => elements,
            _ => &[],
        }
    }

    /// The entry of this key.
    pub fn entry(&self, name: &str) -> Option<&(YamlKey, Self)> {
        self.entries().iter().rfind(|(key, _)| key.name == name)
    }

    /// The elements of the list `items`, which a `List` has.
    pub fn into_items(self) -> impl Iterator<Item = Self> {
        let entries = into_entries(self).into_iter();
        let items = entries.filter(|(key, _)| key.name == "items");
        items.flat_map(|(_, items)| match items.content {
            YamlContent::Sequence(elements) => elements,
            _ => Vec::new(),
        })
    }

    /// The value of this key.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.entry(name).map(|(_, value)| value)
    }

    /// The text of this key, if it is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.content {
            YamlContent::Scalar(Value::String(text), _) => Some(text),
            _ => None,
        }
    }

    /// The value without places.
    pub fn to_json(&self) -> Value {
        match &self.content {
            YamlContent::Scalar(value, _) => value.clone(),
            YamlContent::Sequence(elements) => elements.iter().map(Self::to_json).collect(),
            YamlContent::Mapping(entries) => {
                let fields = entries.iter();
                let fields = fields.map(|(key, value)| (key.name.clone(), value.to_json()));
                Value::Object(fields.collect())
            }
        }
    }

    /// The place of this path, as in `spec.dnsNames[0]`, or of its last known part.
    pub fn locate(&self, path: &str) -> Position {
        let mut at = self.at;
        let mut node = self;
        for step in steps(path) {
            let next = match step {
                Step::Field(name) => node
                    .entry(name)
                    .map(|(key, value)| (key.place_of(value), value)),
                Step::Index(index) => node.elements().get(index).map(|node| (node.at, node)),
            };
            let Some((position, inner)) = next else {
                // A missing entry is reported at the key of its parent.
                return at;
            };
            (at, node) = (position, inner);
        }
        at
    }
}

impl YamlKey {
    /// The place of its value, or of the key if the value begins on another line.
    pub fn place_of(&self, value: &Node) -> Position {
        if value.is_inline { value.at } else { self.at }
    }
}

/// A part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split('.').flat_map(|part| {
        let mut pieces = part.split('[');
        let field = pieces.next().filter(|name| !name.is_empty());
        let indexes = pieces.filter_map(|piece| piece.strip_suffix(']')?.parse().ok());
        field
            .map(Step::Field)
            .into_iter()
            .chain(indexes.map(Step::Index))
    })
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The text in a file, if it is one, and not too long.
pub fn text(bytes: &[u8]) -> Result<&str, SyntaxError> {
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!(
            "this file is larger than {} MiB: split it",
            MAX_FILE_BYTES >> 20
        );
        return Err(SyntaxError::new(Position::START, message));
    }
    str::from_utf8(bytes).map_err(|error| {
        let valid = str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
        let at = Position::START.after(valid);
        SyntaxError::new(at, "this is not text in UTF-8")
    })
}

/// Reads every document of a text: a stream of YAML, or JSON values one after the other. Those
/// after a faulty one are read too. Documents without content are left out.
pub fn documents(text: &str) -> Vec<Result<Node, SyntaxError>> {
    let text = without_mark(text);
    let mut documents = Vec::new();
    let mut loader = Loader::default();
    let mut faults = 0;
    for (origin, part) in json_values(text) {
        loader.begin_at(origin);
        let mut parser = Parser::new_from_str(part).keep_tags(false);
        while let Some(event) = parser.next_event() {
            match loader.take(event) {
                Ok(root) => documents.extend(root.map(Ok)),
                Err(error) => {
                    documents.push(Err(error));
                    faults += 1;
                    if faults == MAX_FAULTS {
                        return documents;
                    }
                    if !parser.proceed_next_document().unwrap_or(false) {
                        break;
                    }
                }
            }
        }
    }
    documents
}

/// The JSON values of a text, each with the place where it begins. Another text is one part.
fn json_values(text: &str) -> Vec<(Position, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut parts = Vec::new();
    let (mut at, mut begin) = (Position::START, 0);
    let may_be_json = text.trim_start().starts_with('{');
    while may_be_json && let Some(Ok(_)) = values.next() {
        let part = &text[begin..values.byte_offset()];
        parts.push((at, part));
        at = at.after(part);
        begin = values.byte_offset();
    }
    let rest = &text[begin..];
    if parts.is_empty() || !rest.trim().is_empty() {
        parts.push((at, rest));
    }
    parts
}

fn into_entries(node: Node) -> Vec<(YamlKey, Node)> {
    match node.content {
        YamlContent::Mapping(entries) => entries,
        _ => Vec::new(),
    }
}

/// A text without its byte order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests;
