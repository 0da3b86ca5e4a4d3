//! The commands in the pages: `console` blocks, in which a command follows `$ `.

/// The commands in the `console` blocks of a text, block by block. A command goes on in the next
/// line after `\` or `|`; all other lines are its output.
pub(crate) fn blocks(text: &str) -> Vec<Vec<String>> {
    let mut blocks: Vec<Vec<String>> = Vec::new();
    let (mut is_inside, mut is_unfinished) = (false, false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("```") {
            is_inside = line == "```console";
            is_unfinished = false;
            if is_inside {
                blocks.push(Vec::new());
            }
        } else if is_inside {
            let commands = blocks.last_mut().expect("a block has begun");
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push(command.to_owned());
            } else if is_unfinished {
                let command = commands.last_mut().expect("a command has begun");
                command.push('\n');
                command.push_str(line);
            } else {
                continue;
            }
            is_unfinished = line.ends_with(['\\', '|']);
        }
    }
    blocks
}

/// The commands in the section below a heading such as `## Remove everything`.
pub(crate) fn of_section(page: &str, heading: &str) -> Vec<String> {
    let (_, section) = page
        .split_once(&format!("\n{heading}\n"))
        .expect("the page has this heading");
    let section = section.split("\n## ").next().expect("a section");
    let commands = blocks(section).concat();
    assert!(!commands.is_empty(), "{heading} has commands");
    commands
}

#[test]
fn commands_are_told_from_their_output() {
    let page =
        "\n## A\n```console\n$ a \\\n    b |\n    c\nout\n$ d\n```\n```yaml\n$ no\n```\n## B\n";
    assert_eq!(of_section(page, "## A"), ["a \\\nb |\nc", "d"]);
}
