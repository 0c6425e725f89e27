//! Values of a Jinja template as text: JSON, or Python's `repr`.

use minijinja::{Error, ErrorKind, Value, value::ValueKind};

/// Deepest nesting of a value that is written out.
const MAX_DEPTH: usize = 128;

pub const PYTHON: Style = Style {
    item: ", ",
    key: ": ",
    indent: None,
    ensure_ascii: false,
    sort_keys: false,
    python: true,
};

/// How a value is written: as JSON, or as Python's `repr`.
pub struct Style<'a> {
    pub item: &'a str,
    pub key: &'a str,
    pub indent: Option<usize>,
    pub ensure_ascii: bool,
    pub sort_keys: bool,
    pub python: bool,
}

impl Style<'_> {
    pub fn write(&self, out: &mut Bounded, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let message = format!("value is nested deeper than {MAX_DEPTH}");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => out.push(self.word("null", "None")),
            ValueKind::Bool => out.push(match value.is_true() {
                true => self.word("true", "True"),
                false => self.word("false", "False"),
            }),
            ValueKind::Number => out.push(&value.to_string()),
            ValueKind::Seq | ValueKind::Iterable => self.write_list(out, value, depth),
            ValueKind::Map => self.write_map(out, value, depth),
            _ => self.write_string(out, value.as_str().unwrap_or(&value.to_string())),
        }
    }

    fn word<'w>(&self, json: &'w str, python: &'w str) -> &'w str {
        if self.python { python } else { json }
    }

    fn write_list(&self, out: &mut Bounded, list: &Value, depth: usize) -> Result<(), Error> {
        let mut n_items = 0;
        out.push("[")?;
        for item in list.try_iter()? {
            self.start_item(out, n_items, depth + 1)?;
            self.write(out, &item, depth + 1)?;
            n_items += 1;
        }
        self.end_items(out, n_items, depth)?;
        out.push("]")
    }

    fn write_map(&self, out: &mut Bounded, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys = map.try_iter()?.collect::<Vec<_>>();
        if self.sort_keys {
            keys.sort();
        }
        out.push("{")?;
        for (i, key) in keys.iter().enumerate() {
            self.start_item(out, i, depth + 1)?;
            self.write_string(out, key.as_str().unwrap_or(&key.to_string()))?;
            out.push(self.key)?;
            self.write(out, &map.get_item(key)?, depth + 1)?;
        }
        self.end_items(out, keys.len(), depth)?;
        out.push("}")
    }

    fn start_item(&self, out: &mut Bounded, index: usize, depth: usize) -> Result<(), Error> {
        if index > 0 {
            out.push(self.item)?;
        }
        self.new_line(out, depth)
    }

    fn end_items(&self, out: &mut Bounded, n_items: usize, depth: usize) -> Result<(), Error> {
        if n_items == 0 {
            Ok(())
        } else {
            self.new_line(out, depth)
        }
    }

    fn new_line(&self, out: &mut Bounded, depth: usize) -> Result<(), Error> {
        let Some(indent) = self.indent else {
            return Ok(());
        };
        out.push("\n")?;
        (0..indent.saturating_mul(depth)).try_for_each(|_| out.push(" "))
    }

    fn write_string(&self, out: &mut Bounded, text: &str) -> Result<(), Error> {
        let quote = match self.python && (!text.contains('\'') || text.contains('"')) {
            true => '\'',
            false => '"',
        };
        out.push(quote.encode_utf8(&mut [0; 4]))?;
        for c in text.chars() {
            self.write_char(out, c, quote)?;
        }
        out.push(quote.encode_utf8(&mut [0; 4]))
    }

    fn write_char(&self, out: &mut Bounded, c: char, quote: char) -> Result<(), Error> {
        match c {
            '\\' => out.push("\\\\"),
            '\n' => out.push("\\n"),
            '\r' => out.push("\\r"),
            '\t' => out.push("\\t"),
            '\x08' if !self.python => out.push("\\b"),
            '\x0c' if !self.python => out.push("\\f"),
            c if c == quote => out.push(if quote == '"' { "\\\"" } else { "\\'" }),
            c if c < ' ' && self.python => out.push(&format!("\\x{:02x}", c as u32)),
            c if c < ' ' || (self.ensure_ascii && !c.is_ascii()) => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units)
                    .iter()
                    .try_for_each(|unit| out.push(&format!("\\u{unit:04x}")))
            }
            c => out.push(c.encode_utf8(&mut [0; 4])),
        }
    }
}

/// Text that refuses to grow past a limit.
pub struct Bounded {
    pub text: Vec<u8>,
    pub limit: usize,
}

impl Bounded {
    pub fn push(&mut self, piece: &str) -> Result<(), Error> {
        std::io::Write::write_all(self, piece.as_bytes())
            .map_err(|_| Error::from(ErrorKind::OutOfFuel))
    }
}

impl std::io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        if piece.len() > self.limit.saturating_sub(self.text.len()) {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
