//! The owner of a name inside the cluster.

use crate::util::text::printable;
use std::fmt;

/// The owner of a name that a Pki cannot have. [`Display`](fmt::Display) adds the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum NameOwner {
    /// Another Service of the namespace; `*` stands for all of them.
    Neighbour(String),
    /// A Service of another namespace; `*` stands for all of them.
    OfNamespace { service: String, namespace: String },
    /// Any Service or pod, or the machine of the client.
    Any,
}

impl fmt::Display for NameOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neighbour(service) if service == "*" => {
                f.write_str("each Service of this namespace: remove it")
            }
            Self::Neighbour(service) => {
                let service = printable(service);
                write!(
                    f,
                    "Service {service} of this namespace: write it into a Pki with serviceName: {service}"
                )
            }
            Self::OfNamespace { service, namespace } => {
                let (service, namespace) = (printable(service), printable(namespace));
                let service = match service.as_str() {
                    "*" => "each Service".to_owned(),
                    _ => format!("Service {service}"),
                };
                write!(f, "{service} of namespace {namespace}: remove it")
            }
            Self::Any => f.write_str("the service it points to: remove it"),
        }
    }
}
