//! The table that people read, and the same as JSON for those who compare runs.

use crate::clients::Times;
use crate::plot;
use crate::rows::share;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// One measurement. What does not apply to it is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) objects: usize,
    /// Objects or requests a second.
    pub(crate) rate: f64,
    /// Milliseconds.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// The rate as a share of what the API server takes in bare creates of Secrets, or of requests
    /// without webhooks.
    pub(crate) ratio: Option<f64>,
    /// Writes of the operator for each object.
    pub(crate) writes: Option<f64>,
    /// Seconds of processor time that the operator used.
    pub(crate) cpu: Option<f64>,
    /// MiB that the operator has resident at the end.
    pub(crate) resident: Option<f64>,
}

impl Row {
    /// How fast requests were, and how long they took.
    pub(crate) fn of(name: &str, objects: usize, times: &Times) -> Self {
        Self {
            name: name.into(),
            objects,
            rate: times.rate(),
            p50: Some(times.within(50)),
            p99: Some(times.within(99)),
            ..Self::default()
        }
    }

    fn cells(&self) -> [String; 8] {
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or(String::new(), |value| format!("{value:.digits$}"))
        };
        [
            self.objects.to_string(),
            format!("{:.0}", self.rate),
            figure(self.p50, 1),
            figure(self.p99, 1),
            figure(self.ratio, 2),
            figure(self.writes, 2),
            figure(self.cpu, 1),
            figure(self.resident, 0),
        ]
    }

    /// One line, as it is measured.
    pub(crate) fn line(&self) -> String {
        let cells = self.cells();
        let named = HEAD.iter().zip(&cells).filter(|(_, cell)| !cell.is_empty());
        let named: Vec<_> = named.map(|(head, cell)| format!("{head} {cell}")).collect();
        format!("{}: {}", self.name, named.join(", "))
    }
}

const HEAD: [&str; 8] = [
    "objects",
    "rate/s",
    "p50 ms",
    "p99 ms",
    "ratio",
    "writes each",
    "CPU s",
    "resident MiB",
];

/// All rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// As Markdown: of several rounds the median of each figure, and the spread of the rate.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "| what | {} | spread |\n|---|{}---:|\n",
            HEAD.join(" | "),
            "---:|".repeat(HEAD.len())
        );
        for rows in self.rounds() {
            let row = median(&rows);
            let spread = spread(&rows, row.rate);
            let _ = writeln!(
                table,
                "| {} | {} | {spread} |",
                row.name,
                row.cells().join(" | ")
            );
        }
        table
    }

    /// What one more object takes up in memory, and costs in processor time, wherever several sizes
    /// were measured: in the order of the table, each from the smallest size to the largest.
    pub(crate) fn growth(&self) -> String {
        let medians: Vec<_> = self.rounds().iter().map(|rows| median(rows)).collect();
        let mut growth = String::new();
        for first in &medians {
            let same = medians.iter().filter(|row| row.name == first.name);
            let by_size = |row: &&Row| row.objects;
            let (Some(least), Some(most)) =
                (same.clone().min_by_key(by_size), same.max_by_key(by_size))
            else {
                continue;
            };
            if first.objects != least.objects || least.objects == most.objects {
                continue;
            }
            let (Some(before), Some(after)) = (least.resident, most.resident) else {
                continue;
            };
            let memory = (after - before) * 1024.0 / share(most.objects - least.objects, 1);
            let cost = |row: &Row| {
                row.cpu
                    .map_or(f64::NAN, |cpu| cpu * 1000.0 / share(row.objects, 1))
            };
            let _ = writeln!(
                growth,
                "{}: {memory:.1} KiB for each object more; processor time for each {:.2} ms of {}, {:.2} ms of {}",
                first.name,
                cost(least),
                least.objects,
                cost(most),
                most.objects
            );
        }
        growth
    }

    /// The measurements of the same, by name and size.
    fn rounds(&self) -> Vec<Vec<&Row>> {
        let mut rounds: Vec<Vec<&Row>> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.name.as_str()) {
                names.push(&row.name);
            }
            let same =
                |rows: &&mut Vec<&Row>| rows[0].name == row.name && rows[0].objects == row.objects;
            match rounds.iter_mut().find(same) {
                Some(rows) => rows.push(row),
                None => rounds.push(vec![row]),
            }
        }
        // What is compared stands together.
        rounds.sort_by_key(|rows| names.iter().position(|name| *name == rows[0].name));
        rounds
    }

    /// Writes all rows, and a plot of them, into `target/bench/`; where that is.
    pub(crate) fn write(&self) -> anyhow::Result<PathBuf> {
        let dir = pki_cluster::target_dir().with_file_name("bench");
        fs::create_dir_all(&dir)?;
        fs::write(
            dir.join("cluster-bench.json"),
            serde_json::to_string_pretty(&self.rows)?,
        )?;
        let medians: Vec<_> = self.rounds().iter().map(|rows| median(rows)).collect();
        fs::write(dir.join("cluster-bench.svg"), plot::svg(&medians))?;
        Ok(dir)
    }
}

/// How far the rates of several rounds lie apart, as a share of their median.
fn spread(rows: &[&Row], median: f64) -> String {
    if rows.len() < 2 {
        return String::new();
    }
    let rates = rows.iter().map(|row| row.rate);
    let (least, most) = rates.fold((f64::MAX, 0.0_f64), |(least, most), rate| {
        (least.min(rate), most.max(rate))
    });
    format!("{:.0} %", (most - least) / median * 100.0)
}

/// The median of each figure.
fn median(rows: &[&Row]) -> Row {
    let of = |figure: fn(&Row) -> Option<f64>| {
        let mut figures: Vec<_> = rows.iter().filter_map(|row| figure(row)).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    };
    Row {
        name: rows[0].name.clone(),
        objects: rows[0].objects,
        rate: of(|row| Some(row.rate)).unwrap_or_default(),
        p50: of(|row| row.p50),
        p99: of(|row| row.p99),
        ratio: of(|row| row.ratio),
        writes: of(|row| row.writes),
        cpu: of(|row| row.cpu),
        resident: of(|row| row.resident),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rate: f64, writes: Option<f64>) -> Row {
        Row {
            name: "creates".into(),
            objects: 10,
            rate,
            writes,
            ..Row::default()
        }
    }

    #[test]
    fn of_several_rounds_the_table_has_the_median_and_the_spread() {
        let mut report = Report::default();
        for rate in [90.0, 100.0, 120.0] {
            report.add(row(rate, Some(2.0)));
        }
        let table = report.table();
        let line = "| creates | 10 | 100 |  |  |  | 2.00 |  |  | 30 % |";
        assert!(table.contains(line), "{table}");
        assert_eq!(table.lines().count(), 3);
    }

    #[test]
    fn growth_is_told_from_the_smallest_size_to_the_largest() {
        let mut report = Report::default();
        report.add(row(90.0, None));
        assert_eq!(report.growth(), "", "of one size there is nothing to tell");
        for (objects, resident, cpu) in [(2000, 26.0, 2.0), (1000, 24.0, 1.0), (3000, 28.0, 3.3)] {
            report.add(Row {
                name: "restart".into(),
                objects,
                resident: Some(resident),
                cpu: Some(cpu),
                ..Row::default()
            });
        }
        assert_eq!(
            report.growth(),
            "restart: 2.0 KiB for each object more; processor time for each 1.00 ms of 1000, 1.10 ms of 3000\n"
        );
    }

    #[test]
    fn a_line_has_only_what_was_measured() {
        assert_eq!(row(90.0, None).line(), "creates: objects 10, rate/s 90");
    }
}
