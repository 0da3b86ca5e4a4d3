//! Names and patterns, compared as DNS does: by label, case-folded, without the trailing dot.

use jiff::SignedDuration;
use std::borrow::Cow;

/// Lower case, without the dot of an absolute name (RFC 4343, RFC 1034 section 3.1).
pub(super) fn fold(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A DNS label in Kubernetes (RFC 1123 section 2.1): at most 63 of `a-z`, `0-9` and `-`.
pub(crate) fn is_label(label: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A folded host name, or one behind a whole-label wildcard (RFC 6125 section 6.4.3).
pub(crate) fn is_certifiable(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253 && host.split('.').all(is_label) && !looks_like_ip(host)
}

/// The last label is a number, decimal or hexadecimal: a client would take the name for an address
/// (WHATWG URL, "ends in a number").
pub(super) fn looks_like_ip(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x");
    !last.is_empty() && last.bytes().all(|c| c.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()))
}

/// Whether a pod resolves a name in the cluster or on its own machine, so that no policy can permit
/// it: a single label, `localhost`, or a name under `svc`, `pod` or the cluster's domain.
pub(super) fn is_cluster_internal(name: &str, cluster_domain: &str) -> bool {
    let is_under = |suffix: &&str| {
        let rest = name.strip_suffix(*suffix);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let suffixes = ["svc", "pod", "localhost", "cluster.local", cluster_domain];
    !name.contains('.') || suffixes.iter().any(is_under)
}

/// A name inside the cluster: that of a Service, or one below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServiceName<'a> {
    /// The labels before the Service, which name its pods.
    pub(super) below: Option<&'a str>,
    /// `*` stands for all of the namespace.
    pub(super) service: &'a str,
    pub(super) namespace: &'a str,
}

/// Reads a folded name as `[<below>.]<service>.<namespace>.svc[.<cluster domain>]`, with the longer
/// ending: in a cluster with the domain `svc`, `a.b.svc.svc` is Service a of namespace b.
pub(super) fn service_name<'a>(name: &'a str, cluster_domain: &str) -> Option<ServiceName<'a>> {
    let whole = name.strip_suffix(cluster_domain);
    let rest = whole.and_then(|name| name.strip_suffix(".svc."));
    let rest = rest.or_else(|| name.strip_suffix(".svc"))?;
    let (rest, namespace) = rest.rsplit_once('.')?;
    let (below, service) = match rest.rsplit_once('.') {
        Some((below, service)) => (Some(below), service),
        None => (None, rest),
    };
    Some(ServiceName {
        below,
        service,
        namespace,
    })
}

/// Whether these labels below a Service name one pod, or all. [`labels_match`] has the same rules.
pub(super) fn is_pod(below: &str) -> bool {
    below == "*" || is_label(below) && !below.starts_with("xn--")
}

/// `pattern` with `{namespace}` replaced.
pub(super) fn expand<'a>(pattern: &'a str, namespace: &str) -> Cow<'a, str> {
    if pattern.contains("{namespace}") {
        Cow::Owned(pattern.replace("{namespace}", namespace))
    } else {
        Cow::Borrowed(pattern)
    }
}

/// Whether a pattern has a placeholder other than `{namespace}`, with which it can match nothing.
pub(super) fn has_unknown_placeholder(pattern: &str) -> bool {
    expand(pattern, "").contains(['{', '}'])
}

/// Whether a glob matches the whole of `text`. `*` stands for any run of characters, also none.
/// Time is at most the product of both lengths: a mismatch moves only the last `*`.
pub(super) fn glob_matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g + 1, t));
                g += 1;
            }
            Some(c) if *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, start)) => {
                    retry = Some((after_star, start + 1));
                    g = after_star;
                    t = start + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == b'*')
}

/// Whether a folded name matches a folded pattern label by label. `*` stands for one whole label,
/// also the wildcard label, but not for the last one: `*.*` would permit `db.victim`, a Service of
/// another namespace. Internationalized labels (`xn--`) may look like others, and never match it.
pub(super) fn labels_match(pattern: &str, name: &str) -> bool {
    let is_match = |p: &str, label: &str| p == label || p == "*" && !label.starts_with("xn--");
    let mut name = name.split('.');
    !(pattern == "*" || pattern.ends_with(".*"))
        && pattern
            .split('.')
            .all(|p| name.next().is_some_and(|label| is_match(p, label)))
        && name.next().is_none()
}

/// A duration in hours, minutes and seconds, such as `2160h` or `1h30m`, as Go writes them.
pub(super) fn duration(text: &str) -> Option<SignedDuration> {
    let spelled = |c: u8| c.is_ascii_digit() || matches!(c, b'h' | b'm' | b's');
    if !text.bytes().all(spelled) {
        return None;
    }
    text.parse().ok()
}

