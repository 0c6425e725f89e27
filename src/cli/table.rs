//! Tables as the command line prints them: left-aligned columns four blanks apart, no borders.

use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

const GAP: usize = 4;

/// Rows under an optional header, each line after `indent`.
pub struct Table {
    indent: &'static str,
    header: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn with_header(header: &[&str]) -> Table {
        Table {
            indent: "",
            header: Some(header.iter().map(|&cell| cell.to_owned()).collect()),
            rows: Vec::new(),
        }
    }

    pub fn indented(indent: &'static str) -> Table {
        Table {
            indent,
            header: None,
            rows: Vec::new(),
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table's lines. Every cell is padded to its column and the gap; the header's last one, as in Ollama, to its
    /// column and one blank.
    pub fn render(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        if let Some(header) = &self.header {
            self.line(&mut text, header, &widths, 1);
        }
        for row in &self.rows {
            self.line(&mut text, row, &widths, GAP);
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in self.header.iter().chain(&self.rows) {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        widths
    }

    fn line(&self, text: &mut String, cells: &[String], widths: &[usize], last_gap: usize) {
        text.push_str(self.indent);
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let last = column + 1 == widths.len();
            let gap = if last { last_gap } else { GAP };
            let blanks = width - cell.width() + gap;
            write!(text, "{cell}{:blanks$}", "").expect("writing to a string cannot fail");
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_header_are_padded_as_recorded() {
        let mut table = Table::with_header(&["NAME", "MODIFIED"]);
        assert_eq!(table.render(), "NAME    MODIFIED \n");
        table.row(["minilm:latest".into(), "17 minutes ago".into()]);
        assert_eq!(
            table.render(),
            "NAME             MODIFIED       \nminilm:latest    17 minutes ago    \n"
        );
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::indented("  ");
        table.row(["日本".into(), "a".into()]);
        table.row(["x".into(), "b".into()]);
        assert_eq!(table.render(), "  日本    a    \n  x       b    \n");
    }
}
