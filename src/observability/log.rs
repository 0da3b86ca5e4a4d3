//! The log: each record is one line, and nothing in it steers a terminal or reorders what is read.
//!
//! Records quote what others wrote: names, errors of the API server, files. So a record is escaped
//! as a whole when it has been formatted, and no field can be forgotten. For the same reason each
//! value is cut, and then the record: anyone who may write a certificate into a Secret, say,
//! chooses how long the names in it are.

use crate::util::text;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use tracing::field::Field;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{FilterExt as _, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

/// How log records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The longest value of a field that is written in full, and the longest message.
const MAX_FIELD_BYTES: usize = 1024;
/// The longest record, with its line break.
pub const MAX_RECORD_BYTES: usize = 8 * 1024;

/// Writes the records of this process to standard error from now on: those that `level`, a level or
/// a filter, lets pass. A panic is a record, too.
pub fn init(format: LogFormat, level: &str) -> Result<(), ParseError> {
    subscriber(format, level, io::stderr)?.init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
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
        LogFormat::Text => {
            let log = log.with_ansi(false).fmt_fields(fields());
            Box::new(registry.with(log.with_filter(filter)))
        }
        LogFormat::Json => Box::new(registry.with(log.json().with_filter(filter))),
    })
}

/// The client writes the whole body of a response that it cannot read, with the keys in it. Apart
/// from the user's filter, in which a span would switch that on again whatever else it says.
fn has_no_keys(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::ERROR || !metadata.target().starts_with("kube_client::client")
}

/// As `tracing_subscriber` writes fields by default, but no value in full that is too long.
fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let mut head = Head::default();
        write!(head, "{value:?}")?;
        match field.name() {
            "message" => write!(writer, "{head}"),
            name => write!(writer, "{}={head}", name.trim_start_matches("r#")),
        }
    };
    debug_fn(field).delimited(" ")
}

/// The beginning of a value, and how long all of it is. The rest is never in memory.
#[derive(Default)]
struct Head {
    text: String,
    bytes: usize,
}

impl fmt::Write for Head {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = MAX_FIELD_BYTES - self.text.len();
        // After what was cut nothing follows.
        if self.text.len() == self.bytes {
            self.text.push_str(text::start(part, room));
        }
        self.bytes += part.len();
        Ok(())
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.text.len() < self.bytes {
            f.write_str(&mark(self.bytes))?;
        }
        Ok(())
    }
}

/// The mark at the end of a value that was cut.
fn mark(bytes: usize) -> String {
    format!("… ({bytes} bytes in all)")
}

