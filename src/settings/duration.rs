//! Go's notation of durations, as in `5m` and `1h30m`.

use std::time::Duration;

/// Reads Go's notation: an optional sign, then numbers with units. `None` is a negative duration, which everywhere
/// means for ever; so does one that is too long to be counted.
///
/// # Errors
/// Go's text for what is no duration.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, after) = split_at(rest, |c| !(c.is_ascii_digit() || c == '.'));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let (unit, after) = split_at(after, |c| c.is_ascii_digit() || c == '.');
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let unknown = || format!("time: unknown unit {unit:?} in duration {text:?}");
        seconds += number * unit_seconds(unit).ok_or_else(unknown)?;
        rest = after;
    }
    let is_negative = text.starts_with('-') && seconds > 0.0;
    let duration = Duration::try_from_secs_f64(seconds).ok();
    Ok(duration.filter(|_| !is_negative))
}

fn split_at(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, millis) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("-0s", Some(0)),
            ("10m", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("+1.5s", Some(1_500)),
            ("300ms", Some(300)),
            ("-1m", None),
            ("99999999999999999999h", None),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refusals_have_gos_texts() {
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            (".", "time: invalid duration \".\""),
            ("10", "time: missing unit in duration \"10\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
        ] {
            assert_eq!(parse_duration(text), Err(error.to_owned()), "{text}");
        }
    }
}
