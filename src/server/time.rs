//! Times as Ollama writes them: RFC 3339, up to nine fractional digits without trailing zeros.

use chrono::{DateTime, FixedOffset, Local, Offset, TimeZone, Utc};
use std::time::{Duration, SystemTime};

/// Now, in UTC: `created_at`.
pub fn now() -> String {
    written(&Utc::now())
}

/// A time with the server's offset: `modified_at`, `expires_at`.
pub fn local(time: SystemTime) -> String {
    written(&DateTime::<Local>::from(time))
}

/// Seconds since 1970, as OpenAI counts.
pub fn unix_seconds(time: SystemTime) -> i64 {
    DateTime::<Utc>::from(time).timestamp()
}

/// Nanoseconds on the wire; more than 584 years are cut.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn written<Z: TimeZone>(time: &DateTime<Z>) -> String {
    let time: DateTime<FixedOffset> = time.with_timezone(&time.offset().fix());
    let text = time.format("%Y-%m-%dT%H:%M:%S%.9f").to_string();
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match time.offset().local_minus_utc() {
        0 => format!("{text}Z"),
        _ => format!("{text}{}", time.format("%:z")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_offsets() {
        let at = |nanos| DateTime::from_timestamp(1_767_225_600, nanos).unwrap();
        assert_eq!(written(&at(0)), "2026-01-01T00:00:00Z");
        assert_eq!(written(&at(120_000_000)), "2026-01-01T00:00:00.12Z");
        assert_eq!(written(&at(1)), "2026-01-01T00:00:00.000000001Z");
        let east = FixedOffset::east_opt(5400).unwrap();
        assert_eq!(
            written(&at(0).with_timezone(&east)),
            "2026-01-01T01:30:00+01:30"
        );
        assert!(now().ends_with('Z'));
    }
}
