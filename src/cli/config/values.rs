//! Parsers of the values of flags. Each refusal names what to write.

use crate::policy::{is_certifiable, is_label, range};
use crate::util::text::is_subdomain;
use axum::http::Uri;
use axum::http::uri::Authority;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// The most seconds, a day, unless a flag has a bound of its own.
const MAX_SECONDS: u64 = 86_400;

pub(crate) fn addresses(text: &str) -> Result<IpNet, String> {
    range(text).ok_or_else(|| "write an IP address, or a range such as 10.96.0.0/12".into())
}

pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    let read = text.parse();
    read.map_err(|_| "write an IP address and a port, such as 0.0.0.0:8443 or [::]:8443".into())
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    let expected = "write the name of a namespace: at most 63 lower-case letters, digits and hyphens, with a letter or digit at \
        both ends";
    only_if(is_label(text), text, expected)
}

/// The name of an object that is a DNS subdomain, such as that of a Secret or a Lease.
pub(super) fn object_name(text: &str) -> Result<String, String> {
    let expected = "write the name of an object: at most 253 lower-case letters, digits, hyphens and dots, with a letter or digit \
        at both ends of each part between dots";
    only_if(is_subdomain(text), text, expected)
}

/// The cluster's domain, with a dot at the end or without.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let domain = text.strip_suffix('.').unwrap_or(text);
    let is_domain = is_subdomain(&domain.to_ascii_lowercase());
    only_if(is_domain, text, "write a DNS domain such as cluster.local")
}

pub(super) fn host(text: &str) -> Result<String, String> {
    let is_name = !text.starts_with('*') && is_certifiable(&text.to_ascii_lowercase());
    let is_host = is_name || text.parse::<IpAddr>().is_ok();
    let expected =
        "write a host name or an IP address, without a scheme, a port or brackets around it";
    only_if(is_host, text, expected)
}

pub(super) fn identity(text: &str) -> Result<String, String> {
    let expected = "write a name unlike that of any other replica, such as the pod's";
    only_if(!text.trim().is_empty(), text, expected)
}

/// The base URL of a collector.
pub(super) fn endpoint(text: &str) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.authority().map(Authority::as_str);
        is_http && host.is_some_and(|host| !host.contains('@')) && uri.query().is_none()
    });
    let expected = "write a URL such as http://collector:4318, with http:// or https:// and without user, query and fragment";
    uri.filter(|_| !text.contains('#'))
        .ok_or_else(|| expected.into())
}

pub(super) fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok();
    let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "write a number from 0 to 1, such as 0.1".into())
}

/// The filter of log records. A mistyped level would be read as a target, and silence all others.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let unknown = |part: &&str| !part.contains('=') && part.parse::<LevelFilter>().is_err();
    let problem = match text.split(',').map(str::trim).find(unknown) {
        Some(part) => format!("\"{part}\" is not a level"),
        None => match EnvFilter::try_new(text) {
            Ok(_) => return Ok(text.to_owned()),
            Err(error) => error.to_string(),
        },
    };
    Err(format!(
        "write a level (error, warn, info, debug, trace, off), or a filter such as info,pki_operator=debug ({problem})"
    ))
}

/// A whole number of something, in these bounds.
pub(super) fn whole(
    what: &'static str,
    bounds: RangeInclusive<u32>,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        let (least, most) = (bounds.start(), bounds.end());
        number.ok_or_else(|| format!("write a whole number of {what} from {least} to {most}"))
    }
}

/// A time in seconds: at least `least`, and at most a day.
pub(super) fn seconds(
    least: u64,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let bounds = least..=MAX_SECONDS;
    move |text| {
        let seconds = text.parse().ok().filter(|it| bounds.contains(it));
        let expected = || format!("write a whole number of seconds from {least} to {MAX_SECONDS}");
        seconds.map(Duration::from_secs).ok_or_else(expected)
    }
}

fn only_if(holds: bool, text: &str, expected: &str) -> Result<String, String> {
    let text = holds.then(|| text.to_owned());
    text.ok_or_else(|| expected.to_owned())
}
