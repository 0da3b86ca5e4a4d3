//! The requests of the operator, read from the API server's audit log.

use crate::Cluster;
use crate::install::RELEASE;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// One request of the operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Verb and resource, as in `create secrets` or `patch pkis/status`.
    pub what: String,
    /// The HTTP status.
    pub code: u64,
    /// The namespace of the object; empty if it has none.
    pub namespace: String,
    /// The name of the object; empty for a list.
    pub name: String,
}

impl Request {
    /// Whether it can have changed something.
    pub fn is_write(&self) -> bool {
        let reads = ["get ", "list ", "watch "];
        !reads.iter().any(|read| self.what.starts_with(read))
    }
}

impl From<&Value> for Request {
    fn from(entry: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        let mut what = format!("{} {}", text(&entry["verb"]), text(&object["resource"]));
        if let Some(subresource) = object["subresource"].as_str() {
            what = format!("{what}/{subresource}");
        }
        Self {
            what,
            code: entry["responseStatus"]["code"].as_u64().unwrap_or_default(),
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
        }
    }
}

/// The audit log of an API server. It reads each line once.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    read: Mutex<ReadSoFar>,
}

#[derive(Debug, Default)]
struct ReadSoFar {
    bytes: u64,
    requests: Vec<Request>,
}

impl AuditLog {
    /// The log of this cluster, none of it read yet.
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            path: cluster.audit_log().to_owned(),
            read: Mutex::default(),
        }
    }

    /// The requests of the operator so far that were answered, and that `is_such` selects.
    ///
    /// Panics if there is no audit log, or a whole line of it is no JSON.
    pub fn requests(&self, is_such: impl Fn(&Request) -> bool) -> Vec<Request> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.read_from(read.bytes).expect("there is an audit log");
        read.bytes += new.len() as u64;
        read.requests
            .extend(new.lines().filter_map(answered_request));
        read.requests
            .iter()
            .filter(|it| is_such(it))
            .cloned()
            .collect()
    }

    /// The whole lines from this byte on.
    fn read_from(&self, offset: u64) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut new = Vec::new();
        file.read_to_end(&mut new)?;
        // The last line may be half written.
        let end = new
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        new.truncate(end);
        String::from_utf8(new).map_err(io::Error::other)
    }
}

/// The request of this line, if it is one of the operator and was answered.
fn answered_request(line: &str) -> Option<Request> {
    // Cheaper than to parse every line.
    if !line.contains(&format!("serviceaccount:{RELEASE}:")) {
        return None;
    }
    let entry: Value = serde_json::from_str(line).expect("a line is JSON");
    let is_answered = entry["stage"] == "ResponseComplete" || entry["stage"] == "Panic";
    is_answered.then(|| Request::from(&entry))
}
