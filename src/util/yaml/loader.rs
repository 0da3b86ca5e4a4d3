//! Builds nodes from the events of the parser.

use super::{NOTHING, Node, Position, SyntaxError, YamlContent, YamlKey, into_entries, scalar};
use crate::util::text;
use granit_parser::{Event, ParseResult, ScalarStyle, Span, StructureStyle, Tag};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Maximum depth of lists and mappings.
const MAX_DEPTH: usize = 100;
/// Maximum size of all anchors and aliases of a text, expanded, in about bytes of text.
const MAX_EXPANDED: usize = 4 << 20;
/// The size of a value besides its text.
const NODE_COST: usize = 64;

/// Builds nodes from events, without recursion.
#[derive(Default)]
pub(super) struct Loader {
    origin: Position,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    expanded: usize,
}

/// A list or mapping whose end has not come yet.
struct Open {
    at: Position,
    is_flow: bool,
    anchor: usize,
    depth: usize,
    cost: usize,
    content: Collection,
}

enum Collection {
    Sequence(Vec<Node>),
    Mapping(Vec<(YamlKey, Node)>, Option<YamlKey>),
}

impl Loader {
    /// Starts a text that begins here.
    pub(super) fn begin_at(&mut self, origin: Position) {
        self.forget_document();
        self.origin = origin;
    }

    fn forget_document(&mut self) {
        self.open.clear();
        self.anchors.clear();
    }

    /// Takes the next event. Returns the root of a complete document; a faulty one is dropped.
    pub(super) fn take(&mut self, event: ParseResult<'_>) -> Result<Option<Node>, SyntaxError> {
        let event = event.map_err(|error| SyntaxError::of(&error, self.origin));
        let root = event.and_then(|(event, span)| self.take_event(event, &span));
        if root.is_err() {
            self.forget_document();
        }
        root
    }

