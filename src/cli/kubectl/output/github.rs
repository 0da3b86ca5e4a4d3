//! Workflow commands of GitHub Actions (docs.github.com, "Workflow commands for GitHub Actions").

use crate::cli::kubectl::finding::Finding;

/// The command that shows a finding beside its line.
pub(super) fn command(finding: &Finding) -> String {
    let command = finding.severity.name();
    // A command of standard input has no file to be shown in.
    let place = match finding.file.as_str() {
        "-" => String::new(),
        file => format!(
            "file={},line={},col={},",
            property(file),
            finding.at.line,
            finding.at.column
        ),
    };
    let (title, message) = (property(&finding.reason), data(&finding.text()));
    format!("::{command} {place}title={title}::{message}\n")
}

/// As the toolkit of GitHub Actions escapes them (`packages/core/src/command.ts`).
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use crate::cli::kubectl::output::{Format, render, tests};

    #[test]
    fn nothing_in_a_finding_ends_its_command_or_begins_another() {
        let shown = render(&tests::report(), Format::Github);
        let expected = "::error file=a b/äpp1%2Cx%3Ay%25.yaml,line=9,col=16,title=PkiServiceNameError::Pki app1/app1-pki: \
            spec.serviceName: 100%25 \"wrong\":\\r\\n::error::\\u{1b}[31m, write app1\n::warning title=InvalidYaml::no\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn escapes_are_those_of_the_toolkit() {
        assert_eq!(super::data("a%\r\nb:,"), "a%25%0D%0Ab:,");
        assert_eq!(super::property("a%\r\nb:,"), "a%25%0D%0Ab%3A%2C");
    }
}