/// Formats a whole number of seconds as people write it: `2160h`, `1h30m`.
pub(super) fn display_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let mut text = String::new();
    for (number, unit) in parts.into_iter().filter(|(number, _)| *number != 0) {
        text += &number.to_string();
        text.push(unit);
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_stands_for_any_run_of_characters() {
        for (glob, text) in [
            ("app1", "app1"),
            ("*", ""),
            ("a*c*e", "abcde"),
            ("*-web", "a-b-web"),
            ("a**b", "ab"),
        ] {
            assert!(glob_matches(glob, text), "{glob} {text}");
        }
        for (glob, text) in [
            ("app1", "app"),
            ("app1", "app12"),
            ("a*c", "ab"),
            ("*-web", "web"),
            ("", "a"),
        ] {
            assert!(!glob_matches(glob, text), "{glob} {text}");
        }
    }

    #[test]
    fn a_star_in_a_dns_pattern_stands_for_one_whole_label() {
        assert!(labels_match("*.example.com", "a.example.com"));
        assert!(labels_match("*.example.com", "*.example.com"));
        for name in [
            "example.com",
            "a.b.example.com",
            "a.example.com.evil.org",
            "a.example.co",
        ] {
            assert!(!labels_match("*.example.com", name), "{name}");
        }
        assert!(!labels_match("a.example.com", "*.example.com"));
    }

    #[test]
    fn a_star_stands_neither_for_a_last_label_nor_for_an_internationalized_one() {
        for (pattern, name) in [
            ("*", "com"),
            ("*.*", "db.victim"),
            ("db.*", "db.victim"),
            ("*.example.com", "xn--pple-43d.example.com"),
        ] {
            assert!(!labels_match(pattern, name), "{pattern} {name}");
        }
        assert!(labels_match(
            "xn--pple-43d.example.com",
            "xn--pple-43d.example.com"
        ));
    }

    #[test]
    fn names_inside_the_cluster_are_known_as_such() {
        for name in [
            "db",
            "localhost",
            "a.localhost",
            "svc",
            "db.victim.svc",
            "*.svc",
            "1-2-3-4.ns.pod",
            "kubernetes.default.svc.cluster.local",
            "a.corp.example",
        ] {
            assert!(is_cluster_internal(name, "corp.example"), "{name}");
        }
        for name in [
            "example.com",
            "svc.example.com",
            "notsvc.mysvc",
            "xcluster.locale",
        ] {
            assert!(!is_cluster_internal(name, "cluster.local"), "{name}");
        }
    }

    #[test]
    fn a_name_inside_the_cluster_has_service_and_namespace() {
        let read = |name: &'static str, domain: &str| {
            let read = service_name(name, domain)?;
            Some((read.below, read.service, read.namespace))
        };
        for (name, domain, expected) in [
            ("db.ns.svc", "cluster.local", Some((None, "db", "ns"))),
            (
                "db.ns.svc.cluster.local",
                "cluster.local",
                Some((None, "db", "ns")),
            ),
            (
                "a.db.ns.svc",
                "cluster.local",
                Some((Some("a"), "db", "ns")),
            ),
            ("a.b.db.ns.svc.x", "x", Some((Some("a.b"), "db", "ns"))),
            ("*.db.ns.svc", "x", Some((Some("*"), "db", "ns"))),
            ("*.ns.svc", "x", Some((None, "*", "ns"))),
            ("*.svc", "x", None),
            ("svc", "x", None),
            ("db.ns", "x", None),
            ("db.ns.svc.cluster.local", "corp.example", None),
            ("db.ns.svcx", "x", None),
            // Domains that look like a part of the names.
            ("db.victim.svc.svc", "svc", Some((None, "db", "victim"))),
            ("x.db.svc.svc.svc", "svc", Some((Some("x"), "db", "svc"))),
            ("db.ns.svc.b.svc", "b.svc", Some((None, "db", "ns"))),
            ("x.db.b.svc", "b.svc", Some((Some("x"), "db", "b"))),
        ] {
            assert_eq!(read(name, domain), expected, "{name} {domain}");
        }
    }

    #[test]
    fn a_pod_is_one_label_below_its_service() {
        for label in ["db-0", "*", "0", "10-1-2-3", &"a".repeat(63)] {
            assert!(is_pod(label), "{label}");
        }
        for label in [
            "",
            "a.b",
            "*.a",
            "a*",
            "-a",
            "A",
            "xn--a-0ca",
            &"a".repeat(64),
        ] {
            assert!(!is_pod(label), "{label}");
        }
    }

    #[test]
    fn other_text_than_host_names_is_not_certified() {
        for name in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "a b.c",
            "*.*.a",
            "a.*.b",
            "*a.b",
            "a\0.b",
            "a\n.b",
            "10.0.0.1",
            "ex.0x1.1",
            "10.0.0.0x1",
            "10.0.0.0x",
            "ünicode.com",
            &format!("{}.com", "a".repeat(64)),
            &"a.".repeat(128),
        ] {
            assert!(!is_certifiable(&fold(name)), "{name:?}");
        }
        for name in [
            "example.com",
            "*.example.com",
            "EXAMPLE.com.",
            "xn--bcher-kva.example",
        ] {
            assert!(is_certifiable(&fold(name)), "{name}");
        }
    }

    #[test]
    fn durations_read_as_they_are_written() {
        for (text, seconds) in [
            ("2160h", 7_776_000),
            ("1h30m", 5400),
            ("90s", 90),
            ("1h0m1s", 3601),
        ] {
            let read = duration(text).expect(text);
            assert_eq!(read, SignedDuration::from_secs(seconds), "{text}");
            assert_eq!(duration(&display_duration(read)), Some(read), "{text}");
        }
        for text in [
            "",
            "h",
            "90",
            "1d",
            "-1h",
            "1.5h",
            " 1h",
            "PT1H",
            "9999999999999999999h",
        ] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }
}
