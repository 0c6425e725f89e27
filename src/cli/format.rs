//! Sizes, counts, times and durations as the tables and timings print them.

use chrono::{DateTime, TimeDelta, Utc};

/// Bytes in decimal units: a value of ten or more is cut to an integer, a smaller one has one decimal unless whole.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "KB"),
    ];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} B");
    };
    if bytes >= 10 * unit || bytes.is_multiple_of(unit) {
        format!("{} {name}", bytes / unit)
    } else {
        format!("{:.1} {name}", bytes as f64 / unit as f64)
    }
}

/// How long ago or ahead of `now` the RFC 3339 time `then` is; Go's zero time, or no time, is `Never`.
pub fn relative(then: &str, now: DateTime<Utc>) -> String {
    match time(then) {
        None => "Never".to_owned(),
        Some(then) if then > now => format!("{} from now", span(then - now)),
        Some(then) => format!("{} ago", span(now - then)),
    }
}

/// An RFC 3339 time; `None` for Go's zero time and for anything unreadable.
pub fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    (!text.starts_with("0001-01-01T00:00:00")).then_some(time)
}

/// A span of time in one rough unit.
fn span(span: TimeDelta) -> String {
    let hours = (span.num_seconds() as f64 / 3600.0).round() as i64;
    match (span.num_seconds(), span.num_minutes()) {
        (0, _) => "Less than a second".to_owned(),
        (1, _) => "1 second".to_owned(),
        (seconds @ ..60, _) => format!("{seconds} seconds"),
        (_, 1) => "About a minute".to_owned(),
        (_, minutes @ ..60) => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Nanoseconds in Go's notation: `689.597µs`, `71.213ms`, `1m2.5s`.
pub fn duration(nanos: u64) -> String {
    let scaled = |n: u64, unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", n / unit, n % unit);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        format!("{text}{name}")
    };
    let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => scaled(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(nanos, 1_000_000, "ms"),
        _ if minutes == 0 => scaled(nanos, 1_000_000_000, "s"),
        _ if minutes < 60 => format!("{minutes}m{}", scaled(rest, 1_000_000_000, "s")),
        _ => format!(
            "{}h{}m{}",
            minutes / 60,
            minutes % 60,
            scaled(rest, 1_000_000_000, "s")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 KB"),
            (1024, "1.0 KB"),
            (9_990, "10.0 KB"),
            (10_999, "10 KB"),
            (98_280_000, "98 MB"),
            (1_550_000_000, "1.6 GB"),
            (3_000_000_000_000, "3 TB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn relative_times_have_one_unit() {
        let now = time("2026-01-01T00:00:00Z").unwrap();
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (299, "4 minutes"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (5_400, "2 hours"),
            (47 * 3_600, "47 hours"),
            (48 * 3_600, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (730 * 86_400, "2 years"),
        ] {
            assert_eq!(span(TimeDelta::seconds(seconds)), text, "{seconds}");
        }
        assert_eq!(
            relative("2026-01-01T00:05:00.25+01:00", now),
            "54 minutes ago"
        );
        assert_eq!(
            relative("2026-01-01T00:05:00.25Z", now),
            "5 minutes from now"
        );
        assert_eq!(relative("0001-01-01T00:00:00Z", now), "Never");
        assert_eq!(relative("", now), "Never");
    }

    #[test]
    fn durations_are_gos() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (689_597, "689.597µs"),
            (71_213_000, "71.213ms"),
            (106_535_388, "106.535388ms"),
            (1_000_000_000, "1s"),
            (62_500_000_000, "1m2.5s"),
            (60_000_000_000, "1m0s"),
            (3_723_000_000_000, "1h2m3s"),
        ] {
            assert_eq!(duration(nanos), text, "{nanos}");
        }
    }
}
