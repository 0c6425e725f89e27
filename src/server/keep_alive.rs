//! `keep_alive`: how long a model stays in memory after its last request.

use super::error::ApiError;
use crate::engine::KeepAlive;
use serde_json::Value;
use std::time::Duration;

/// About 292 years, the longest time that Go's nanosecond counter holds; more is for ever.
const LONGEST: Duration = Duration::from_nanos(i64::MAX as u64);

/// Reads a request's value: `None` when absent, for ever when negative.
///
/// # Errors
/// 400 with Go's text for what is no duration.
pub fn parse(value: Option<&Value>) -> Result<Option<KeepAlive>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(n)) => Ok(Some(seconds(n.as_f64().unwrap_or(f64::MAX)))),
        Some(Value::String(text)) => go_duration(text).map(Some).map_err(ApiError::bad_request),
        Some(other) => Err(ApiError::bad_request(format!(
            "Unsupported type: '{}'",
            go_type(other)
        ))),
    }
}

fn seconds(n: f64) -> KeepAlive {
    match Duration::try_from_secs_f64(n) {
        Ok(time) if time < LONGEST => KeepAlive::For(time),
        _ => KeepAlive::Forever,
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        _ => "map[string]interface {}",
    }
}

/// Go's `time.ParseDuration`: a sign, then numbers with units; negative is for ever here.
fn go_duration(text: &str) -> Result<KeepAlive, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(KeepAlive::For(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let (number, after) = split_at(rest, |c| !(c.is_ascii_digit() || c == '.'));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let (unit, after) = split_at(after, |c| c.is_ascii_digit() || c == '.');
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let scale = unit_seconds(unit)
            .ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        total += number * scale;
        rest = after;
    }
    Ok(seconds(if negative { -total } else { total }))
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
    use serde_json::json;

    #[test]
    fn forms() {
        let time = |ms| Some(KeepAlive::For(Duration::from_millis(ms)));
        let forever = Some(KeepAlive::Forever);
        for (sent, expected) in [
            (json!(null), None),
            (json!(0), time(0)),
            (json!(42.5), time(42_500)),
            (json!(-1), forever),
            (json!(1e300), forever),
            (json!("0"), time(0)),
            (json!("10m"), time(600_000)),
            (json!("1h30m"), time(5_400_000)),
            (json!("300ms"), time(300)),
            (json!("-1m"), forever),
            (json!("1000000000h"), forever),
        ] {
            assert_eq!(parse(Some(&sent)).unwrap(), expected, "{sent}");
        }
        assert_eq!(parse(None).unwrap(), None);
    }

    #[test]
    fn refusals() {
        for (sent, text) in [
            (json!("10"), "time: missing unit in duration \"10\""),
            (json!(""), "time: invalid duration \"\""),
            (json!("x"), "time: invalid duration \"x\""),
            (json!("-1"), "time: missing unit in duration \"-1\""),
            (json!("5d"), "time: unknown unit \"d\" in duration \"5d\""),
            (json!("."), "time: invalid duration \".\""),
            (json!(true), "Unsupported type: 'bool'"),
            (json!([]), "Unsupported type: '[]interface {}'"),
        ] {
            assert_eq!(
                parse(Some(&sent)).unwrap_err(),
                ApiError::bad_request(text),
                "{sent}"
            );
        }
    }
}
