//! An answer on its way to the terminal: words wrapped at the window's edge, reasoning set apart.

use std::io::{self, Write};
use unicode_width::UnicodeWidthChar;

const GREY: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";

/// How an answer is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Columns to wrap words at; `None` leaves lines as they are.
    pub wrap: Option<usize>,
    /// The output is a terminal: colours, and no control characters of the model's making.
    pub terminal: bool,
    pub hide_thinking: bool,
}

/// Which part of an answer was written last.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Nothing,
    Thinking,
    Content,
}

/// Writes the pieces of one answer, each at once.
pub struct Printer<W> {
    out: W,
    style: Style,
    part: Part,
    column: usize,
    /// The word that the line ends in, to be taken to the next line should it grow past the edge.
    word: String,
    word_width: usize,
}

impl<W: Write> Printer<W> {
    pub fn new(out: W, style: Style) -> Printer<W> {
        Printer {
            out,
            style,
            part: Part::Nothing,
            column: 0,
            word: String::new(),
            word_width: 0,
        }
    }

    pub fn thinking(&mut self, text: &str) -> io::Result<()> {
        if self.style.hide_thinking || text.is_empty() {
            return Ok(());
        }
        if self.part != Part::Thinking {
            self.part = Part::Thinking;
            self.colour(GREY)?;
            self.write("Thinking...\n")?;
        }
        self.write(text)?;
        self.out.flush()
    }

    pub fn content(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.end_thinking()?;
        self.part = Part::Content;
        self.write(text)?;
        self.out.flush()
    }

    /// The line that closes the reasoning, if any is open.
    pub fn end_thinking(&mut self) -> io::Result<()> {
        if self.part != Part::Thinking {
            return Ok(());
        }
        self.part = Part::Nothing;
        let start = if self.column > 0 { "\n" } else { "" };
        self.write(start)?;
        self.write("...done thinking.\n\n")?;
        self.colour(PLAIN)?;
        self.out.flush()
    }

    fn colour(&mut self, code: &str) -> io::Result<()> {
        if self.style.terminal {
            self.out.write_all(code.as_bytes())?;
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        for c in text.chars() {
            if self.style.terminal && c.is_control() && !matches!(c, '\n' | '\t') {
                continue;
            }
            match self.style.wrap {
                Some(columns) => self.wrapped(c, columns)?,
                None => self.plain(c)?,
            }
        }
        Ok(())
    }

    fn plain(&mut self, c: char) -> io::Result<()> {
        self.column = if c == '\n' { 0 } else { self.column + 1 };
        write!(self.out, "{c}")
    }

    fn wrapped(&mut self, c: char, columns: usize) -> io::Result<()> {
        if matches!(c, '\n' | ' ' | '\t') {
            return self.blank(c, columns);
        }
        let width = c.width().unwrap_or(0);
        if self.column + width > columns {
            self.next_line(columns)?;
        }
        write!(self.out, "{c}")?;
        self.column += width;
        self.word.push(c);
        self.word_width += width;
        Ok(())
    }

    fn blank(&mut self, c: char, columns: usize) -> io::Result<()> {
        self.word.clear();
        self.word_width = 0;
        let next = match c {
            ' ' => self.column + 1,
            '\t' => (self.column / 8 + 1) * 8,
            _ => columns + 1,
        };
        if next > columns {
            self.column = 0;
            return writeln!(self.out);
        }
        self.column = next;
        write!(self.out, "{c}")
    }

    /// Starts a line, and takes the unfinished word there unless the word alone fills most of a line.
    fn next_line(&mut self, columns: usize) -> io::Result<()> {
        if self.word_width == 0 || self.word_width > columns / 2 {
            self.word.clear();
            self.word_width = 0;
            self.column = 0;
            return writeln!(self.out);
        }
        let (word, width) = (&self.word, self.word_width);
        write!(self.out, "\x1b[{width}D\x1b[K\n{word}")?;
        self.column = width;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(style: Style, pieces: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, style);
        for (thinking, content) in pieces {
            printer.thinking(thinking).unwrap();
            printer.content(content).unwrap();
        }
        printer.end_thinking().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn wrapped(columns: usize, pieces: &[&str]) -> String {
        let style = Style {
            wrap: Some(columns),
            ..Style::default()
        };
        let pieces: Vec<_> = pieces.iter().map(|content| ("", *content)).collect();
        printed(style, &pieces)
    }

    #[test]
    fn words_move_to_the_next_line() {
        assert_eq!(
            wrapped(10, &["one two th", "ree"]),
            "one two th\x1b[2D\x1b[K\nthree"
        );
        assert_eq!(wrapped(10, &["0123456789 x"]), "0123456789\nx");
        assert_eq!(wrapped(10, &["ab\ncd ef"]), "ab\ncd ef");
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(wrapped(4, &["abcdefghij"]), "abcd\nefgh\nij");
        assert_eq!(wrapped(4, &["日本語"]), "日本\n語");
    }

    #[test]
    fn reasoning_is_set_apart() {
        let pieces = [("hm", ""), (", yes", ""), ("", "A"), ("", "B")];
        assert_eq!(
            printed(Style::default(), &pieces),
            "Thinking...\nhm, yes\n...done thinking.\n\nAB"
        );
        let style = Style {
            hide_thinking: true,
            ..Style::default()
        };
        assert_eq!(printed(style, &pieces), "AB");
        let only = [("hm\n", "")];
        assert_eq!(
            printed(Style::default(), &only),
            "Thinking...\nhm\n...done thinking.\n\n"
        );
    }

    #[test]
    fn a_terminal_gets_no_control_characters_of_the_model() {
        let style = Style {
            terminal: true,
            ..Style::default()
        };
        assert_eq!(printed(style, &[("", "a\x1b[2Jb\u{9b}c\n")]), "a[2Jbc\n");
        assert_eq!(printed(Style::default(), &[("", "a\x1bb")]), "a\x1bb");
    }
}
