//! Tables for people: columns as wide as what is in them, no lines.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

/// What stands between two columns.
const GAP: &str = "  ";

/// A table with a head.
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these columns; one whose name begins with `>` is set to the right.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        let head = columns
            .iter()
            .map(|name| name.trim_start_matches('>'))
            .collect();
        let right = columns.iter().map(|name| name.starts_with('>')).collect();
        Self {
            head,
            rows: Vec::new(),
            right,
        }
    }

    /// Adds a row, which has as many cells as the table has columns.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.head.len(), "a row has one cell for each column");
        self.rows.push(cells.map(|cell| printable(&cell)).into());
    }

    /// The table as text, ending with a line feed.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].width());
            cells.chain([self.head[column].width()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let mut text = self.line(self.head.iter().copied(), &widths);
        for row in &self.rows {
            text.push_str(&self.line(row.iter().map(String::as_str), &widths));
        }
        text
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
        let mut line = String::new();
        for (column, cell) in cells.enumerate() {
            let gap = if column == 0 { "" } else { GAP };
            let fill = " ".repeat(widths[column] - cell.width());
            let (before, behind) = if self.right[column] {
                (&*fill, "")
            } else {
                ("", &*fill)
            };
            write!(line, "{gap}{before}{cell}{behind}").expect("writing to a string does not fail");
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// Keys and values, one pair a line, ending with a line feed.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.width()).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| {
        let line = format!("{key:width$}{GAP}{}", printable(value));
        format!("{}\n", line.trim_end())
    };
    pairs.iter().map(line).collect()
}

/// The text without characters that could command a terminal; `-` for none.
fn printable(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", ">SIZE", "STATUS"]);
        table.row([
            "存储库".to_owned(),
            "5 GB".to_owned(),
            "available".to_owned(),
        ]);
        table.row(["a".to_owned(), "100 GB".to_owned(), String::new()]);
        assert_eq!(
            table.render(),
            "NAME      SIZE  STATUS\n存储库    5 GB  available\na       100 GB  -\n"
        );
    }

    #[test]
    fn pairs_line_up() {
        let text = pairs(&[("id", "1".to_owned()), ("name", String::new())]);
        assert_eq!(text, "id    1\nname  -\n");
    }

    #[test]
    fn a_name_cannot_command_the_terminal() {
        let text = pairs(&[("name", "a\u{1b}[2Jb\n".to_owned())]);
        assert_eq!(text, "name  a\u{FFFD}[2Jb\u{FFFD}\n");
    }
}
