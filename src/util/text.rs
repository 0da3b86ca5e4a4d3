//! Text for people: user input made printable, cut to a length, and compared with known names.

use rapidfuzz::distance::osa;

/// A value as one [`line()`] of at most 253 characters, the longest name in Kubernetes.
pub fn printable(text: &str) -> String {
    match text.char_indices().nth(253) {
        Some((end, _)) => line(&text[..end]) + "…",
        None => line(text),
    }
}

/// A text as one [`line()`] of at most 4 KiB: as much as the operator writes into a condition.
pub fn sentence(text: &str) -> String {
    const MAX_SENTENCE_BYTES: usize = 4096;
    cut(&line(&cut(text, MAX_SENTENCE_BYTES)), MAX_SENTENCE_BYTES)
}

/// The first `most` of these items, printable, with commas between, and how many more there are.
pub fn first_of(items: &[String], most: usize) -> String {
    let shown: Vec<_> = items
        .iter()
        .take(most)
        .map(|item| printable(item))
        .collect();
    match items.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `text` on one line, with escapes for control characters, line breaks, and the bidirectional and
/// invisible marks of Unicode (UTR 36, "Trojan Source").
pub fn line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_debug());
        }
    }
    shown
}

/// Whether a character is shown as it is, by itself.
pub fn is_plain(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

/// At most `bytes` bytes of `text`, cut on a character boundary, with an ellipsis where it was cut.
pub fn cut(text: &str, bytes: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= bytes {
        return text.to_owned();
    }
    if bytes < ELLIPSIS.len() {
        return String::new();
    }
    start(text, bytes - ELLIPSIS.len()).to_owned() + ELLIPSIS
}

/// At most `bytes` bytes of the start of `text`, cut on a character boundary.
pub fn start(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// `before`, `inner` and `after` in at most `bytes` bytes; only `inner` is cut.
pub fn fit(before: &str, inner: &str, after: &str, bytes: usize) -> String {
    let room = bytes.saturating_sub(before.len() + after.len());
    cut(&format!("{before}{}{after}", cut(inner, room)), bytes)
}

/// `beginning` and as many lines as fit into `bytes` bytes, and how many more there are.
pub fn list(beginning: &str, lines: &[String], bytes: usize) -> String {
    let more = |left: usize| match left {
        0 => String::new(),
        left => format!("; and {left} more"),
    };
    let mut joined = beginning.to_owned();
    for (index, line) in lines.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        let left = lines.len() - index;
        if joined.len() + separator.len() + line.len() + more(left - 1).len() > bytes {
            return match index {
                0 => fit(&joined, line, &more(left - 1), bytes),
                _ => joined + &more(left),
            };
        }
        joined = joined + separator + line;
    }
    joined
}

/// The name that was probably meant: one to three edits away, by length, in whatever case.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The time to count edits is the product of both lengths.
    let folded = name.to_ascii_lowercase();
    let near = names.filter(|known| known.len().abs_diff(name.len()) <= 3);
    let distances = near.map(|known| {
        let edits = osa::distance(known.to_ascii_lowercase().chars(), folded.chars());
        (edits, known)
    });
    let (distance, known) = distances.min()?;
    (distance <= (name.len() / 3).clamp(1, 3)).then_some(known)
}

/// A DNS subdomain, as names of Secrets are: labels with dots between, at most 253 characters.
pub fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The digits of a name, in order.
pub fn digits(name: &str) -> String {
    name.matches(|c: char| c.is_ascii_digit()).collect()
}

/// Formats an error and its causes on one line, each once. Only the first line of each is kept: the
/// others quote the input, which may hold keys.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let errors = std::iter::successors(Some(error), |error| error.source());
    let mut chain = String::new();
    for error in errors {
        let error = error.to_string();
        let error = line(error.lines().next().unwrap_or_default());
        if chain.is_empty() {
            chain = error;
        } else if !chain.contains(&error) {
            chain = format!("{chain}: {error}");
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        assert_eq!(printable("a\x1b[31mb"), r"a\u{1b}[31mb");
        assert_eq!(printable("a\nb\r\0"), r"a\nb\r\0");
        assert_eq!(printable("\u{202e}1ppa"), r"\u{202e}1ppa");
        assert_eq!(
            printable("a\u{ad}\u{200b}\u{2028}b"),
            r"a\u{ad}\u{200b}\u{2028}b"
        );
        assert_eq!(printable("größe \"a\" c:\\"), "größe \"a\" c:\\");
        assert_eq!(printable(&"a".repeat(300)).chars().count(), 254);
    }

    #[test]
    fn a_cut_falls_between_characters_and_within_the_limit() {
        assert_eq!(cut("abc", 3), "abc");
        for limit in 3..12 {
            let text = cut("äöüäöüäöü", limit);
            assert!(
                text.len() <= limit && text.ends_with('…'),
                "{limit}: {text}"
            );
        }
    }

    #[test]
    fn text_of_others_is_shown_in_part() {
        assert_eq!(sentence("It is\nso."), r"It is\nso.");
        for part in ["a", "\u{1b}", "ä"] {
            let shown = sentence(&part.repeat(100_000));
            assert!(
                (4090..=4096).contains(&shown.len()) && shown.ends_with('…'),
                "{shown}"
            );
        }
        let items: Vec<_> = (0..4).map(|n| format!("{n}\t")).collect();
        assert_eq!(first_of(&items, 4), r"0\t, 1\t, 2\t, 3\t");
        assert_eq!(first_of(&items, 2), r"0\t, 1\t and 2 more");
        assert_eq!(first_of(&[], 2), "");
    }

    #[test]
    fn of_a_text_with_a_quotation_it_is_the_quotation_that_is_cut() {
        assert_eq!(fit("a ", "bcd", " e", 7), "a bcd e");
        assert_eq!(fit("a ", "bcdefghi", " e", 9), "a bc… e");
        assert!(fit("a ", "ü".repeat(600).as_str(), " e", 1024).ends_with("ü… e"));
        assert_eq!(fit("abcdefgh", "i", "k", 6), "abc…");
    }
}
