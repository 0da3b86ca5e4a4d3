//! The rates of a run as a picture: a bar for each row, those of one name side by side.

use crate::report::Row;
use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const BAR: f64 = 18.0;
/// Between the rows of one name and those of the next.
const GAP: f64 = 14.0;
/// Where bars begin, and the most that they take.
const LEFT: f64 = 330.0;
const LONGEST: f64 = 420.0;

/// An SVG. The longest bar of each name takes all of its width: what is compared is the growth
/// within it.
pub(crate) fn svg(rows: &[Row]) -> String {
    let mut bars = String::new();
    let mut y = GAP;
    for (index, row) in rows.iter().enumerate() {
        let is_first = index == 0 || rows[index - 1].name != row.name;
        if is_first && index > 0 {
            y += GAP;
        }
        let of_name = rows.iter().filter(|other| other.name == row.name);
        let most = of_name.map(|other| other.rate).fold(0.0, f64::max);
        let length = if most > 0.0 {
            row.rate / most * LONGEST
        } else {
            0.0
        };
        let middle = y + BAR * 0.7;
        let name = if is_first { row.name.as_str() } else { "" };
        let _ = writeln!(
            bars,
            r##"  <text x="8" y="{middle:.1}">{name}</text>
  <text x="{:.1}" y="{middle:.1}" text-anchor="end">{}</text>
  <rect x="{LEFT:.1}" y="{y:.1}" width="{length:.1}" height="{:.1}" fill="#4878a8"/>
  <text x="{:.1}" y="{middle:.1}">{:.0} a second</text>"##,
            LEFT - 8.0,
            row.objects,
            BAR - 4.0,
            LEFT + length + 6.0,
            row.rate,
        );
        y += BAR;
    }
    let height = y + GAP;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" font-family="sans-serif" font-size="12">
  <rect width="100%" height="100%" fill="#ffffff"/>
{bars}</svg>
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_of_each_name_has_all_of_the_width() {
        let row = |name: &str, objects, rate| Row {
            name: name.into(),
            objects,
            rate,
            ..Row::default()
        };
        let svg = svg(&[row("a", 10, 50.0), row("a", 20, 100.0), row("b", 10, 3.0)]);
        for (width, count) in [("width=\"210.0\"", 1), ("width=\"420.0\"", 2)] {
            assert_eq!(svg.matches(width).count(), count, "{svg}");
        }
        assert_eq!(
            svg.matches(">a</text>").count(),
            1,
            "a name is written once"
        );
    }
}
