//! `kubectl pki completion`, and what kubectl itself asks its plugins: how a command line may go
//! on.

use clap::Command;

/// How a line that begins with these words may go on, in the form that kubectl reads (that of
/// cobra): one word a line, with what it is about, and a directive. The last word is the one that
/// is being typed.
pub fn answer(command: &Command, words: &[String]) -> String {
    let (typed, before) = words
        .split_last()
        .map_or(("", &[][..]), |(last, rest)| (last.as_str(), rest));
    let innermost = before
        .iter()
        .filter(|word| !word.starts_with('-'))
        .fold(command, |command, word| {
            command.find_subcommand(word).unwrap_or(command)
        });
    let mut lines = if typed.starts_with('-') {
        flags(command, innermost)
    } else {
        subcommands(innermost)
    };
    lines.retain(|line| line.starts_with(typed));
    // Files, where there is nothing else to say.
    let directive = if lines.is_empty() { 0 } else { NO_FILES };
    lines.push(format!(":{directive}\n"));
    lines.join("\n")
}

/// `ShellCompDirectiveNoFileComp` of cobra.
const NO_FILES: u8 = 4;

fn subcommands(command: &Command) -> Vec<String> {
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let line = |command: &Command| {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        format!("{}\t{about}", command.get_name())
    };
    shown.map(line).collect()
}

fn flags(root: &Command, command: &Command) -> Vec<String> {
    let global = root
        .get_arguments()
        .filter(|argument| argument.is_global_set());
    let arguments = command
        .get_arguments()
        .chain(global.filter(|_| root.get_name() != command.get_name()));
    let line = |argument: &clap::Arg| {
        let help = argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        argument.get_long().map(|long| format!("--{long}\t{help}"))
    };
    arguments.filter_map(line).collect()
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
    fn kubectl_is_told_how_a_line_may_go_on() {
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
