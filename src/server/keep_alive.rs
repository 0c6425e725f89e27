//! `keep_alive`: how long a model stays in memory after its last request.

use super::error::ApiError;
use crate::engine::KeepAlive;
use crate::settings::parse_duration;
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
        Some(Value::String(text)) => {
            let time = parse_duration(text).map_err(ApiError::bad_request)?;
            let time = time.filter(|time| *time < LONGEST);
            Ok(Some(time.map_or(KeepAlive::Forever, KeepAlive::For)))
        }
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
