//! The file that `--config` names: a YAML mapping whose keys are flags without dashes in front.
//!
//! Each entry becomes a flag, so that a file can set what the command line can. All faults are
//! reported at once, each with its place.

use super::error::{FileFault, FlagRefusal};
use crate::util::text::{nearest, printable};
use crate::util::yaml::{self, Node, Position, YamlContent, YamlKey};
use clap::{Arg, ArgAction, Command, Id};
use serde_json::Value;
use std::collections::HashMap;

/// A flag of the file, in the form `--flag=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The identifier of the flag for clap.
    pub(super) id: Id,
    pub(super) argument: String,
}

/// Reads the settings in a file. `parse` checks one argument.
pub(super) fn settings(
    file: &str,
    bytes: &[u8],
    command: &Command,
    parse: impl Fn(&str) -> Result<(), clap::Error>,
) -> Result<Vec<Setting>, Vec<FileFault>> {
    let mut reader = Reader {
        file,
        command,
        faults: Vec::new(),
    };
    let mut settings = Vec::new();
    for Entry { id, key, text, at } in reader.entries(bytes) {
        let argument = format!("--{key}={text}");
        match parse(&argument) {
            Ok(()) => settings.push(Setting { id, argument }),
            Err(error) => {
                let refusal = FlagRefusal::of(&error).map(|refusal| refusal.to_string());
                let refusal = refusal.unwrap_or_else(|| first_line(&error));
                reader.note(at, format!("{key}: {refusal}"));
            }
        }
    }
    if reader.faults.is_empty() {
        Ok(settings)
    } else {
        reader.faults.sort_by_key(|fault| fault.at);
        Err(reader.faults)
    }
}

struct Entry {
    id: Id,
    key: String,
    text: String,
    at: Position,
}

struct Reader<'a> {
    file: &'a str,
    command: &'a Command,
    faults: Vec<FileFault>,
}

impl<'a> Reader<'a> {
    /// The values of flags, elements of lists one by one.
    fn entries(&mut self, bytes: &[u8]) -> Vec<Entry> {
        let Some(root) = self.root(bytes) else {
            return Vec::new();
        };
        let mut seen = HashMap::new();
        let mut entries = Vec::new();
        for (key, value) in root.entries() {
            let Some(flag) = self.flag(key) else {
                continue;
            };
            let name = &key.name;
            if let Some(first) = seen.insert(name, key.at) {
                let message = format!("{name}: is set in line {} too: remove one", first.line);
                self.note(key.at, message);
                continue;
            }
            for (at, text) in values(flag, key, value) {
                match text {
                    Ok(text) => entries.push(Entry {
                        id: flag.get_id().clone(),
                        key: name.clone(),
                        text,
                        at,
                    }),
                    Err(expected) => self.note(at, format!("{name}: {expected}")),
                }
            }
        }
        entries
    }

    /// The mapping; nothing if there is none, as in a file with comments alone.
    fn root(&mut self, bytes: &[u8]) -> Option<Node> {
        let text = yaml::text(bytes);
        let text = text.map_err(|error| self.note(error.at, error.message));
        let mut documents = yaml::documents(text.ok()?).into_iter();
        let root = documents.next()?;
        let root = root.map_err(|error| self.note(error.at, error.message));
        let root = root.ok()?;
        if let Some(second) = documents.next() {
            let at = second.map_or_else(|error| error.at, |node| node.at);
            self.note(at, "only one document is read: remove the others".into());
        }
        if !matches!(root.content, YamlContent::Mapping(_)) {
            let expected = "write a mapping of flags without dashes, such as `drain-seconds: 5`";
            self.note(root.at, expected.into());
        }
        Some(root)
    }

    /// The flag of this name, if a file may have it.
    fn flag(&mut self, key: &YamlKey) -> Option<&'a Arg> {
        let name = key.name.as_str();
        if name == "config" {
            let message = "config: a file cannot name another: remove it".to_owned();
            self.note(key.at, message);
            return None;
        }
        let mut flags = self.command.get_arguments();
        let found = flags.find(|flag| flag.get_long() == Some(name));
        if found.is_none() {
            let names = self.command.get_arguments().filter_map(Arg::get_long);
            let hint = match nearest(name.trim_start_matches('-'), names) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => "`pki-operator run --help` lists the flags".to_owned(),
            };
            let message = format!("unknown key \"{}\"; {hint}", printable(name));
            self.note(key.at, message);
        }
        found
    }

    fn note(&mut self, at: Position, message: String) {
        let file = self.file.to_owned();
        self.faults.push(FileFault { file, at, message });
    }
}

fn values(flag: &Arg, key: &YamlKey, node: &Node) -> Vec<(Position, Result<String, &'static str>)> {
    let takes_many = matches!(flag.get_action(), ArgAction::Append);
    let elements = node.elements().iter();
    match &node.content {
        YamlContent::Sequence(_) if takes_many => {
            let values = elements.map(|element| (element.at, scalar(flag, element)));
            values.collect()
        }
        _ => vec![(key.place_of(node), scalar(flag, node))],
    }
}

/// A value as on the command line: `yes` is a boolean in YAML, but the word to other flags.
fn scalar(flag: &Arg, node: &Node) -> Result<String, &'static str> {
    match &node.content {
        YamlContent::Scalar(Value::Null, _) => Err("has no value: write one, or remove the key"),
        YamlContent::Scalar(Value::String(text), _) => Ok(text.clone()),
        YamlContent::Scalar(Value::Bool(value), _) if takes_boolean(flag) => Ok(value.to_string()),
        YamlContent::Scalar(value, written) => {
            Ok(written.clone().unwrap_or_else(|| value.to_string()))
        }
        YamlContent::Sequence(_) => Err("takes a plain value here, not a list"),
        YamlContent::Mapping(_) => Err("takes a plain value here, not a mapping"),
    }
}

fn takes_boolean(flag: &Arg) -> bool {
    let values = flag.get_possible_values();
    values.iter().any(|value| value.get_name() == "true")
}

fn first_line(error: &clap::Error) -> String {
    let message = error.to_string();
    let line = message.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}