/// At most about so many bytes of a text, and how long it is if that is not all.
fn shortened(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    text::start(text, bytes).to_owned() + &mark(text.len())
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

/// A record as it is written: all but the line break at its end is on one line, which is not too
/// long.
fn escaped(format: LogFormat, record: &str) -> String {
    let (record, end) = match record.strip_suffix('\n') {
        Some(record) => (record, "\n"),
        None => (record, ""),
    };
    match format {
        LogFormat::Text => {
            let line = text::line(record);
            if line.len() < MAX_RECORD_BYTES {
                return line + end;
            }
            // The mark is shorter than that.
            shortened(&line, MAX_RECORD_BYTES - 64) + end
        }
        LogFormat::Json => bounded_json(record) + end,
    }
}

/// A record with shorter values, where it is too long or one of them may be.
fn bounded_json(record: &str) -> String {
    if record.len() <= MAX_FIELD_BYTES {
        return json_line(record);
    }
    let read = serde_json::from_str::<Value>(record).unwrap_or_default();
    for bytes in [MAX_FIELD_BYTES, MAX_FIELD_BYTES / 4, MAX_FIELD_BYTES / 16] {
        let mut shorter = read.clone();
        shorten(&mut shorter, bytes);
        let line = json_line(&shorter.to_string());
        if !read.is_null() && line.len() < MAX_RECORD_BYTES {
            return line;
        }
    }
    let message = format!("a record of {} bytes is left out", record.len());
    json!({"timestamp": read["timestamp"], "level": read["level"], "fields": {"message": message}})
        .to_string()
}

fn shorten(value: &mut Value, bytes: usize) {
    match value {
        Value::String(text) => *text = shortened(text, bytes),
        Value::Array(values) => values.iter_mut().for_each(|value| shorten(value, bytes)),
        Value::Object(fields) => fields.values_mut().for_each(|value| shorten(value, bytes)),
        _ => {}
    }
}

/// What is outside of strings in JSON is plain, so what is not plain is in one, where these escapes
/// mean the same.
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

    /// Line breaks of every kind, control characters of both sets, what reorders and what is not
    /// seen; also beyond the characters that UTF-16 has one unit for.
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

    /// Plain text, what is escaped to several times its length, and characters of several bytes.
    const PARTS: [&str; 4] = ["name.example.com, ", "\u{1b}", "ä", "\u{e0041}"];

    #[test]
    fn no_record_is_longer_than_the_bound_and_says_how_long_the_value_was() {
        let mut lengths = Vec::new();
        for part in PARTS {
            let value = part.repeat(600_000 / part.len());
            let list = vec![value.as_str(); 3];
            let error = io::Error::other(value.clone());
            let log = || {
                let span = tracing::info_span!("span", named = value);
                let _entered = span.enter();
                tracing::info!("the message is {value}");
                tracing::info!(shown = %value, debugged = ?list, plain = value, number = 7, "fields");
                tracing::warn!(%error, "an error");
            };
            for format in [LogFormat::Text, LogFormat::Json] {
                let records = written(format, "info", log);
                assert_eq!(records.len(), 3, "{records:?}");
                for record in &records {
                    assert!(
                        record.len() <= MAX_RECORD_BYTES,
                        "{}: {record}",
                        record.len()
                    );
                    assert!(record.contains("bytes in all)"), "{record}");
                    assert!(record.trim_end().chars().all(text::is_plain), "{record}");
                    lengths.push(record.len());
                }
                if format == LogFormat::Json {
                    let read = |record: &String| serde_json::from_str::<Value>(record).unwrap();
                    let fields = &read(&records[1])["fields"];
                    assert_eq!(
                        (&fields["message"], &fields["number"]),
                        (&json!("fields"), &json!(7))
                    );
                    let mark = format!("… ({} bytes in all)", value.len());
                    assert!(
                        fields["plain"].as_str().unwrap().ends_with(&mark),
                        "{fields}"
                    );
                }
            }
        }
        assert!(
            lengths.iter().any(|length| *length > MAX_FIELD_BYTES),
            "{lengths:?}"
        );
    }

    #[test]
    fn a_value_is_written_in_full_as_long_as_it_is_not_too_long() {
        let value = "a".repeat(MAX_FIELD_BYTES);
        for format in [LogFormat::Text, LogFormat::Json] {
            let record = &written(format, "info", || tracing::info!(it = %value, "logged"))[0];
            assert!(
                record.contains(&value) && !record.contains("in all"),
                "{record}"
            );
            let longer = value.clone() + "b";
            let record = &written(format, "info", || tracing::info!(it = %longer, "logged"))[0];
            let cut = format!("{value}… (1025 bytes in all)");
            assert!(record.contains(&cut), "{record}");
        }
        let record = &written(LogFormat::Text, "info", || {
            tracing::info_span!("span", a = "b", r#type = 1).in_scope(|| {
                tracing::info!(c = "d", e = 2, f = ?Some(3), "said");
            });
        })[0];
        let expected = "INFO span{a=\"b\" type=1}: pki_operator::observability::log::tests: said c=\"d\" e=2 f=Some(3)\n";
        assert!(record.ends_with(expected), "{record}");
    }

    #[test]
    fn what_cannot_be_cut_to_the_bound_is_left_out() {
        let fields: serde_json::Map<_, _> =
            (0..2000).map(|n| (n.to_string(), "a".into())).collect();
        let record = json!({"level": "INFO", "fields": fields}).to_string();
        for (record, level) in [
            (record, json!("INFO")),
            ("no JSON ".repeat(2000), json!(null)),
        ] {
            let line = escaped(LogFormat::Json, &(record.clone() + "\n"));
            let read: Value = serde_json::from_str(&line).unwrap();
            let message = format!("a record of {} bytes is left out", record.len());
            assert_eq!(
                (&read["fields"]["message"], &read["level"]),
                (&json!(message), &level)
            );
        }
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
