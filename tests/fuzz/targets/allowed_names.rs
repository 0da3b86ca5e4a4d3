//! Files of allowed names.

use super::{lossy, oracle, settings};
use pki_operator::cli::kubectl::allowed_names as names;
use pki_operator::policy::faults;

/// Reads a file, and compares what is read with what a line by line look at it gives.
pub fn allowed_names(data: &[u8]) {
    let text = lossy(data);
    let expected = expected(&text);
    match names::parse(&text) {
        Ok(names) => {
            assert!(names.iter().all(|name| oracle::is_label(name)), "{names:?}");
            assert_eq!(names, expected);
            let faults = faults(&names::policy("p", names.clone()).spec, &settings());
            assert_eq!(faults.is_empty(), !names.is_empty(), "{faults:?}");
        }
        Err(errors) => {
            assert!(!errors.is_empty() && expected.iter().any(|name| !oracle::is_label(name)));
            let lines: Vec<_> = text
                .strip_prefix('\u{feff}')
                .unwrap_or(&text)
                .split('\n')
                .collect();
            for error in errors {
                let line = lines.get(error.at.line - 1).expect("a line of the file");
                assert!(error.at.column <= line.chars().count(), "{error:?}");
                assert!(
                    !error.message.is_empty() && oracle::is_readable(&error.message),
                    "{error:?}"
                );
            }
        }
    }
}

/// What is there to be a name, whether it is one or not.
fn expected(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut written = Vec::new();
    for line in text.split('\n') {
        let end = line.find('#').unwrap_or(line.len());
        let name = line[..end].trim();
        if !name.is_empty() {
            written.push(name.to_owned());
        }
    }
    written
}
