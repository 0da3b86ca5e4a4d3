//! The ASCII form of an internationalized name (RFC 3492, RFC 5890), to be suggested to its author.
//!
//! No verdict depends on this module. Only letters that Unicode writes in one way are covered,
//! which needs no tables of normalization.

use super::names;
use std::iter;

/// Returns the folded name in ASCII, if all its letters are covered and a certificate may have it.
pub(super) fn ascii_name(name: &str) -> Option<String> {
    if name.is_ascii() || name.len() > 4 * 253 {
        return None;
    }
    let labels: Option<Vec<_>> = name.split('.').map(ascii_label).collect();
    let encoded = names::fold(&labels?.join("."));
    names::is_certifiable(&encoded).then_some(encoded)
}

fn ascii_label(label: &str) -> Option<String> {
    if label.is_ascii() {
        return Some(label.to_owned());
    }
    // A label has 63 characters, and each takes at least one.
    if label.chars().nth(59).is_some() {
        return None;
    }
    let folded = label.chars().map(folded).collect::<Option<Vec<_>>>()?;
    Some(format!("xn--{}", encoded(&folded)?))
}

/// In lower case, unless Unicode has several ways to write it.
fn folded(letter: char) -> Option<char> {
    if letter.is_ascii_alphanumeric() || letter == '-' {
        return Some(letter.to_ascii_lowercase());
    }
    let mut lower = letter.to_lowercase();
    let (first, second) = (lower.next()?, lower.next());
    let is_plain = matches!(first,
        // Latin, without its digraphs and the long s.
        '\u{df}'..='\u{f6}' | '\u{f8}'..='\u{131}' | '\u{134}'..='\u{13e}' | '\u{141}'..='\u{148}' | '\u{14a}'..='\u{17e}'
        // Greek, Cyrillic and Hebrew.
        | '\u{3ac}'..='\u{3ce}' | '\u{430}'..='\u{45f}' | '\u{5d0}'..='\u{5ea}'
        // Japanese, Chinese and Korean.
        | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}');
    (is_plain && second.is_none()).then_some(first)
}

/// Punycode of a label, by the procedure of RFC 3492, section 6.3.
fn encoded(label: &[char]) -> Option<String> {
    let mut output: String = label.iter().filter(|letter| letter.is_ascii()).collect();
    let basic = u32::try_from(output.len()).ok()?;
    if basic > 0 {
        output.push('-');
    }
    let (mut next, mut delta, mut bias, mut handled) = (0x80_u32, 0_u32, 72, basic);
    let count = u32::try_from(label.len()).ok()?;
    while handled < count {
        let code_points = label.iter().map(|letter| u32::from(*letter));
        let least = code_points.clone().filter(|point| *point >= next).min()?;
        delta = delta.checked_add((least - next).checked_mul(handled + 1)?)?;
        next = least;
        for point in code_points {
            delta = delta.checked_add(u32::from(point < next))?;
            if point == next {
                output.extend(digits(delta, bias));
                bias = adapted(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        next += 1;
    }
    Some(output)
}

const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;

/// A number as a generalized variable-length integer.
fn digits(number: u32, bias: u32) -> impl Iterator<Item = char> {
    let mut left = Some((number, BASE));
    iter::from_fn(move || {
        let (number, position) = left?;
        let threshold = position.saturating_sub(bias).clamp(T_MIN, T_MAX);
        let (digit, rest) = if number < threshold {
            (number, None)
        } else {
            let (number, radix) = (number - threshold, BASE - threshold);
            let rest = (number / radix, position + BASE);
            (threshold + number % radix, Some(rest))
        };
        left = rest;
        Some(letter(digit))
    })
}

/// A digit as Punycode writes it: a to z, then 0 to 9.
fn letter(digit: u32) -> char {
    let digit = u8::try_from(digit).unwrap_or_default();
    char::from(if digit < 26 {
        b'a' + digit
    } else {
        b'0' + digit - 26
    })
}

/// The bias for the next number (RFC 3492, section 6.1).
fn adapted(delta: u32, handled: u32, is_first: bool) -> u32 {
    let mut delta = delta / if is_first { 700 } else { 2 };
    delta += delta / handled;
    let mut position = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        position += BASE;
    }
    position + (BASE - T_MIN + 1) * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_as_by_idna() {
        for (name, ascii) in [
            ("bücher.example.com", "xn--bcher-kva.example.com"),
            ("BÜCHER.Example.com.", "xn--bcher-kva.example.com"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("аpple.example.com", "xn--pple-43d.example.com"),
            ("faß.de", "xn--fa-hia.de"),
            ("münchen-ost.de", "xn--mnchen-ost-9db.de"),
            ("ü.com", "xn--tda.com"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("παράδειγμα.δοκιμή", "xn--hxajbheg2az3al.xn--jxalpdlp"),
            ("пример.испытание", "xn--e1afmkfd.xn--80akhbyknj4f"),
            ("실례.테스트", "xn--9n2bp8q.xn--9t4b11yi5a"),
            // RFC 3492, section 7.1: Chinese, Czech, Russian.
            ("他们为什么不说中文.a", "xn--ihqwcrb4cv8a8dqg056pqjye.a"),
            (
                "Pročprostěnemluvíčesky.a",
                "xn--proprostnemluvesky-uyb24dma41a.a",
            ),
            (
                "почемужеонинеговорятпорусски.a",
                "xn--b1abfaaepdrnnbgefbadotcwatmq2g4l.a",
            ),
        ] {
            assert_eq!(ascii_name(name).as_deref(), Some(ascii), "{name}");
        }
    }

    #[test]
    fn nothing_is_suggested_where_a_letter_is_written_in_several_ways() {
        let long = "ü".repeat(60);
        let longer = format!("{}com", "ü.".repeat(10_000));
        for name in [
            "example.com",
            "",
            // A combining mark, a ligature, full-width and invisible characters, the Kelvin sign,
            // other dots, a symbol.
            "bu\u{308}cher.de",
            "ﬁsch.de",
            "ｄb.victim.svc",
            "d\u{ad}b.de",
            "a\u{200d}b.de",
            "\u{212a}elvin.de",
            "db。victim。svc",
            "db․victim․svc",
            "i❤.ws",
            "İ.tr",
            "ĳ.nl",
            "ü_.de",
            "ü b.de",
            "ü..de",
            "-ü.*.de",
            &long,
            &longer,
        ] {
            assert_eq!(ascii_name(name), None, "{name:?}");
        }
    }
}
