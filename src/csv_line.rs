//! Rows as lines of a CSV file, as streams and tests read them.

/// One line; NULL is an empty field, and empty text one in quotes.
pub(crate) fn csv_line(fields: impl Iterator<Item = Option<String>>) -> String {
    let field = |field: Option<String>| match field {
        None => String::new(),
        Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.trim() != text => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text,
    };
    let fields: Vec<String> = fields.map(field).collect();
    format!("{}\n", fields.join(","))
}