    fn take_event(&mut self, event: Event<'_>, span: &Span) -> Result<Option<Node>, SyntaxError> {
        let at = self.origin.of(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_written = style != ScalarStyle::Plain || span.start != span.end;
                let node = if is_written {
                    scalar_node(&text, style, tag.as_ref(), at)?
                } else {
                    nothing(at)
                };
                self.keep(anchor, &node)?;
                self.attach(node)
            }
            Event::SequenceStart(style, anchor, _) => {
                self.begin(at, style, anchor, Collection::Sequence(Vec::new()))
            }
            Event::MappingStart(style, anchor, _) => {
                self.begin(at, style, anchor, Collection::Mapping(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(id) => {
                let node = self.expand(id, at)?;
                self.attach(node)
            }
            Event::DocumentEnd => {
                self.forget_document();
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn begin(
        &mut self,
        at: Position,
        style: StructureStyle,
        anchor: usize,
        content: Collection,
    ) -> Result<Option<Node>, SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.open.push(Open {
            at,
            is_flow: style == StructureStyle::Flow,
            anchor,
            depth: 0,
            cost: NODE_COST,
            content,
        });
        Ok(None)
    }

    fn end(&mut self) -> Result<Option<Node>, SyntaxError> {
        let Some(open) = self.open.pop() else {
            return Ok(None);
        };
        let anchor = open.anchor;
        let node = open.close()?;
        self.keep(anchor, &node)?;
        self.attach(node)
    }

    /// Adds a node to the open collection, or returns it if it is the root.
    fn attach(&mut self, node: Node) -> Result<Option<Node>, SyntaxError> {
        let Some(open) = self.open.last_mut() else {
            return Ok(Some(node).filter(|node| node.content != NOTHING));
        };
        open.depth = open.depth.max(node.depth + 1);
        open.cost += node.cost;
        match &mut open.content {
            Collection::Sequence(elements) => elements.push(node),
            Collection::Mapping(entries, key) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(YamlKey::of(node)?),
            },
        }
        Ok(None)
    }

    fn keep(&mut self, anchor: usize, node: &Node) -> Result<(), SyntaxError> {
        if anchor != 0 {
            self.count(node, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// Bounds what aliases expand to: a few lines could stand for more than memory holds.
    fn count(&mut self, copied: &Node, at: Position) -> Result<(), SyntaxError> {
        self.expanded = self.expanded.saturating_add(copied.cost);
        if self.expanded > MAX_EXPANDED {
            let message =
                "the anchors and aliases of this file expand to too much: write the content out";
            return Err(SyntaxError::new(at, message));
        }
        Ok(())
    }

    /// The node of an alias.
    fn expand(&mut self, anchor: usize, at: Position) -> Result<Node, SyntaxError> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(SyntaxError::new(at, "this alias contains itself"));
        };
        self.count(&node, at)?;
        if self.open.len() + node.depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        let is_inline = true;
        Ok(Node {
            at,
            is_inline,
            ..node
        })
    }
}

/// A value that is not written, in one place.
pub(super) fn unwritten(value: &Value, at: Position) -> Node {
    let inner = |value| unwritten(value, at);
    let key = |name: &String| YamlKey {
        name: name.clone(),
        at,
        is_merge: false,
    };
    let content = match value {
        Value::Array(elements) => YamlContent::Sequence(elements.iter().map(inner).collect()),
        Value::Object(fields) => {
            let entries = fields.iter().map(|(name, value)| (key(name), inner(value)));
            YamlContent::Mapping(entries.collect())
        }
        scalar => YamlContent::Scalar(scalar.clone(), None),
    };
    Node {
        content,
        is_inline: true,
        ..nothing(at)
    }
}

/// A missing value, at the place of what comes next.
fn nothing(at: Position) -> Node {
    Node {
        at,
        content: NOTHING,
        is_inline: false,
        depth: 0,
        cost: NODE_COST,
    }
}

fn too_deep(at: Position) -> SyntaxError {
    SyntaxError::new(at, format!("this is nested deeper than {MAX_DEPTH} levels"))
}

impl Open {
    fn close(self) -> Result<Node, SyntaxError> {
        let content = match self.content {
            Collection::Sequence(elements) => YamlContent::Sequence(elements),
            Collection::Mapping(entries, _) => YamlContent::Mapping(merged(entries)?),
        };
        Ok(Node {
            at: self.at,
            content,
            is_inline: self.is_flow,
            depth: self.depth,
            cost: self.cost,
        })
    }
}

/// A mapping with the entries of its merge keys (`<<: *defaults`), in the order of kubectl. A later
/// entry counts, whether it is written or merged. The first of several mappings under one merge key
/// counts.
fn merged(entries: Vec<(YamlKey, Node)>) -> Result<Vec<(YamlKey, Node)>, SyntaxError> {
    if !entries.iter().any(|(key, _)| key.is_merge) {
        return Ok(entries);
    }
    let mut all: Vec<(YamlKey, Node)> = Vec::new();
    let mut places = HashMap::<String, usize>::new();
    // A merged entry may be written as well. A key that is written twice is reported elsewhere.
    let mut merged = HashSet::<String>::new();
    for (key, node) in entries {
        if !key.is_merge {
            let is_merged = merged.remove(&key.name);
            if let Some(place) = places.get(&key.name).filter(|_| is_merged) {
                all[*place] = (key, node);
            } else {
                places.entry(key.name.clone()).or_insert(all.len());
                all.push((key, node));
            }
            continue;
        }
        let sources = match node.content {
            YamlContent::Mapping(entries) => vec![entries],
            YamlContent::Sequence(nodes) => nodes.into_iter().map(into_entries).rev().collect(),
            YamlContent::Scalar(..) => {
                let message = "only mappings can be merged: write << with an alias of a mapping";
                return Err(SyntaxError::new(key.at, message));
            }
        };
        for (key, node) in sources.into_iter().flatten() {
            merged.insert(key.name.clone());
            if let Some(place) = places.get(&key.name) {
                all[*place] = (key, node);
            } else {
                places.insert(key.name.clone(), all.len());
                all.push((key, node));
            }
        }
    }
    Ok(all)
}

impl YamlKey {
    fn of(node: Node) -> Result<Self, SyntaxError> {
        let at = node.at;
        let (name, is_merge) = match node.content {
            YamlContent::Scalar(Value::String(name), written) => {
                (name, written.as_deref() == Some("<<"))
            }
            YamlContent::Scalar(other, _) if !other.is_null() => (other.to_string(), false),
            _ => return Err(SyntaxError::new(at, "a key must be a text")),
        };
        Ok(Self { name, at, is_merge })
    }
}

fn scalar_node(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Cow<'_, Tag>>,
    at: Position,
) -> Result<Node, SyntaxError> {
    let is_plain = style == ScalarStyle::Plain;
    let value = match tag.map(|tag| tag.core_suffix()) {
        None if is_plain => scalar::plain(text),
        Some(Some("int" | "float" | "bool" | "null")) => scalar::plain(text),
        _ => Some(text.into()),
    };
    let value = value.ok_or_else(|| {
        let shown = text::printable(text);
        SyntaxError::new(at, format!("{shown} is not a number that JSON has"))
    })?;
    Ok(Node {
        at,
        content: YamlContent::Scalar(value, is_plain.then(|| text.to_owned())),
        is_inline: true,
        depth: 0,
        cost: NODE_COST + text.len(),
    })
}
