//! Plain scalars as kubectl reads them: by YAML 1.1 (go.yaml.in/yaml/v2, `resolve.go`).

use serde_json::{Number, Value};

/// The value of a plain scalar; `None` for a number that JSON does not have.
pub(super) fn plain(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            true.into()
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            false.into()
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return None,
        _ if begins_a_number(text) => return number(text),
        _ => text.into(),
    })
}

fn begins_a_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
}

/// A number, or else the text.
fn number(text: &str) -> Option<Value> {
    // Integers may have underscores, and floats that begin with a digit or sign.
    let digits = text.replace('_', "");
    if let Some(number) = integer(&digits) {
        return Some(number.into());
    }
    let text_or_digits = if text.starts_with('.') { text } else { &digits };
    if !is_float(text_or_digits) {
        return Some(text.into());
    }
    // On its way to the API server, a number without a fraction becomes an integer.
    let float = text_or_digits.parse::<f64>().ok()?;
    let whole = format!("{float:.0}").parse::<i64>().ok();
    let whole = whole.filter(|_| float.fract() == 0.0);
    whole.map_or_else(
        || Number::from_f64(float).map(Value::Number),
        |whole| Some(whole.into()),
    )
}

/// Reads an integer as Go's `strconv.ParseInt` does with base 0.
fn integer(digits: &str) -> Option<Number> {
    let (is_negative, rest) = match digits.as_bytes().first()? {
        b'-' => (true, &digits[1..]),
        b'+' => (false, &digits[1..]),
        _ => (false, digits),
    };
    let prefix = rest.get(..2).unwrap_or_default().to_ascii_lowercase();
    let (radix, rest) = match prefix.as_str() {
        "0x" => (16, &rest[2..]),
        "0o" => (8, &rest[2..]),
        "0b" => (2, &rest[2..]),
        _ if rest.len() > 1 && rest.starts_with('0') => (8, &rest[1..]),
        _ => (10, rest),
    };
    if !rest.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(rest, radix).ok()?;
    if is_negative {
        let number = 0i64.checked_sub_unsigned(magnitude)?;
        return Some(number.into());
    }
    Some(magnitude.into())
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let are_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let is_exponent = |text: &str| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        !digits.is_empty() && are_digits(digits)
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    are_digits(whole)
        && are_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(is_exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_that_kubectl_does_not_read_as_text_are_no_text() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("on", json!(true)),
            ("No", json!(false)),
            ("y", json!(true)),
            ("8080", json!(8080)),
            ("-1", json!(-1)),
            ("+7", json!(7)),
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("0777", json!(511)),
            ("08", json!(8)),
            ("0b11", json!(3)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            ("256.0", json!(256)),
            ("1e300", json!(1e300)),
            (".5", json!(0.5)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
        ] {
            assert_eq!(plain(text), Some(value), "{text}");
        }
        for text in [
            "app1",
            "nope",
            "1app",
            "-",
            "+",
            ".",
            "1.2.3",
            "0x",
            "0xg",
            "2160h",
            "10.0.0.0/8",
            "--1",
            "+-1",
            "1e",
            "e1",
            "-.e1",
            "_1",
            "ü",
            "0ü",
        ] {
            assert_eq!(plain(text), Some(json!(text)), "{text}");
        }
        for text in [".inf", "-.INF", ".NaN", "1e999"] {
            assert_eq!(plain(text), None, "{text}");
        }
    }
}
