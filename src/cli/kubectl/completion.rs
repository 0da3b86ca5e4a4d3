//! Completes command lines, for shells and for kubectl itself, which asks its plugins.

use clap::Command;
use clap::builder::StyledStr;

/// The completions of a line, as kubectl reads them (those of cobra): one word a line, with its
/// description, and a directive. The last of `words` is being typed.
pub fn answer(command: &Command, words: &[String]) -> String {
    let typed = words.last().map_or("", String::as_str);
    let before = &words[..words.len().saturating_sub(1)];
    let before = before.iter().filter(|word| !word.starts_with('-'));
    let innermost = before.fold(command, |command, word| {
        command.find_subcommand(word).unwrap_or(command)
    });
    let mut lines = if typed.starts_with('-') {
        flags(command, innermost)
    } else {
        subcommands(innermost)
    };
    lines.retain(|line| line.starts_with(typed));
    // Without completions of ours, files are completed.
    let directive = if lines.is_empty() { 0 } else { NO_FILES };
    lines.push(format!(":{directive}\n"));
    lines.join("\n")
}

/// `ShellCompDirectiveNoFileComp` of cobra.
const NO_FILES: u8 = 4;

fn subcommands(command: &Command) -> Vec<String> {
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    let line = |command: &Command| line(command.get_name(), command.get_about());
    shown.map(line).collect()
}

fn flags(root: &Command, command: &Command) -> Vec<String> {
    let is_root = root.get_name() == command.get_name();
    let global = root.get_arguments().filter(|it| it.is_global_set());
    let arguments = command.get_arguments().chain(global.filter(|_| !is_root));
    let flags = arguments.filter_map(|it| Some((it.get_long()?, it.get_help())));
    flags
        .map(|(flag, help)| line(&format!("--{flag}"), help))
        .collect()
}

fn line(word: &str, about: Option<&StyledStr>) -> String {
    let about = about.map(ToString::to_string);
    format!("{word}\t{}", about.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kubectl::cli::PluginCli;
    use clap::CommandFactory;

    fn completed(words: &[&str]) -> Vec<String> {
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        let answer = answer(&PluginCli::command(), &words);
        answer
            .lines()
            .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn kubectl_gets_the_completions_of_a_line() {
        assert_eq!(completed(&["ex"]), ["explain", ":4"]);
        assert!(completed(&[""]).contains(&"status".to_owned()));
        assert!(!completed(&[""]).contains(&"__complete".to_owned()));
        assert_eq!(completed(&["policy", "t"]), ["test", ":4"]);
        assert_eq!(
            completed(&["-n", "x", "check", "--pol"]),
            ["--policy", ":4"]
        );
        assert_eq!(completed(&["check", "--cont"]), ["--context", ":4"]);
        assert_eq!(completed(&["--cont"]), ["--context", ":4"]);
        assert_eq!(completed(&["check", "-f", "dep"]), [":0"]);
        assert_eq!(completed(&[]), completed(&[""]));
    }
}
