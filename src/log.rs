//! The log: each record is one line, and nothing in it steers a terminal or reorders what is read.
//!
//! Records quote what others wrote: names, errors of the API server, files. So a record is escaped as a whole when it has
//! been formatted, and no field can be forgotten.

use crate::config::LogFormat;
use crate::policy::text;
use std::fmt::Write as _;
use std::io::{self, Write};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

/// Writes the records of this process to standard error from now on: those that `level`, a level or a filter, lets pass.
pub fn init(format: LogFormat, level: &str) -> Result<(), ParseError> {
    subscriber(format, level, io::stderr)?.init();
    Ok(())
}

fn subscriber<W>(
    format: LogFormat,
    level: &str,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // The runtime's own span says on every record what ours say in better words.
    let filter = EnvFilter::try_new(format!("kube_runtime=warn,{level}"))?;
    let filter = filter.and(filter_fn(has_no_keys));
    let log = tracing_subscriber::fmt::layer().with_writer(Escaping { format, writer });
    let registry = Registry::default();
    Ok(match format {
        LogFormat::Text => Box::new(registry.with(log.with_ansi(false).with_filter(filter))),
        LogFormat::Json => Box::new(registry.with(log.json().with_filter(filter))),
    })
}

/// The client writes the whole body of a response that it cannot read, with the keys in it. Apart from the user's filter,
/// in which a span would switch that on again whatever else it says.
fn has_no_keys(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::ERROR || !metadata.target().starts_with("kube_client::client")
}

/// Makes writers that escape.
struct Escaping<W> {
    format: LogFormat,
    writer: W,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter {
            format: self.format,
            writer: self.writer.make_writer(),
        }
    }
}

/// Gets each record whole, by one call: `tracing_subscriber::fmt` formats into a buffer first.
struct EscapingWriter<W> {
    format: LogFormat,
    writer: W,
}

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let line = escaped(self.format, &String::from_utf8_lossy(record));
        self.writer.write_all(line.as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A record as it is written: all but the line break at its end is on one line.
fn escaped(format: LogFormat, record: &str) -> String {
    let (record, end) = match record.strip_suffix('\n') {
        Some(record) => (record, "\n"),
        None => (record, ""),
    };
    match format {
        LogFormat::Text => text::line(record) + end,
        LogFormat::Json => json_line(record) + end,
    }
}

/// What is outside of strings in JSON is plain, so what is not plain is in one, where these escapes mean the same.
fn json_line(record: &str) -> String {
    let mut line = String::with_capacity(record.len());
    for c in record.chars() {
        if text::is_plain(c) {
            line.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(line, "\\u{unit:04x}").expect("writing to a string does not fail");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Memory {
        fn write(&mut self, record: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(record.to_vec());
            Ok(record.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of what `log` logs, write by write.
    fn written(format: LogFormat, level: &str, log: impl FnOnce()) -> Vec<String> {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(format, level, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        let records = memory.0.lock().unwrap().clone();
        let texts = records.into_iter().map(String::from_utf8);
        texts.collect::<Result<_, _>>().unwrap()
    }

    /// Line breaks of every kind, control characters of both sets, what reorders and what is not seen; also beyond the
    /// characters that UTF-16 has one unit for.
    const HOSTILE: &str = "a\nb\r\u{0}\u{1b}[31m\u{7f}\u{85}\u{9b}2J\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\u{feff}\u{ad}\u{e0041}z";

    fn log_all_ways() {
        let error = io::Error::other(HOSTILE);
        let span = tracing::info_span!("span", named = HOSTILE);
        let _entered = span.enter();
        tracing::info!("{HOSTILE}");
        tracing::info!(shown = %HOSTILE, debugged = ?HOSTILE, plain = HOSTILE, "fields");
        tracing::warn!(%error, source = &error as &(dyn std::error::Error + 'static), "an error");
    }

    #[test]
    fn a_record_is_one_line_with_nothing_that_steers_a_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let records = written(format, "info", log_all_ways);
            assert_eq!(records.len(), 3, "a write for each: {records:?}");
            for record in records {
                let line = record.strip_suffix('\n').unwrap();
                assert!(line.chars().all(text::is_plain), "{line:?}");
                assert!(line.contains('z'), "{line:?}");
            }
        }
    }

    #[test]
    fn in_json_every_value_is_what_was_logged() {
        let records = written(LogFormat::Json, "info", log_all_ways);
        let records: Vec<Value> = records
            .iter()
            .map(|record| serde_json::from_str(record).unwrap())
            .collect();
        assert_eq!(records[0]["fields"]["message"], HOSTILE);
        assert_eq!(records[1]["fields"]["shown"], HOSTILE);
        assert_eq!(records[1]["fields"]["plain"], HOSTILE);
        assert_eq!(records[2]["fields"]["error"], HOSTILE);
        assert_eq!(records[0]["span"]["named"], HOSTILE);
    }

    #[test]
    fn what_is_harmless_is_written_as_it_is() {
        let harmless = r#"größe "a" 'b' c:\d {e} 東京"#;
        let records = written(LogFormat::Text, "info", || tracing::info!("{harmless}"));
        assert!(
            records[0].ends_with(&format!("{harmless}\n")),
            "{records:?}"
        );
        for record in ["{\"a\":\"\\n\\u202e\\\\\"}\n", "no line break", "", "\n"] {
            assert_eq!(escaped(LogFormat::Json, record), record);
        }
        assert_eq!(escaped(LogFormat::Text, "a\n\n"), "a\\n\n");
    }

    #[test]
    fn no_filter_switches_on_what_would_write_keys() {
        let log = || {
            tracing::debug!(target: "kube_client::client", "a body with keys");
            tracing::info!(target: "kube_runtime::controller", "noise");
            tracing::debug!("ours");
        };
        let log = || tracing::error_span!("reconcile").in_scope(log);
        for (level, expected) in [
            ("info", 0),
            ("debug", 1),
            ("trace,kube_client=trace", 1),
            ("trace,kube_client::client=trace,kube_runtime=warn", 1),
            // A span has its own say, for all targets.
            ("info,[reconcile]=debug", 2),
        ] {
            assert_eq!(
                written(LogFormat::Text, level, log).len(),
                expected,
                "{level}"
            );
        }
        let subscriber = subscriber(LogFormat::Text, "pki_operator=loud", io::stderr);
        assert!(subscriber.is_err());
    }
}
