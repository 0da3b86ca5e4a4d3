//! A page and its fenced blocks.

use std::fs;
use std::mem;

use crate::paths::workspace_dir;

/// A page of the documentation.
pub struct Page {
    /// Its path in the workspace.
    pub name: &'static str,
    /// Its fenced blocks, in their order.
    pub blocks: Vec<Block>,
    /// The text outside of fenced blocks, as one line.
    pub prose: String,
}

/// A fenced block.
#[derive(Debug, Default)]
pub struct Block {
    /// The text of the nearest heading `## ...` above it; empty before the first.
    pub section: String,
    /// The number of its first line in the page.
    pub line: usize,
    /// The word behind the fence, such as `yaml`.
    pub language: String,
    /// Its lines, without the indentation of the fence.
    pub content: String,
    /// Whether a test has run or read it.
    pub is_done: bool,
}

/// A command of a block, and the output that the page shows below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The number of its line in the page.
    pub line: usize,
    /// All of its lines, without the prompt.
    pub command: String,
    /// The lines below it.
    pub shown: Vec<String>,
}

impl Page {
    /// Reads the page at this path of the workspace.
    pub fn read(name: &'static str) -> Self {
        let path = workspace_dir().join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self::parse(name, &text)
    }

    fn parse(name: &'static str, text: &str) -> Self {
        let (mut blocks, mut prose) = (Vec::new(), String::new());
        let mut section = String::new();
        let mut open: Option<(usize, Block)> = None;
        for (index, line) in text.lines().enumerate() {
            let rest = line.trim_start();
            let indent = line.len() - rest.len();
            match (&mut open, rest.strip_prefix("```")) {
                (None, Some(language)) => {
                    let block = Block {
                        section: section.clone(),
                        line: index + 2,
                        language: language.to_owned(),
                        ..Block::default()
                    };
                    open = Some((indent, block));
                }
                (Some((_, block)), Some(_)) => {
                    blocks.push(mem::take(block));
                    open = None;
                }
                (Some((indent, block)), None) => {
                    block.content += line.get(*indent..).unwrap_or(rest);
                    block.content += "\n";
                }
                (None, None) => {
                    if let Some(heading) = line.strip_prefix("## ") {
                        heading.clone_into(&mut section);
                    }
                    prose += rest;
                    prose += " ";
                }
            }
        }
        assert!(open.is_none(), "{name}: a block has no end");
        Self {
            name,
            blocks,
            prose,
        }
    }

    /// The commands of the blocks in the section below a heading `## ...`.
    ///
    /// Panics if there is none.
    pub fn commands_of(&self, section: &str) -> Vec<String> {
        let blocks = self.blocks.iter();
        let blocks = blocks.filter(|block| block.section == section && block.has_commands());
        let steps = blocks.flat_map(Block::steps);
        let commands: Vec<_> = steps.map(|step| step.command).collect();
        assert!(
            !commands.is_empty(),
            "{}: {section} has no command",
            self.name
        );
        commands
    }

    /// The commands that stand in sentences and tables, and begin with one of these words.
    pub fn inline(&self, begins: &[&str]) -> Vec<String> {
        let spans = self.prose.split('`').skip(1).step_by(2);
        let commands = spans.filter(|span| begins.iter().any(|begin| span.starts_with(begin)));
        commands.map(str::to_owned).collect()
    }
}

impl Block {
    /// Whether people type its content.
    pub fn has_commands(&self) -> bool {
        matches!(self.language.as_str(), "console" | "sh")
    }

    /// The commands. In a `console` block a command follows `$ `, and goes on in the next line
    /// after `\` or `|`; in a `sh` block each line is one.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut is_unfinished = false;
        for (index, line) in self.content.lines().enumerate() {
            let begun = match self.language.as_str() {
                "sh" => Some(line),
                _ => line.strip_prefix("$ "),
            };
            if let Some(command) = begun {
                steps.push(Step {
                    line: self.line + index,
                    command: command.to_owned(),
                    shown: Vec::new(),
                });
            } else {
                let step = steps.last_mut().expect("a block begins with a command");
                if is_unfinished {
                    step.command += "\n";
                    step.command += line;
                } else {
                    step.shown.push(line.to_owned());
                    continue;
                }
            }
            is_unfinished = line.ends_with(['\\', '|']);
        }
        steps
    }
}

#[test]
fn commands_are_distinguished_from_their_output() {
    let text = "# T\n`cargo\ndemo`\n## A\n  ```console\n  $ a \\\n      b |\n    c\n  out\n  $ d\n  ```\n```yaml\n$ no\n```\n";
    let page = Page::parse("a page", text);
    let [console, yaml] = &page.blocks[..] else {
        panic!("{:?}", page.blocks)
    };
    let [first, second] = &console.steps()[..] else {
        panic!("{console:?}")
    };
    assert_eq!(first.command, "a \\\n    b |\n  c");
    assert_eq!((first.line, &first.shown[..]), (6, &["out".to_owned()][..]));
    assert_eq!((second.line, second.command.as_str()), (10, "d"));
    assert_eq!(
        (console.section.as_str(), yaml.has_commands()),
        ("A", false)
    );
    assert_eq!(page.inline(&["cargo "]), ["cargo demo"]);
    assert_eq!(page.commands_of("A"), ["a \\\n    b |\n  c", "d"]);
}
