//! Go's `printf`, for the verbs that templates use.

use super::{
    functions::{MAX_TEXT_BYTES, checked},
    value::Value,
};

/// Widest padding.
const MAX_WIDTH: i64 = 65_536;

/// `printf format values...`; the error is what Go says after `error calling printf: `.
pub fn printf(args: &[Value]) -> Result<Value, String> {
    let Some((Value::Str(format), args)) = args.split_first() else {
        return Err("wrong type for value; expected string".into());
    };
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = &**format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let spec = Spec::read(&rest[at + 1..], &mut args);
        rest = &rest[at + 1 + spec.n_bytes..];
        match spec.verb {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match args.next() {
                Some(value) => spec.write(&mut out, verb, value),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
        if out.len() > MAX_TEXT_BYTES {
            return checked(out);
        }
    }
    out.push_str(rest);
    let extra = args.map(|value| match value {
        Value::Missing | Value::Nil => "<nil>".to_string(),
        value => format!("{}={}", value.type_name(), formatted('v', None, value)),
    });
    let extra = extra.collect::<Vec<_>>();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    checked(out)
}

/// One `%` directive.
struct Spec {
    is_left: bool,
    pads_with_zeros: bool,
    width: usize,
    precision: Option<usize>,
    verb: Option<char>,
    n_bytes: usize,
}

impl Spec {
    /// Reads what stands after a `%`. A `*` takes the width or the precision from the arguments.
    fn read<'v>(text: &str, args: &mut impl Iterator<Item = &'v Value>) -> Spec {
        let flags = text.len() - text.trim_start_matches(['-', '+', '#', ' ', '0']).len();
        let mut number = |text: &str| {
            if text.starts_with('*') {
                return (1, args.next().map_or(0, width_of));
            }
            let n_digits = text.bytes().take_while(u8::is_ascii_digit).count();
            (
                n_digits,
                text[..n_digits].parse::<i64>().unwrap_or(0).min(MAX_WIDTH),
            )
        };
        let (n_width, width) = number(&text[flags..]);
        let mut n_bytes = flags + n_width;
        let mut precision = None;
        if text[n_bytes..].starts_with('.') {
            let (n_digits, value) = number(&text[n_bytes + 1..]);
            precision = usize::try_from(value).ok();
            n_bytes += 1 + n_digits;
        }
        let verb = text[n_bytes..].chars().next();
        Spec {
            is_left: text[..flags].contains('-') || width < 0,
            pads_with_zeros: text[..flags].contains('0'),
            width: width.unsigned_abs() as usize,
            precision,
            verb,
            n_bytes: n_bytes + verb.map_or(0, char::len_utf8),
        }
    }

    fn write(&self, out: &mut String, verb: char, value: &Value) {
        let text = formatted(verb, self.precision, value);
        let n_missing = self.width.saturating_sub(text.chars().count());
        let is_number = matches!(value, Value::Int(_) | Value::Float(_));
        if self.is_left {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', n_missing));
        } else {
            let pad = if self.pads_with_zeros && is_number {
                '0'
            } else {
                ' '
            };
            out.extend(std::iter::repeat_n(pad, n_missing));
            out.push_str(&text);
        }
    }
}

fn width_of(value: &Value) -> i64 {
    match value {
        Value::Int(n) => (*n).clamp(-MAX_WIDTH, MAX_WIDTH),
        _ => 0,
    }
}

/// A value under a verb, `%!verb(type=value)` where they do not fit.
fn formatted(verb: char, precision: Option<usize>, value: &Value) -> String {
    let plain = || {
        let mut out = String::new();
        value.print_inner(&mut out);
        out
    };
    match (verb, value) {
        (verb, Value::Missing | Value::Nil) if verb != 'v' => return format!("%!{verb}(<nil>)"),
        ('x' | 'X', Value::Str(text)) => {
            let hex = text
                .bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>();
            return if verb == 'X' { hex.to_uppercase() } else { hex };
        }
        ('s' | 'q', Value::Bool(_) | Value::Int(_) | Value::Float(_)) => {}
        ('q', _) => return format!("{:?}", plain()),
        ('s', _) => {
            let n_chars = precision.unwrap_or(usize::MAX);
            return plain().chars().take(n_chars).collect();
        }
        ('f' | 'F', Value::Float(n)) => return format!("{n:.*}", precision.unwrap_or(6)),
        ('x', Value::Int(n)) => return format!("{n:x}"),
        ('X', Value::Int(n)) => return format!("{n:X}"),
        ('c', Value::Int(n)) => {
            let c = u32::try_from(*n).ok().and_then(char::from_u32);
            return c.unwrap_or(char::REPLACEMENT_CHARACTER).to_string();
        }
        ('v', _) | ('d', Value::Int(_)) | ('t', Value::Bool(_)) | ('g', Value::Float(_)) => {
            return plain();
        }
        _ => {}
    }
    format!("%!{verb}({}={})", value.type_name(), plain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printf_knows_verbs_and_reports_misuse() {
        let cases: &[(&str, &[Value], &str)] = &[
            (
                "%s-%d-%v-%q",
                &["a".into(), Value::Int(7), Value::Bool(true), "x\n".into()],
                "a-7-true-\"x\\n\"",
            ),
            (
                "%5d|%-5s|%05d|%.2f%%",
                &[
                    Value::Int(7),
                    "a".into(),
                    Value::Int(7),
                    Value::Float(1.005),
                ],
                "    7|a    |00007|1.00%",
            ),
            ("%d", &["hi".into()], "%!d(string=hi)"),
            ("%s", &[], "%!s(MISSING)"),
            ("x", &[Value::Int(1)], "x%!(EXTRA int=1)"),
            ("%", &[], "%!(NOVERB)"),
            (
                "a%*s|%-*d|",
                &[Value::Int(3), "".into(), Value::Int(3), Value::Int(1)],
                "a   |1  |",
            ),
            ("%s%x", &[Value::Nil, "é".into()], "%!s(<nil>)c3a9"),
            ("%v", &[Value::Int(1), Value::Nil], "1%!(EXTRA <nil>)"),
        ];
        for (format, args, expected) in cases {
            let args = [&[Value::from(*format)], *args].concat();
            let mut out = String::new();
            printf(&args).unwrap().print(&mut out);
            assert_eq!(out, *expected, "{format}");
        }
    }
}
