//! The secret segment in the webhook's path, as in `/4f0c…/validate`.

use std::fmt::{self, Write as _};

pub(super) use crate::api::annotations::SECRET_PATH;

/// The path of the webhook, after the segment.
pub(super) const LEAF: &str = "/validate";

/// The number of random bytes in a segment.
const SEGMENT_BYTES: usize = 32;

/// 256 random bits in hexadecimal. Nothing prints them, `Debug` neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment(String);

/// The webhook path in a configuration, without the part before the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublishedPath {
    /// `/validate` alone, or nothing.
    Plain,
    /// With this segment before it.
    Secret(Segment),
    /// Another path, which is not answered.
    Other,
}

impl Segment {
    pub(super) fn generate() -> Self {
        let mut bytes = [0_u8; SEGMENT_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has random numbers");
        let mut text = String::with_capacity(2 * SEGMENT_BYTES);
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a String takes any text");
        }
        Self(text)
    }

    /// Reads a segment; `None` if the text has another form.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_segment = text.len() == 2 * SEGMENT_BYTES && text.bytes().all(is_digit);
        is_segment.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not depend on where two segments differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        let (one, other) = (self.0.as_bytes(), other.0.as_bytes());
        aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Segment(…)")
    }
}

/// Reads the path, or the URL, of a webhook.
pub(super) fn published(address: &str) -> PublishedPath {
    match split(address) {
        Some((_, None)) => PublishedPath::Plain,
        Some((_, Some(segment))) => PublishedPath::Secret(segment),
        None => PublishedPath::Other,
    }
}

/// Puts a segment into a path or URL, or takes it out; `None` for a path that is not answered.
pub(super) fn with(address: &str, segment: Option<&Segment>) -> Option<String> {
    let (base, _) = split(address)?;
    Some(match segment {
        Some(segment) => format!("{base}/{}{LEAF}", segment.as_str()),
        None => format!("{base}{LEAF}"),
    })
}

/// Splits an address into the part before the segment, and the segment.
fn split(address: &str) -> Option<(&str, Option<Segment>)> {
    if address.is_empty() {
        return Some(("", None));
    }
    let rest = address.strip_suffix(LEAF)?;
    let segment = rest
        .rsplit_once('/')
        .and_then(|(base, last)| Some((base, Segment::read(last)?)));
    Some(segment.map_or((rest, None), |(base, segment)| (base, Some(segment))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_random_has_one_form_and_is_not_shown() {
        let [one, other] = [Segment::generate(), Segment::generate()];
        assert!(!one.is(&other) && one.is(&one.clone()));
        assert_eq!(Segment::read(one.as_str()), Some(one.clone()));
        assert_eq!(format!("{one:?}"), "Segment(…)");
        let long = "a".repeat(64);
        for text in [
            "",
            "validate",
            &long[1..],
            &format!("{long}a"),
            &long.to_uppercase(),
            &format!("{}g", &long[1..]),
            &format!("{}\n", &long[1..]),
        ] {
            assert_eq!(Segment::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_segment_is_put_into_a_path_or_url_and_taken_out_again() {
        let segments = [Segment::generate(), Segment::generate()];
        let [one, other] = segments.each_ref();
        for (plain, base) in [
            ("/validate", ""),
            ("https://192.0.2.1:8443/validate", "https://192.0.2.1:8443"),
            (
                "https://example.com/a/b/validate",
                "https://example.com/a/b",
            ),
        ] {
            let secret = format!("{base}/{}/validate", one.as_str());
            assert_eq!(published(plain), PublishedPath::Plain);
            assert_eq!(published(&secret), PublishedPath::Secret(one.clone()));
            for address in [plain, &secret] {
                let with = |segment| with(address, segment);
                assert_eq!(with(None).as_deref(), Some(plain));
                assert_eq!(with(Some(one)).as_deref(), Some(&*secret));
                let rotated = format!("{base}/{}/validate", other.as_str());
                assert_eq!(with(Some(other)), Some(rotated));
            }
        }
        // The API server asks at the root, which is not answered.
        assert_eq!(published(""), PublishedPath::Plain);
        assert_eq!(with("", None).as_deref(), Some("/validate"));
        for other in ["/", "/mutate", "/validate/", "https://example.com"] {
            assert_eq!(published(other), PublishedPath::Other);
            assert_eq!(with(other, Some(one)), None);
        }
    }
}
