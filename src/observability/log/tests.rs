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

/// The writes that `log` causes.
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
fn harmless_text_is_written_unchanged() {
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
fn no_record_is_longer_than_the_bound_and_a_cut_value_has_its_length() {
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
fn a_record_that_cannot_be_cut_to_the_bound_is_left_out() {
    let fields: serde_json::Map<_, _> = (0..2000).map(|n| (n.to_string(), "a".into())).collect();
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
