//! What a run found, for people and for programs.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{
    course::Course,
    latency::Quantiles,
    plan::{Dialect, Plan},
    seen::Stalled,
};

/// What a run found. As JSON it is the object of `bench --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    actions_per_s: f64,
    events_per_s: f64,
    latency_ms: Option<Quantiles>,
    complete: bool,
    /// How many were in effect at the end.
    actions: u64,
    events: u64,
    /// States that were left out because newer ones took their place.
    skipped: u64,
    subscribers: usize,
    writers: usize,
    pipeline: usize,
    rate: Option<usize>,
    dialect: &'static str,
    seconds: f64,
    /// Where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled: Option<Stalled>,
    #[serde(flatten)]
    server: Option<OfServer>,
}

/// What the server needed for it.
#[derive(Clone, Debug, Serialize)]
struct OfServer {
    cpu_us_per_event: Option<f64>,
    cpu_us_per_action: Option<f64>,
    rss_bytes: u64,
}

/// What the server's process used in the run.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub cpu: Duration,
    pub resident_bytes: u64,
}

impl Report {
    /// Takes a run as it stands after some time.
    pub fn new(course: &Course, took: Duration, complete: bool, used: Option<Used>) -> Self {
        let Plan {
            subscribers,
            writers,
            pipeline,
            rate,
            dialect,
            ..
        } = *course.plan();
        let (actions, told) = (course.in_effect(), course.told());
        let a_second = |count: u64| ratio(count as f64, took.as_secs_f64()).unwrap_or(0.0);
        Self {
            actions_per_s: a_second(actions),
            events_per_s: a_second(told.events),
            latency_ms: course.latency().quantiles(),
            complete,
            actions,
            events: told.events,
            skipped: told.skipped,
            subscribers,
            writers,
            pipeline,
            rate,
            dialect: match dialect {
                Dialect::Classic => "classic",
                Dialect::V1 => "tallyroom.v1",
            },
            seconds: round(took.as_secs_f64(), 6),
            stalled: Some(course.stalled()).filter(|stalled| stalled.count > 0),
            server: used.map(|used| OfServer::new(used, told.events, actions)),
        }
    }

    /// A few lines for people.
    pub fn table(&self) -> String {
        let mut table = String::new();
        let mut line = |name: &str, what: String| {
            let _ = writeln!(table, "{name:<10}{what}");
        };
        line(
            "actions",
            format!("{:>12}{:>14.0} a second", self.actions, self.actions_per_s),
        );
        line(
            "events",
            format!("{:>12}{:>14.0} a second", self.events, self.events_per_s),
        );
        if self.skipped > 0 {
            line("left out", format!("{:>12}", self.skipped));
        }
        if let Some(Quantiles { p50, p90, p99, max }) = self.latency_ms {
            let what =
                format!("{p50:>9.3} ms p50{p90:>10.3} ms p90{p99:>10.3} ms p99{max:>10.3} ms max");
            line("latency", what);
        }
        if let Some(Stalled {
            count,
            caught_up,
            dropped,
        }) = self.stalled
        {
            line(
                "stalled",
                format!("{count:>12}{caught_up:>14} caught up{dropped:>10} dropped"),
            );
        }
        line(
            "complete",
            format!("{:>12}", if self.complete { "yes" } else { "no" }),
        );
        if let Some(server) = &self.server {
            let shown =
                |us: Option<f64>| us.map_or_else(|| "–".to_owned(), |us| format!("{us:.2}"));
            let (event, action) = (
                shown(server.cpu_us_per_event),
                shown(server.cpu_us_per_action),
            );
            line(
                "cpu",
                format!("{event:>9} µs an event{action:>10} µs an action"),
            );
            line(
                "memory",
                format!("{:>9.1} MiB", server.rss_bytes as f64 / f64::from(1 << 20)),
            );
        }
        table.trim_end().to_owned()
    }
}

impl OfServer {
    fn new(used: Used, events: u64, actions: u64) -> Self {
        let us = used.cpu.as_nanos() as f64 / 1000.0;
        Self {
            cpu_us_per_event: ratio(us, events as f64),
            cpu_us_per_action: ratio(us, actions as f64),
            rss_bytes: used.resident_bytes,
        }
    }
}

fn ratio(what: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| round(what / of, 3))
}

fn round(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(server: Option<OfServer>) -> Report {
        Report {
            actions_per_s: 2313.4,
            events_per_s: 233_653.4,
            latency_ms: Some(Quantiles {
                p50: 0.412,
                p90: 0.5,
                p99: 0.93,
                max: 4.1,
            }),
            complete: true,
            actions: 10_000,
            events: 1_010_000,
            skipped: 0,
            subscribers: 100,
            writers: 1,
            pipeline: 1,
            rate: None,
            dialect: "classic",
            seconds: 4.322,
            stalled: None,
            server,
        }
    }

    #[test]
    fn people_get_a_table() {
        let server = OfServer {
            cpu_us_per_event: Some(3.214),
            cpu_us_per_action: Some(324.6),
            rss_bytes: 12 << 20,
        };
        let expected = "\
actions          10000          2313 a second
events         1010000        233653 a second
latency       0.412 ms p50     0.500 ms p90     0.930 ms p99     4.100 ms max
complete           yes
cpu            3.21 µs an event    324.60 µs an action
memory         12.0 MiB";
        assert_eq!(report(Some(server)).table(), expected);
    }

    #[test]
    fn programs_get_an_object() {
        let json = serde_json::to_value(report(None)).unwrap();
        assert_eq!(json["latency_ms"]["p99"], 0.93);
        assert_eq!(json["rate"], serde_json::Value::Null);
        assert_eq!(json.get("rss_bytes"), None);
        let server = OfServer {
            cpu_us_per_event: ratio(7.0, 2.0),
            cpu_us_per_action: ratio(7.0, 0.0),
            rss_bytes: 4096,
        };
        let json = serde_json::to_value(report(Some(server))).unwrap();
        assert_eq!(
            (&json["cpu_us_per_event"], &json["rss_bytes"]),
            (&3.5.into(), &4096.into())
        );
        assert_eq!(json["cpu_us_per_action"], serde_json::Value::Null);
        assert_eq!(json.get("stalled"), None);
    }
}
