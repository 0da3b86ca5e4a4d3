//! The log: each record is one line, and nothing in it steers a terminal or reorders what is read.
//!
//! Records quote texts of others: names, errors of the API server, files. So a formatted record is
//! escaped as a whole, and no field can be forgotten. Each value is cut, and then the record: the
//! writer of a certificate in a Secret, for example, chooses how long its names are.

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

/// Writes the records of this process that pass `level`, a level or a filter, to standard error. A
/// panic is a record, too.
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
    // The spans of kube_runtime repeat our fields.
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

/// Whether a record has no private keys: the client logs the whole body of an unreadable response.
/// Apart from the user's filter, in which a span could allow such records again.
fn has_no_keys(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::ERROR || !metadata.target().starts_with("kube_client::client")
}

/// Writes fields as `tracing_subscriber` does by default, but cuts values that are too long.
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

/// The beginning of a value, and the length of all of it. The rest is never in memory.
#[derive(Default)]
struct Head {
    text: String,
    bytes: usize,
}

impl fmt::Write for Head {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = MAX_FIELD_BYTES - self.text.len();
        // Nothing follows a cut.
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

/// A text of at most about `bytes` bytes, with its length if it was cut.
fn shortened(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    text::start(text, bytes).to_owned() + &mark(text.len())
}

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

/// Escapes each record, which comes by one call: `tracing_subscriber::fmt` formats into a buffer.
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

/// A record on one line of bounded length, with its line break.
fn escaped(format: LogFormat, record: &str) -> String {
    let (record, end) = match record.strip_suffix('\n') {
        Some(record) => (record, "\n"),
        None => (record, ""),
    };
    match format {
        LogFormat::Text => match text::line(record) {
            line if line.len() < MAX_RECORD_BYTES => line + end,
            // The mark is shorter than that.
            line => shortened(&line, MAX_RECORD_BYTES - 64) + end,
        },
        LogFormat::Json => bounded_json(record) + end,
    }
}

/// A record with shorter values, if it or one of them may be too long.
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

/// Escapes characters that are not plain. In JSON these are inside of strings, where the escapes
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
mod tests;
