//! Times and tables, as kubectl shows them.

use crate::util::text;
use jiff::{SignedDuration, Timestamp};

/// A length of time in its largest unit of which there are at least two.
pub fn duration(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(size, _)| seconds >= 2 * size);
    let (size, name) = unit.unwrap_or((1, 's'));
    format!("{}{name}", seconds / size)
}

/// How long ago that was.
pub fn age(time: Timestamp, now: Timestamp) -> String {
    duration(now.duration_since(time))
}

/// How long until then, or that it is over.
pub fn until(time: Timestamp, now: Timestamp) -> String {
    let left = time.duration_since(now);
    if left.is_negative() {
        format!("{} ago", duration(-left))
    } else {
        duration(left)
    }
}

/// A table, each column as wide as its widest cell. Cells are made printable; empty ones are `-`.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let shown = rows.iter().map(|row| {
        row.each_ref().map(|cell| match cell.as_str() {
            "" => "-".to_owned(),
            cell => text::printable(cell),
        })
    });
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(shown);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        let cells: Vec<_> = cells.collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// `count` of something, as in `1 Pki`.
pub fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_shown_in_its_largest_useful_unit() {
        for (seconds, shown) in [
            (0, "0s"),
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7199, "119m"),
            (7200, "2h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (7_776_000, "90d"),
        ] {
            assert_eq!(duration(SignedDuration::from_secs(seconds)), shown);
        }
        let now = Timestamp::from_second(1000).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(until(at(1300), now), "5m");
        assert_eq!(until(at(700), now), "5m ago");
        assert_eq!(age(at(940), now), "60s");
        assert_eq!(age(at(2000), now), "0s", "a clock may be behind");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_and_nothing_steers_the_terminal() {
        let rows = [
            ["ä".to_owned(), "x\u{1b}[2J".to_owned()],
            ["abcdef".to_owned(), String::new()],
        ];
        assert_eq!(
            table(["A", "B"], &rows),
            "A        B\nä        x\\u{1b}[2J\nabcdef   -\n"
        );
        assert_eq!(table(["A"], &[]), "A\n");
    }
}
